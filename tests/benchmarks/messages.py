"""Our round trips, get_instance and throughput: the calls that the stock side makes, too."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

from engine.flows import AtomicFlow
from engine.serving import get_flow_instance
from tests.benchmarks.bed import Bed, duration
from tests.benchmarks.failure import BenchmarkError
from tests.benchmarks.measures import IN_FLIGHT, Order

DATA = {"id": 0, "number": 1234}


def measured(bed: Bed, order: Order) -> Iterator[tuple[str, list[float]]]:
    """Yield each wanted measure's name and values; the manifest `messages` is applied."""
    server, client = bed.user("server"), bed.user("client")
    server_id = server.get_user_id()
    subflow = {"user_id": server_id}
    overrides = {"subflows_config": {"first_reverse_flow": subflow, "second_reverse_flow": subflow}}

    def get_twice() -> AtomicFlow:
        return get_flow_instance(client, "twice", config_overrides=overrides)

    if order.wants("same_user"):
        own = get_flow_instance(client, "reverse")
        yield "same_user", timed(lambda: ask(own, 4321), order.times)
    if order.wants("other_user"):
        other = get_flow_instance(client, "reverse", user_id=server_id)
        yield "other_user", timed(lambda: ask(other, 4321), order.times)
    if order.wants("composite"):
        twice = get_twice()
        yield "composite", timed(lambda: ask(twice, 1234), order.times)
    if order.wants("get_instance"):
        yield "get_instance", timed(get_twice, order.times)
    if order.wants("throughput"):
        parallel = get_flow_instance(server, "parallel")
        seconds = timed(lambda: ask_all(parallel), order.rounds, warm_up=1)
        yield "throughput", [IN_FLIGHT / taken for taken in seconds]


def ask(proxy: AtomicFlow, expected: int) -> None:
    """Make one round trip; BenchmarkError when the answer is not the one expected."""
    message = proxy.package_input_message(DATA)
    data = proxy.get_reply_future(message).get_data()
    if data["output_number"] != expected:
        raise BenchmarkError(f"A flow answered {data}, not {expected}.")


def ask_all(proxy: AtomicFlow) -> None:
    """Make IN_FLIGHT round trips at the same time."""
    threads = [threading.Thread(target=ask, args=(proxy, 4321)) for _ in range(IN_FLIGHT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def timed(action: Callable[[], Any], times: int, warm_up: int = 3) -> list[float]:
    """Return how many seconds `action` takes, `times` times, after some that do not count."""
    for _ in range(warm_up):
        action()
    return [duration(action) for _ in range(times)]
