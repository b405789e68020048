"""What is measured, and what is wanted of it. Pure data."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What is wanted: `limit` in seconds, or per second; `times` better than stock aiflows."""

    limit: float
    times: float | None = None


@dataclass(frozen=True)
class Measure:
    """One row of the page: a duration in seconds or, with `per_second`, a rate.

    `by_stock` tells whether stock aiflows can do the same.
    """

    name: str
    title: str
    goal: Goal | None = None
    per_second: bool = False
    by_stock: bool = False


MEASURES = (
    Measure("same_user", "round trip, atomic flow, same user", Goal(0.0025, 10), by_stock=True),
    Measure("other_user", "the same, another user", Goal(0.003, 9), by_stock=True),
    Measure(
        "composite",
        "round trip, composite with two remote subflows",
        Goal(0.010, 14),
        by_stock=True,
    ),
    Measure("get_instance", "get_instance of that composite", Goal(0.008, 10), by_stock=True),
    Measure(
        "throughput",
        "parallel flow, 200 in flight, two dispatch workers",
        Goal(800, 14),
        per_second=True,
        by_stock=True,
    ),
    Measure("apply_100", "apply 100 flows from nothing", by_stock=True),
    Measure("noop_100", "apply the same 100 again"),
    Measure("apply_1000", "apply 1,000 flows from nothing", Goal(0.9), by_stock=True),
    Measure("noop_1000", "apply the same 1,000 again", Goal(0.3)),
    Measure("list_1000", "list 1,000 endpoints", Goal(0.2), by_stock=True),
    Measure("save_1000", "save of a manifest of 1,000 flows, one changed, to converged", Goal(1.0)),
    Measure("demo", "`engine apply` of the demo from nothing", Goal(3.0)),
    Measure("status", "`engine status` of the demo", Goal(0.3)),
)

UNMEASURED = (
    ("round trip after 100,000 tasks, against after 1,000", "≤ 1.1×"),
    ("idle, 100 users with 1,000 flows", "≤ 1 % CPU, ≤ 1 GB in all"),
)
"""Goals that nothing here measures yet: what, and what is wanted."""

IN_FLIGHT = 200
NAMES = tuple(measure.name for measure in MEASURES)
MESSAGES = ("same_user", "other_user", "composite", "get_instance", "throughput")
APPLYING = tuple(name for name in NAMES if name.endswith(("_100", "_1000")))
DEMO = ("demo", "status")


@dataclass(frozen=True)
class Order:
    """Which measures to take, and how often.

    `times` is for what takes milliseconds, `rounds` for what takes longer.
    """

    names: tuple[str, ...] = NAMES
    times: int = 100
    rounds: int = 5

    def wants(self, *names: str) -> bool:
        """Tell whether any of `names` is to be measured."""
        return not set(self.names).isdisjoint(names)

    @property
    def complete(self) -> bool:
        """Whether nothing is left out."""
        return self.names == NAMES
