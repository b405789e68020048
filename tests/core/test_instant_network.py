"""§11: the SDK's InstantRegistry and InstantServers, with this core as their program."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

_NETWORK = """
import time
from colink import Participant
from colink.instant_server import InstantRegistry, InstantServer
from colink.p2p_inbox import VtP2pCtx

registry = InstantRegistry()
ann, bob = (InstantServer().get_colink().switch_to_generated_user() for _ in range(2))
both = [Participant(user_id=ann.get_user_id(), role="initiator"),
        Participant(user_id=bob.get_user_id(), role="receiver")]


def started(user, task_id):
    return b"started" in user.read_or_wait(f"_internal:tasks:{task_id}")


task_id = ann.run_task("greet", "hello", both, True)
while not (started(ann, task_id) and started(bob, task_id)):
    time.sleep(0.01)
print("agreed", flush=True)

for user in (ann, bob):
    user.set_task_id(task_id)
    user.vt_p2p_ctx = VtP2pCtx()
ann.send_variable("there", b"from ann", [both[1]])
print(bob.recv_variable("there", both[0]).decode(), flush=True)
bob.send_variable("back", b"from bob", [both[0]])
print(ann.recv_variable("back", both[1]).decode(), flush=True)

ann.remote_storage_create([bob.get_user_id()], "note", b"kept by bob", True)
bob.read_or_wait(f"_remote_storage:public:{ann.get_user_id()}:note")
print(ann.remote_storage_read(bob.get_user_id(), "note", True, ann.get_user_id()).decode())

# A task the other way, by the reverse connection or by a call.
task_id = bob.run_task("greet", "hello", both[::-1], True)
while not (started(ann, task_id) and started(bob, task_id)):
    time.sleep(0.01)
print("agreed again", flush=True)
"""


@pytest.fixture
def colink_home(tmp_path: Path) -> Path:
    program = tmp_path / "colink-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m engine.core.main "$@"\n')
    program.chmod(0o755)
    return tmp_path


def test_two_instant_servers_find_each_other_by_the_instant_registry(colink_home: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _NETWORK],
        capture_output=True,
        text=True,
        timeout=90,
        env={**psutil.Process().environ(), "COLINK_HOME": str(colink_home)},
        check=False,
    )
    assert done.stdout.splitlines() == [
        "agreed",
        "from ann",
        "from bob",
        "kept by bob",
        "agreed again",
    ], done.stderr
    left = [
        process
        for process in psutil.process_iter(["cmdline", "cwd"])
        if str(colink_home) in " ".join(process.info["cmdline"] or ())
        or str(process.info["cwd"]).startswith(str(colink_home))
    ]
    _, alive = psutil.wait_procs(left, timeout=10)
    assert not alive
