"""What takes the command line's way: applying, saving, looking, and the demo from nothing."""

import contextlib
import io
import time
from collections.abc import Iterator
from pathlib import Path

from engine.colink_utils import print_served_flows
from engine.daemon.client import ControlClient
from tests.benchmarks import manifests
from tests.benchmarks.bed import Bed, bed, duration
from tests.benchmarks.failure import BenchmarkError
from tests.benchmarks.measures import Order

_DEMO = Path(__file__).parents[2] / "manifests" / "reverse_number.yaml"
_PATIENCE = 60.0
_PERIOD = 0.01


def applying(bed: Bed, order: Order, count: int) -> Iterator[tuple[str, list[float]]]:
    """Yield each wanted measure of manifests with `count` flows."""
    names = [f"{kind}_{count}" for kind in ("apply", "noop", "list", "save")]
    if not order.wants(*names):
        return
    apply, noop, listing, save = names
    name, file, seconds = "", Path(), []
    for number in range(order.rounds if order.wants(apply) else 1):
        if name:
            bed("down", name, "--purge", "--yes")
        name = f"many-{count}-{number}"
        file = bed.write(name, manifests.many(name, count))
        seconds.append(bed.seconds("apply", file))
    if order.wants(apply):
        yield apply, seconds
    if order.wants(noop):
        yield noop, [bed.seconds("apply", file) for _ in range(order.rounds)]
    if order.wants(listing):
        yield listing, _listing(bed, name, order.rounds)
    if order.wants(save):
        yield save, [_saving(bed, name, count, f"changed {n}") for n in range(order.rounds)]
    bed("down", name, "--purge", "--yes")


def _listing(bed: Bed, user_name: str, rounds: int) -> list[float]:
    user = bed.user(user_name)
    with contextlib.redirect_stdout(io.StringIO()):
        return [duration(lambda: print_served_flows(user)) for _ in range(rounds)]


def _saving(bed: Bed, name: str, count: int, changed: str) -> float:
    """Return the seconds from before a save until the status says that all is as saved.

    The event that tells of the changed flow comes just before: it is what is waited for first, so
    that asking for the status again and again does not hold up the engine.
    """
    control = ControlClient(bed.home)
    generation = _status(control, name)["generation"]
    text = manifests.many(name, count, changed)
    saved, started = time.time(), time.perf_counter()
    bed.write(name, text)
    stream = control.stream("GET", "/v1/events?follow=1", timeout=_PATIENCE)
    with contextlib.closing(stream) as events:
        for event in events:
            if event["manifest"] != name or event["time"] < saved:
                continue
            if event["type"] == "StepFailed":
                raise BenchmarkError(f"{event['resource']}: {event['message']}")
            if event["type"] == "StepDone":
                break
    while time.perf_counter() - started < _PATIENCE:
        status = _status(control, name)
        if status["converged"] and status["observed_generation"] > generation:
            return time.perf_counter() - started
        time.sleep(_PERIOD)
    raise BenchmarkError(f"{name} did not converge within {_PATIENCE:g} s after a save.")


def _status(control: ControlClient, name: str) -> dict[str, object]:
    found = control.get("/v1/status")["manifests"]
    return next(manifest for manifest in found if manifest["name"] == name)


def demo(order: Order) -> Iterator[tuple[str, list[float]]]:
    """Yield what the demo takes, each time in an ENGINE_HOME where nothing is."""
    if not order.wants("demo", "status"):
        return
    applied, looked = [], []
    for _ in range(order.rounds if order.wants("demo") else 1):
        with bed() as fresh:
            applied.append(fresh.seconds("apply", _DEMO))
            looked += [fresh.seconds("status") for _ in range(3)]
    if order.wants("demo"):
        yield "demo", applied
    if order.wants("status"):
        yield "status", looked
