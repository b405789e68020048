"""What stock aiflows 1.1.1 takes for the same work. Run by its own Python, told what on stdin.

Orders, as JSON: `address` of the core; `tokens` of three users of it; `measures`, the names wanted;
`times`, the repetitions of a round trip; `rounds`, those of what takes long; `in_flight`;
`log`, where the workers print.

Prints one JSON object a line: `measure` and its `values`, in seconds or messages per second.
"""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time

from aiflows.utils import colink_utils, serving
from colink import CoLink

FLOW = "stock_flows.ReverseAtomic"
DATA = {"id": 0, "number": 1234}
POINT = "bench_dispatch"


def main():
    orders = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    users = [CoLink(orders["address"], token) for token in orders["tokens"]]
    with contextlib.ExitStack() as stack:
        start = Starter(stack, orders["address"], orders["log"])
        for user in users[:2]:
            user.start_protocol_operator("coflows_scheduler", user.get_user_id(), False)
            start(user, "dispatch_worker")
            start(user, "get_instance_worker")
        for name, values in measured(orders, *users, start):
            print(json.dumps({"measure": name, "values": values}), flush=True)


class Starter:
    """Starts workers as processes that end with the stack."""

    def __init__(self, stack, address, log):
        self.stack = stack
        self.address = address
        self.log = stack.enter_context(open(log, "ab"))  # noqa: SIM115, PTH123

    def __call__(self, user, module, *arguments):
        # The token is a secret: not in the command line, where everybody can read it.
        told = {"COLINK_CORE_ADDR": self.address, "COLINK_JWT": user.jwt}
        worker = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"aiflows.workers.{module}", *arguments],
            env=os.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
        )
        self.stack.callback(worker.wait)
        self.stack.callback(worker.kill)


def measured(orders, server, client, other_server, start):
    """Yield each wanted measure's name and values."""
    wanted = set(orders["measures"])
    serving.serve_flow(server, FLOW, "reverse", singleton=True)
    serving.serve_flow(client, FLOW, "reverse", singleton=True)
    serving.serve_flow(client, "stock_flows.ReverseTwice", "twice")
    subflow = {"user_id": server.get_user_id()}
    overrides = {"subflows_config": {"first_reverse_flow": subflow, "second_reverse_flow": subflow}}

    def get_twice():
        return serving.get_flow_instance(client, "twice", config_overrides=overrides)

    times, rounds = orders["times"], orders["rounds"]
    if "same_user" in wanted:
        own = serving.get_flow_instance(client, "reverse")
        yield "same_user", timed(lambda: ask(own, 4321), times)
    if "other_user" in wanted:
        other = serving.get_flow_instance(client, "reverse", user_id=server.get_user_id())
        yield "other_user", timed(lambda: ask(other, 4321), times)
    if "composite" in wanted:
        twice = get_twice()
        yield "composite", timed(lambda: ask(twice, 1234), times)
    if "get_instance" in wanted:
        yield "get_instance", timed(get_twice, times)
    if "throughput" in wanted:
        yield "throughput", throughput(server, start, orders["in_flight"], rounds)
    if "apply_100" in wanted:
        yield "apply_100", [serve_many(client, 100, number) for number in range(rounds)]
    if wanted & {"apply_1000", "list_1000"}:
        yield "apply_1000", [serve_many(other_server, 1000)]
    if "list_1000" in wanted:
        yield "list_1000", [listing(other_server)]


def ask(proxy, expected):
    message = proxy.package_input_message(dict(DATA))
    data = proxy.get_reply_future(message).get_data()
    assert data["output_number"] == expected, data


def timed(action, times, warm_up=3):
    for _ in range(warm_up):
        action()
    return [duration(action) for _ in range(times)]


def duration(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def throughput(server, start, in_flight, rounds):
    """Messages per second through a parallel flow with two dispatch workers."""
    serving.serve_flow(server, FLOW, "parallel", dispatch_point=POINT, parallel_dispatch=True)
    for _ in range(2):
        start(server, "dispatch_worker", "--dispatch_point", POINT)
    proxy = serving.get_flow_instance(server, "parallel")

    def ask_all():
        threads = [threading.Thread(target=ask, args=(proxy, 4321)) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return [in_flight / seconds for seconds in timed(ask_all, rounds, warm_up=1)]


def serve_many(user, count, mark=0):
    def serve():
        for number in range(count):
            assert serving.serve_flow(user, FLOW, f"endpoint_{mark}_{number}")

    return duration(serve)


def listing(user):
    with contextlib.redirect_stdout(io.StringIO()):
        return duration(lambda: colink_utils.print_served_flows(user))


if __name__ == "__main__":
    main()
