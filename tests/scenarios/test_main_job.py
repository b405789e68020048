"""One manifest brings two users' flows to life: the story of the README, step by step."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.engine import EngineCommand

NUMBER = '{"id": 0, "number": 1234}'


@pytest.fixture
def demo(manifests: Path, tmp_path: Path) -> Path:
    """A copy of the demo's manifest, to be edited."""
    return Path(shutil.copy(manifests / "reverse_number.yaml", tmp_path / "reverse_number.yaml"))


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{old!r} is not in {file}"
    file.write_text(text.replace(old, new))


def tree(engine: EngineCommand, user: str) -> list[str]:
    return [entry["key"] for entry in engine.json("storage", user, "--all")]


def converged(generation: int) -> Any:
    def holds(status: Any) -> bool:
        manifest = status["manifests"][0]
        return bool(manifest["converged"]) and manifest["observed_generation"] >= generation

    return holds


def test_apply_call_and_look(engine: EngineCommand, demo: Path) -> None:
    engine("apply", demo)

    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'
    answer = engine("call", "user0/reverse_number_atomic", NUMBER, "--as", "user1")
    assert answer.stdout.strip() == '{"output_number": 4321}'

    status = engine.status()
    manifest = status["manifests"][0]
    assert manifest["converged"] is True
    user0, user1 = manifest["users"]["user0"], manifest["users"]["user1"]
    assert user0["flows"]["reverse_number_atomic"]["state"] == "Ready"
    assert user1["mounts"]["twice"]["state"] == "Ready"
    workers = [worker for user in (user0, user1) for worker in user["workers"]]
    assert {worker["state"] for worker in workers} == {"Ready"}
    assert all(psutil.pid_exists(worker["pid"]) for worker in workers)


def test_both_subflows_are_the_one_singleton_of_the_other_user(
    engine: EngineCommand, demo: Path
) -> None:
    engine("apply", demo)
    users = {user["name"]: user["user_id"] for user in engine.json("users")}

    served = [key for key in tree(engine, "user0") if ":mounts:" in key]
    instances = {key.split(":")[4] for key in served}
    assert len(instances) == 1
    assert {key.split(":")[3] for key in served} == {users["user1"]}

    twice = engine.status()["manifests"][0]["users"]["user1"]["mounts"]["twice"]["flow_id"]
    entries = engine.json("storage", "user1", "flows", "--values")
    key = f"flows:reverse_number_sequential:mounts:local:{twice}:config_overrides"
    config = json.loads(next(entry["value"] for entry in entries if entry["key"] == key))
    subflows = config["subflows_config"]
    assert {subflow["flow_id"] for subflow in subflows.values()} == instances
    assert {subflow["user_id"] for subflow in subflows.values()} == {users["user0"]}


def test_a_plan_tells_the_difference_and_is_empty_after_the_apply(
    engine: EngineCommand, demo: Path
) -> None:
    before = engine("plan", demo, "--detailed-exitcode", expect=2).stdout
    assert "reverse_number_atomic" in before
    assert not engine.processes()

    engine("apply", demo)
    engine("plan", demo, "--detailed-exitcode", expect=0)

    # Beside the watched file, which the engine would take over at once.
    other = Path(shutil.copy(demo, demo.with_name("edited.yaml")))
    edit(other, "singleton: true", "parallel_dispatch: true\n        singleton: true")
    steps = engine.json("plan", other)["steps"]
    assert [(step["action"], step["kind"], step["name"]) for step in steps] == [
        ("update", "flow", "reverse_number_atomic")
    ]
    assert "parallel_dispatch" in steps[0]["cause"]


def test_each_save_changes_only_what_the_edit_touches(engine: EngineCommand, demo: Path) -> None:
    engine("apply", demo)
    before = engine.pids()

    edit(demo, "dispatch: 1", "dispatch: 3")
    engine.until(converged(2))
    after = engine.pids()
    assert set(after) - set(before) == {"user0/coflows_dispatch-1", "user0/coflows_dispatch-2"}
    assert {name: after[name] for name in before} == before

    good = demo.read_text()
    demo.write_text(good + "\n  broken: [\n")
    broken = engine.until(lambda status: not status["manifests"][0]["converged"])
    told = json.dumps(broken["manifests"][0]["conditions"])
    assert re.search(r"reverse_number\.yaml:\d+", told)
    assert engine.pids() == after
    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'

    demo.write_text(good)
    engine.until(converged(2))
    assert engine.pids() == after

    again = "    mounts:\n      again:\n        flow_endpoint: reverse_number_sequential\n"
    edit(demo, "    mounts:\n", again)
    status = engine.until(
        lambda s: (
            s["manifests"][0]["users"]["user1"]["mounts"].get("again", {}).get("state") == "Ready"
        )
    )
    assert engine("call", "user1/again", NUMBER).stdout.strip() == '{"output_number": 1234}'

    demo.write_text(good)
    engine.until(lambda s: "again" not in s["manifests"][0]["users"]["user1"]["mounts"])
    assert status["manifests"][0]["users"]["user1"]["mounts"]["twice"]["flow_id"] in "\n".join(
        tree(engine, "user1")
    )


def test_down_removes_what_the_manifest_owns_and_keeps_identities(
    engine: EngineCommand, demo: Path
) -> None:
    engine("apply", demo)
    before = engine.json("users")
    twice = engine.status()["manifests"][0]["users"]["user1"]["mounts"]["twice"]["flow_id"]
    engine("down", "reverse-number")
    assert engine.status()["manifests"] == []
    engine("call", "user1/twice", NUMBER, expect=1)

    engine("apply", demo)
    assert engine.json("users") == before
    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'
    mount = engine.status()["manifests"][0]["users"]["user1"]["mounts"]["twice"]
    assert mount["flow_id"] == twice


def test_down_all_returns_when_the_engine_and_all_it_started_have_ended(
    engine: EngineCommand, demo: Path
) -> None:
    engine("apply", demo)
    engine("down", "reverse-number")
    assert engine.processes()
    done = engine("down", "--all")
    assert "Nothing was applied" in done.stdout
    # The engine's own process has given up its lock, and needs a moment to leave.
    assert not psutil.wait_procs(engine.processes(), timeout=2)[1]


def test_a_killed_worker_comes_back_and_the_others_are_not_disturbed(
    engine: EngineCommand, demo: Path
) -> None:
    engine("apply", demo)
    before = engine.pids()
    os.kill(before["user0/coflows_dispatch-0"], signal.SIGKILL)

    def back(status: Any) -> bool:
        workers = status["manifests"][0]["users"]["user0"]["workers"]
        worker = next(w for w in workers if w["name"] == "coflows_dispatch-0")
        return worker["restarts"] == 1 and worker["state"] == "Ready"

    engine.until(back)
    after = engine.pids()
    assert {n: p for n, p in after.items() if n != "user0/coflows_dispatch-0"} == {
        n: p for n, p in before.items() if n != "user0/coflows_dispatch-0"
    }
    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'


def test_a_killed_engine_leaves_no_process_and_the_next_command_starts_clean(
    engine: EngineCommand, demo: Path
) -> None:
    engine("apply", demo)
    pid = int((engine.home / "engine.lock").read_text())
    processes = engine.processes()
    os.kill(pid, signal.SIGKILL)
    assert not psutil.wait_procs(processes, timeout=20)[1]

    engine("apply", demo)
    assert engine("call", "user1/twice", NUMBER).stdout.strip() == '{"output_number": 1234}'


@pytest.mark.parametrize("ending", ["down --all", "kill -9"])
def test_an_instance_outlives_its_engine_and_takes_what_was_edited_meanwhile(
    engine: EngineCommand, demo: Path, ending: str
) -> None:
    flow_class = "reverse_number.ReverseNumberSequentialFlow"
    edit(demo, flow_class, f"{flow_class}\n        config_overrides: {{description: before}}")
    engine("apply", demo)
    before = twice(engine)
    if ending == "kill -9":
        pid = int((engine.home / "engine.lock").read_text())
        children = engine.processes()
        os.kill(pid, signal.SIGKILL)
        assert not psutil.wait_procs(children, timeout=20)[1]
    else:
        engine("down", "--all")
    edit(demo, "description: before", "description: after")
    engine("apply", demo)
    assert twice(engine) == before
    key = f"flows:reverse_number_sequential:mounts:local:{before}:config_overrides"
    entries = engine.json("storage", "user1", "flows", "--values")
    configs = [entry for entry in entries if entry["key"].endswith(":config_overrides")]
    assert [entry["key"] for entry in configs] == [key]
    assert json.loads(configs[0]["value"])["description"] == "after"


def twice(engine: EngineCommand) -> str:
    """Return the id of the instance behind user1's mount."""
    user1 = engine.manifest("reverse-number")["users"]["user1"]
    return str(user1["mounts"]["twice"]["flow_id"])


@pytest.mark.parametrize("victim", ["colink-server", "valkey-server"])
def test_a_killed_core_or_queue_heals(engine: EngineCommand, demo: Path, victim: str) -> None:
    engine("apply", demo)
    marks = {"colink-server": "engine.core.main", "valkey-server": "valkey-server"}
    processes = [p for p in engine.processes() if marks[victim] in " ".join(p.cmdline())]
    assert processes
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)

    answer = engine("call", "user1/twice", NUMBER, "--timeout", "30", expect=None)
    if answer.returncode:  # it was asked in the moment of the fall: told plainly, then it heals
        engine.until(lambda s: s["core"]["ready"] and s["manifests"][0]["converged"], timeout=30)
        answer = engine("call", "user1/twice", NUMBER)
    assert answer.stdout.strip() == '{"output_number": 1234}'


def test_two_applies_at_once_both_end_well(engine: EngineCommand, demo: Path) -> None:
    both = [
        subprocess.Popen(
            engine.command("apply", demo),
            env=engine.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    outcomes = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], outcomes
    assert len([p for p in engine.processes() if "engine.app.background" in p.cmdline()]) == 1


def test_ctrl_c_in_the_foreground_drains_everything(engine: EngineCommand, demo: Path) -> None:
    process = subprocess.Popen(
        engine.command("apply", "--foreground", demo),
        env=engine.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    engine.until(lambda s: bool(s["manifests"]) and s["manifests"][0]["converged"])
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in {0, 130}, output
    assert "Traceback" not in output
    assert not engine.processes()
