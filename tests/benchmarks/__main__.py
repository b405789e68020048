"""`python -m tests.benchmarks`: measure, and write docs/benchmarks.md."""

import argparse
import datetime
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.failure import BenchmarkError
from tests.benchmarks.machine import machine_text
from tests.benchmarks.measures import MEASURES, NAMES, Order
from tests.benchmarks.page import Run, line, render
from tests.benchmarks.run import measure

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
_MODULE = "python -m tests.benchmarks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    order = _order(options)
    try:
        ours, stock = measure(order, with_stock=not options.without_stock)
    except BenchmarkError as error:
        print(error, file=sys.stderr)
        return 1
    now = datetime.datetime.now(datetime.UTC)
    run = Run(ours, stock, " ".join([_MODULE, *given]), now.date().isoformat(), machine_text())
    for measured in MEASURES:
        if measured.name in ours:
            print(line(measured, run))
    page = options.output or (PAGE if _is_whole(options, order) else None)
    if page is not None:
        page.write_text(render(run))
        print(f"Written: {page.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=_MODULE,
        description="Measure, beside stock aiflows 1.1.1 on the same core. "
        "A run of all measures writes docs/benchmarks.md; others only print, unless told with -o.",
    )
    parser.add_argument(
        "measures", nargs="*", metavar="MEASURE", help=f"only these: {', '.join(NAMES)}"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="where the page goes")
    parser.add_argument("--quick", action="store_true", help="few repetitions: to see it run")
    parser.add_argument(
        "--without-stock", action="store_true", help="do not set up and measure stock aiflows"
    )
    return parser


def _order(options: argparse.Namespace) -> Order:
    unknown = [name for name in options.measures if name not in NAMES]
    if unknown:
        _parser().error(f"there is no measure {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    names = tuple(name for name in NAMES if name in options.measures) or NAMES
    return Order(names, times=10, rounds=2) if options.quick else Order(names)


def _is_whole(options: argparse.Namespace, order: Order) -> bool:
    return order.complete and not options.quick and not options.without_stock


if __name__ == "__main__":
    sys.exit(main())
