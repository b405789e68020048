"""What stock aiflows 1.1.1 takes for the same work. Run by its own Python, told what on stdin.

Prints one JSON object: name of the measure to list of seconds (or messages per second).
"""

import contextlib
import io
import json
import logging
import subprocess
import sys
import threading
import time

from aiflows.utils import colink_utils, serving
from aiflows.workers import run_dispatch_worker_thread, run_get_instance_worker_thread
from colink import CoLink

DATA = {"id": 0, "number": 1234}


def timed(action, times, warm_up=3):
    for _ in range(warm_up):
        action()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return found


def ask(proxy):
    message = proxy.package_input_message(dict(DATA))
    return proxy.get_reply_future(message).get_data()


def throughput(server, address, token, in_flight):
    """Messages per second through a parallel flow with two dispatch worker processes."""
    serving.serve_flow(
        server,
        "stock_flows.ReverseAtomic",
        "parallel",
        dispatch_point="bench_dispatch",
        parallel_dispatch=True,
    )
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-W",
                "ignore",
                "-m",
                "aiflows.workers.dispatch_worker",
                "--addr",
                address,
                "--jwt",
                token,
                "--dispatch_point",
                "bench_dispatch",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    try:
        proxy = serving.get_flow_instance(server, "parallel")
        for _ in range(4):
            ask(proxy)
        started = time.perf_counter()
        threads = [threading.Thread(target=ask, args=(proxy,)) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [in_flight / (time.perf_counter() - started)]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def main():
    orders = json.load(sys.stdin)
    logging.disable(logging.CRITICAL)
    users = [CoLink(orders["address"], token) for token in orders["tokens"]]
    times = orders["times"]
    for user in users:
        user.start_protocol_operator("coflows_scheduler", user.get_user_id(), False)
        run_dispatch_worker_thread(user)
        run_get_instance_worker_thread(user)
    server, client = users
    serving.serve_flow(server, "stock_flows.ReverseAtomic", "reverse", singleton=True)
    serving.serve_flow(client, "stock_flows.ReverseAtomic", "reverse", singleton=True)
    serving.serve_flow(client, "stock_flows.ReverseTwice", "twice")
    subflow = {"user_id": server.get_user_id()}
    overrides = {"subflows_config": {"first_reverse_flow": subflow, "second_reverse_flow": subflow}}

    def get_twice():
        return serving.get_flow_instance(client, "twice", config_overrides=overrides)

    own = serving.get_flow_instance(client, "reverse")
    other = serving.get_flow_instance(client, "reverse", user_id=server.get_user_id())
    twice = get_twice()
    results = {
        "same_user": timed(lambda: ask(own), times),
        "other_user": timed(lambda: ask(other), times),
        "composite": timed(lambda: ask(twice), times),
        "get_instance": timed(get_twice, max(5, times // 4)),
        "throughput": throughput(
            server, orders["address"], orders["tokens"][0], orders["in_flight"]
        ),
    }
    started = time.perf_counter()
    for number in range(orders["endpoints"]):
        serving.serve_flow(server, "stock_flows.ReverseAtomic", f"endpoint_{number}")
    results["serve"] = [time.perf_counter() - started]
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        colink_utils.print_served_flows(server)
    results["list"] = [time.perf_counter() - started]
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    main()
