"""The notebook "Getting Flow instances from other CoLink users": its steps, order and names."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from engine import serving
from engine.colink_utils import (
    print_flow_instances,
    print_served_flows,
    start_colink_server,
    start_colink_server_with_users,
)
from engine.workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Tree = dict[str, "Tree"]
ENDPOINT = {
    "init": {},
    "flow_class_name": {},
    "singleton": {},
    "default_dispatch_point": {},
    "parallel_dispatch": {},
}
INSTANCE: Tree = {"init": {}, "config_overrides": {}, "state": {}}


def tree(printed: str) -> Tree:
    """Return what was printed as a tree: names by indentation, directories end in a slash."""
    root: Tree = {}
    path = [root]
    for line in printed.splitlines():
        blanks = len(line) - len(line.lstrip(" "))
        assert blanks % 2 == 1, f"{line!r} is not indented as in the notebook"
        del path[(blanks - 1) // 2 + 1 :]
        below: Tree = {}
        name = line.strip()
        path[-1][name.removesuffix("/")] = below
        path.append(below)
        assert name.endswith("/") == (name.removesuffix("/") not in (*ENDPOINT, *INSTANCE)) or (
            re.fullmatch(r"[0-9a-f-]{36}", name)
        )
    return root


def test_the_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    # Create two users
    cls = start_colink_server_with_users(num_users=2)
    user0, user1 = cls[0].get_user_id(), cls[1].get_user_id()

    # USER 0
    run_dispatch_worker_thread(cls[0])
    run_get_instance_worker_thread(cls[0])
    assert serving.serve_flow(
        cl=cls[0],
        flow_class_name="reverse_number.ReverseNumberAtomicFlow",
        flow_endpoint="reverse_number_atomic",
        singleton=True,
    )

    # USER 1
    run_dispatch_worker_thread(cls[1])
    run_get_instance_worker_thread(cls[1])
    assert serving.serve_flow(
        cl=cls[1],
        flow_class_name="reverse_number.ReverseNumberSequentialFlow",
        flow_endpoint="reverse_number_sequential",
    )
    cfg_overrides = {
        "subflows_config": {
            "first_reverse_flow": {"user_id": user0},
            "second_reverse_flow": {"user_id": user0},
        }
    }
    flow = serving.get_flow_instance(
        cl=cls[1],
        flow_endpoint="reverse_number_sequential",
        user_id="local",
        config_overrides=cfg_overrides,
    )
    input_message = flow.package_input_message({"id": 0, "number": 1234})
    future = flow.get_reply_future(input_message)
    assert future.get_data() == {"output_number": 1234}

    # Directly fetching remote flows
    remote_flow = serving.get_flow_instance(
        cl=cls[1], flow_endpoint="reverse_number_atomic", user_id=user0
    )
    input_message = remote_flow.package_input_message({"id": 0, "number": 1234})
    assert remote_flow.get_reply_future(input_message).get_data() == {"output_number": 4321}

    # Observe storage of both users
    def status(cl: object) -> tuple[Tree, Tree]:
        capsys.readouterr()
        print_served_flows(cl, print_values=False)
        served = capsys.readouterr().out
        print_flow_instances(cl)
        return tree(served), tree(capsys.readouterr().out)

    singleton, instance = remote_flow.get_instance_id(), flow.get_instance_id()
    assert status(cls[0]) == (
        {"reverse_number_atomic": ENDPOINT | {"mounts": {user1: {singleton: INSTANCE}}}},
        {singleton: {}},
    )
    assert status(cls[1]) == (
        {"reverse_number_sequential": ENDPOINT | {"mounts": {"local": {instance: INSTANCE}}}},
        {instance: {}},
    )


def test_one_user_serves_a_composite_with_its_subflows(capsys: pytest.CaptureFixture[str]) -> None:
    cl = start_colink_server()
    run_dispatch_worker_thread(cl)
    assert serving.recursive_serve_flow(
        cl, "reverse_number.ReverseNumberSequentialFlow", "sequential"
    )
    assert serving.is_flow_served(cl, "reverse_number_atomic")
    assert not serving.serve_flow(cl, "reverse_number.ReverseNumberSequentialFlow", "sequential")

    flow = serving.get_flow_instance(cl, "sequential")
    future = flow.get_reply_future(flow.package_input_message({"number": 12}))
    assert future.get_message().data == {"output_number": 12}
    assert future.try_get_data() == {"output_number": 12}

    serving.recursive_delete_flow_instance(cl, flow.get_instance_id())
    print_flow_instances(cl)
    assert len(capsys.readouterr().out.splitlines()) == 1, "the singleton stays"
    serving.unserve_flow(cl, "sequential")
    with pytest.raises(serving.FlowInstanceException, match="Not serving at sequential"):
        serving.get_flow_instance(cl, "sequential")
    serving.delete_all_flow_endpoints(cl)
    print_served_flows(cl)
    print_flow_instances(cl)
    assert capsys.readouterr().out == ""


def test_the_core_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from engine.colink_utils import start_colink_server\n"
        "start_colink_server()\n"
        "print('started', flush=True)\n"
        "input()\n"
    )
    for end in ("killed", "over"):
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        with subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        ) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == b"started\n"
            children = psutil.Process(process.pid).children(recursive=True)
            assert children
            if end == "killed":
                process.send_signal(signal.SIGKILL)
            else:
                process.stdin.write(b"\n")
                process.stdin.flush()
                assert process.wait(20) == 0
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        if end == "over":
            assert len(list(tmp_path.glob("colink-core-*"))) == 1, "only that of the killed one"
