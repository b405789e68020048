"""What is told of many values of one measure: the median, and where the middle half lies. Pure."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figures:
    """Median, lower and upper quartile of `count` values."""

    median: float
    lower: float
    upper: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Figures":
        """Return the figures of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0], 1)
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, lower, upper, len(values))


def times_better(ours: Figures, stock: Figures, per_second: bool) -> float:
    """Return how many times better our median is: shorter, or more per second."""
    return ours.median / stock.median if per_second else stock.median / ours.median


def duration_text(seconds: float) -> str:
    """Return a duration in s or ms, with two or three digits that count."""
    return f"{_digits(seconds)} s" if seconds >= 1 else f"{_digits(seconds * 1000)} ms"


def rate_text(per_second: float) -> str:
    """Return a rate, with two or three digits that count."""
    return f"{_digits(per_second)}/s"


def times_text(times: float) -> str:
    """Return a ratio, with two or three digits that count."""
    return f"{_digits(times)}×"


def _digits(value: float) -> str:
    for limit, places in ((10.0, 2), (100.0, 1)):
        if value < limit:
            return f"{value:.{places}f}"
    return f"{value:,.0f}"
