"""Flows that raise, hang and die, and commands that are interrupted: the engine stays healthy."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine import EngineCommand, engine_home

CODE = """\
import os
import time

from engine.flows import AtomicFlow
from engine.hooks import hookimpl


class Mishap(AtomicFlow):
    def run(self, input_message):
        kind = input_message.data["kind"]
        if kind == "raise":
            import no_such_module
        if kind == "slow":
            time.sleep(2)
        if "tell" in input_message.data:
            with open(input_message.data["tell"], "w") as pipe:
                pipe.write("started")
        if kind == "hang":
            time.sleep(600)
        if kind == "die":
            os._exit(3)
        self.send_message(self.package_output_message(input_message, {"well": True}))


@hookimpl
def register_flow_classes():
    return [Mishap]
"""
MANIFEST = """\
apiVersion: engine/v1
name: mishaps
users:
  u:
    workers: {dispatch: {coflows_dispatch: 1, apart: 1}}
    flows:
      well: {flow_class_name: mishaps.Mishap, parallel_dispatch: true}
      apart: {flow_class_name: mishaps.Mishap, dispatch_point: apart}
"""


@pytest.fixture(scope="module")
def mishaps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineCommand]:
    """An engine that serves flows of a plugin that is up to no good, shared by all tests."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "mishap_flows.py").write_text(CODE)
    (folder / "Mishap.yaml").write_text("name: Mishap\ndescription: Does what is asked for.\n")
    info = folder / "mishap_flows-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mishap-flows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[colink_engine]\nmishaps = mishap_flows\n")
    manifest = folder / "mishaps.yaml"
    manifest.write_text(MANIFEST)
    with engine_home() as command:
        command.environment["PYTHONPATH"] = str(folder)
        command("apply", manifest)
        yield command


@pytest.fixture(autouse=True)
def _still_healthy(mishaps: EngineCommand) -> Iterator[None]:
    yield
    assert json.loads(mishaps("call", "u/well", '{"kind": "none"}').stdout) == {"well": True}


def test_an_import_that_fails_at_run_time_is_told_with_its_place(mishaps: EngineCommand) -> None:
    done = mishaps("call", "u/well", '{"kind": "raise"}', expect=1)
    assert "ModuleNotFoundError: No module named 'no_such_module'" in done.stderr
    assert "mishap_flows.py:12" in done.stderr
    assert done.stderr.count("\n") == 1


def test_ctrl_c_ends_a_call_and_nothing_else(mishaps: EngineCommand, tmp_path: Path) -> None:
    pipe = tmp_path / "started"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    process = subprocess.Popen(
        mishaps.command("call", "u/apart", json.dumps({"kind": "hang", "tell": str(pipe)})),
        env=mishaps.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = select.select([reader], [], [], 30)[0]
    process.send_signal(signal.SIGINT)
    output, complaint = process.communicate(timeout=30)
    os.close(reader)
    assert started, complaint
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in complaint


@pytest.mark.parametrize("kind", ["hang", "die"])
def test_a_flow_that_never_answers_ends_the_call_in_time(mishaps: EngineCommand, kind: str) -> None:
    data = json.dumps({"kind": kind})
    done = mishaps("call", "u/apart", data, "--timeout", "1", expect=None)
    assert done.returncode in {1, 5}, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_an_apply_right_after_sigterm_waits_until_the_old_engine_has_drained(
    mishaps: EngineCommand,
) -> None:
    call = subprocess.Popen(
        mishaps.command("call", "u/well", '{"kind": "slow"}'),
        env=mishaps.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    manifest = mishaps.manifest("mishaps")["file"]
    os.kill(int((mishaps.home / "engine.lock").read_text()), signal.SIGTERM)
    mishaps("apply", manifest)
    call.wait(60)
