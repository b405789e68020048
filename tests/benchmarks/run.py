"""One run: stock aiflows first, then ours, one after the other on the same core."""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.benchmarks import applying, manifests, messages, stock_side
from tests.benchmarks.bed import Bed, bed
from tests.benchmarks.measures import MEASURES, Order

Results = dict[str, list[float]]
_BY_STOCK = [measure.name for measure in MEASURES if measure.by_stock]


def measure(order: Order, *, with_stock: bool) -> tuple[Results, Results]:
    """Return what ours and stock aiflows take, by the measure's name.

    Raises BenchmarkError when something that is needed fails.
    """
    python = stock_side.prepare() if with_stock and order.wants(*_BY_STOCK) else None
    ours, stock = Results(), Results()
    with bed() as made:
        made("apply", made.write("messages", manifests.messages()))
        if python is not None:
            _collect(stock, _stock(made, python, order), order, "stock")
        _collect(ours, messages.measured(made, order), order, "ours")
        for count in (100, 1000):
            _collect(ours, applying.applying(made, order, count), order, "ours")
    _collect(ours, applying.demo(order), order, "ours")
    return ours, stock


def _stock(bed: Bed, python: Path, order: Order) -> Iterator[tuple[str, list[float]]]:
    tokens = asyncio.run(bed.strangers(3))
    return stock_side.run(python, order, bed.address, tokens, bed.home / "stock.log")


def _collect(
    results: Results, found: Iterable[tuple[str, list[float]]], order: Order, side: str
) -> None:
    """Keep what is wanted of `found`; tell of each on the way."""
    for name, values in found:
        if order.wants(name):
            results[name] = values
            print(f"{side:5} {name}", file=sys.stderr, flush=True)
