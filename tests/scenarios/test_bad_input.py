"""What users do wrong, with the real command: told clearly, with the right exit code."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.cli.options import LONGEST_TIMEOUT
from tests.support.engine import EngineCommand, engine_home

NUMBER = '{"id": 0, "number": 1234}'
ONE_FLOW = """\
apiVersion: engine/v1
name: {name}
users:
  {user}:
    flows:
      {endpoint}: {{flow_class_name: reverse_number.ReverseNumberAtomicFlow, singleton: true}}
"""


def write(folder: Path, name: str, user: str = "ua", endpoint: str = "x") -> Path:
    file = folder / f"{name}.yaml"
    file.write_text(ONE_FLOW.format(name=name, user=user, endpoint=endpoint))
    return file


def told(status: Any, name: str) -> str:
    manifest = next(m for m in status["manifests"] if m["name"] == name)
    return json.dumps(manifest["conditions"])


def is_converged(name: str) -> Any:
    def holds(status: Any) -> bool:
        return all(m["converged"] for m in status["manifests"] if m["name"] == name)

    return holds


@pytest.fixture(scope="module")
def applied(manifests: Path) -> Iterator[EngineCommand]:
    """An engine that serves the demo, shared by the tests that change nothing."""
    with engine_home() as command:
        command("apply", manifests / "reverse_number.yaml")
        yield command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("user1/twise", NUMBER), "Did you mean twice?"),
        (("user0/nothing", NUMBER), "has no mount and serves no endpoint called nothing"),
        (("ghost/twice", NUMBER), "There is no user ghost; known are: user0, user1."),
        (("user1/twice", NUMBER, "--as", "ghost"), "There is no user ghost"),
        (("user1/twice", "{}"), "`number` is missing"),
    ],
    ids=["misspelt", "not served", "unknown user", "unknown caller", "the flow raises"],
)
def test_a_call_that_cannot_be_answered_is_one_line(
    applied: EngineCommand, arguments: tuple[str, ...], message: str
) -> None:
    done = applied("call", *arguments, expect=1)
    assert message in done.stderr
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert applied("call", "user1/twice", NUMBER).stdout == '{"output_number": 1234}\n'


@pytest.mark.parametrize("target", ["user0/reverse_number_atomic", "user1/twice"])
def test_a_message_of_5_megabytes_arrives_also_at_another_user(
    applied: EngineCommand, tmp_path: Path, target: str
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps({"id": 0, "number": 1234, "padding": "a" * 5_000_000}))
    answer = json.loads(applied("call", target, f"@{data}", "--as", "user1").stdout)
    assert answer["output_number"] in {1234, 4321}


def test_a_second_engine_in_the_same_home_is_refused_with_the_holder_named(
    applied: EngineCommand, manifests: Path
) -> None:
    pid = (applied.home / "engine.lock").read_text()
    done = applied("apply", "--foreground", manifests / "reverse_number.yaml", expect=6)
    assert f"Another engine (pid {pid}) runs in" in done.stderr
    assert applied("call", "user1/twice", NUMBER).stdout == '{"output_number": 1234}\n'


def test_a_manifest_that_claims_what_another_has_is_refused(
    applied: EngineCommand, manifests: Path, tmp_path: Path
) -> None:
    before = applied.status()
    other = tmp_path / "other.yaml"
    text = (manifests / "reverse_number.yaml").read_text()
    other.write_text(text.replace("name: reverse-number", "name: other"))
    done = applied("apply", other, expect=3)
    assert "users.user0.flows.reverse_number_atomic: " in done.stderr
    assert "(manifest reverse-number) has it, too." in done.stderr
    assert [m["name"] for m in applied.status()["manifests"]] == [
        m["name"] for m in before["manifests"]
    ]


def test_a_reader_of_the_output_that_leaves_is_no_error(applied: EngineCommand) -> None:
    shell = '"$@" | head -1; exit ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", shell, "bash", *applied.command("storage", "user0", "--all")],
        env=applied.variables(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {0, 141}
    assert done.stderr == ""


@pytest.mark.parametrize("seconds", ["inf", "nan", "-1", "0", "soon", str(LONGEST_TIMEOUT * 2)])
@pytest.mark.parametrize("command", ["call", "apply", "down"])
def test_a_timeout_that_is_none_is_wrong_usage(
    engine: EngineCommand, command: str, seconds: str
) -> None:
    arguments = {"call": ("a/b",), "apply": ("a.yaml",), "down": ()}[command]
    done = engine(command, *arguments, "--timeout", seconds, expect=2)
    assert done.stderr.startswith("error: Invalid value for '--timeout'")


def test_an_edit_that_claims_what_another_manifest_has_changes_nothing_until_it_is_free(
    engine: EngineCommand, tmp_path: Path
) -> None:
    first, second = write(tmp_path, "first", "ua"), write(tmp_path, "second", "ub")
    engine("apply", first, second)
    workers = engine.pids()

    write(tmp_path, "second", "ua")
    status = engine.until(lambda s: not is_converged("second")(s))
    assert f"{first}:6:7 (manifest first) has it, too." in told(status, "second")
    assert engine.pids() == workers
    assert engine("call", "ub/x", NUMBER).stdout == '{"output_number": 4321}\n'

    write(tmp_path, "first", "ua", "y")
    engine.until(
        lambda s: is_converged("second")(s) and "ua" in s["manifests"][1]["users"], timeout=10
    )
    assert engine("call", "ua/x", NUMBER).stdout == '{"output_number": 4321}\n'


def test_a_file_with_another_name_is_refused_before_its_neighbours_are_taken_over(
    engine: EngineCommand, tmp_path: Path
) -> None:
    file, neighbour = write(tmp_path, "old"), write(tmp_path, "neighbour", "ub")
    engine("apply", file)
    file.write_text(file.read_text().replace("name: old", "name: new"))
    done = engine("apply", neighbour, file, expect=3)
    message = "name: The manifest was applied as old and now names itself new."
    assert f"{file}:2:1: {message}" in done.stderr
    status = engine.until(lambda s: not s["manifests"][0]["converged"])
    assert [manifest["name"] for manifest in status["manifests"]] == ["old"]
    assert f"{file}:2:1: {message}" in told(status, "old")


def test_a_file_that_is_gone_keeps_what_it_declared_until_it_is_moved_back(
    engine: EngineCommand, tmp_path: Path
) -> None:
    file = write(tmp_path, "here")
    engine("apply", file)
    away = file.rename(tmp_path / "away.yaml")
    status = engine.until(lambda s: not s["manifests"][0]["converged"])
    assert "The file is gone; what it declared last is kept up." in told(status, "here")
    assert "engine down here" in told(status, "here")
    assert engine("call", "ua/x", NUMBER).stdout == '{"output_number": 4321}\n'

    engine("apply", away)
    assert engine.manifest("here")["file"] == str(away)
    assert engine.manifest("here")["converged"]


def test_a_file_that_is_named_twice_counts_once(engine: EngineCommand, tmp_path: Path) -> None:
    file = write(tmp_path, "one")
    plans = engine("apply", "--dry-run", file, tmp_path / "." / "one.yaml").stdout
    assert plans.count("flow    ua/x") == 1


def test_a_port_that_another_program_took_is_left_for_another(
    engine: EngineCommand, tmp_path: Path
) -> None:
    file = write(tmp_path, "one")
    engine("apply", file)
    engine("down", "--all")
    port = int((engine.home / "core.port").read_text())
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        engine("apply", file)
        assert engine.status()["core"]["address"] != f"http://127.0.0.1:{port}"
        moved = f"port {port} is in use by another program"
        assert moved in engine("events").stdout
        assert engine("call", "ua/x", NUMBER).stdout == '{"output_number": 4321}\n'


def test_a_core_that_does_not_run_is_named_and_the_engine_can_be_taken_down(
    engine: EngineCommand, tmp_path: Path
) -> None:
    file = write(tmp_path, "one")
    text = file.read_text().replace("users:", "core: {address: 'http://127.0.0.1:1'}\nusers:")
    # The payload says who: {"user_id": "02…"}; nobody checks the signature before the core does.
    token = "e30.eyJ1c2VyX2lkIjoiMDIiLCJwcml2aWxlZ2UiOiJ1c2VyIiwiZXhwIjo0MTAyNDQ0ODAwfQ.e30"
    file.write_text(text.replace("    flows:", "    jwt: ${oc.env:UA_JWT}\n    flows:"))
    engine.environment["UA_JWT"] = token
    done = engine("apply", file, "--timeout", "30", expect=4)
    assert "http://127.0.0.1:1" in done.stderr
    assert token not in done.stderr + (engine.home / "logs" / "engine.log").read_text()
    assert engine.status()["core"]["kind"] == "remote"


def test_a_manifest_of_many_flows_is_applied_edited_and_taken_down(
    engine: EngineCommand, tmp_path: Path
) -> None:
    flow = "      f{}: {{flow_class_name: reverse_number.ReverseNumberAtomicFlow}}\n"
    mount = "      m{}: {{flow_endpoint: f{}}}\n"
    file = write(tmp_path, "many")
    flows = "".join(flow.format(number) for number in range(1000))
    mounts = "".join(mount.format(number, number) for number in range(50))
    file.write_text(f"{file.read_text()}{flows}    mounts:\n{mounts}")
    engine("apply", file)
    assert engine("call", "ua/m49", NUMBER).stdout == '{"output_number": 4321}\n'
    down = engine("down", "--all", "--purge", "--yes")
    assert down.stdout.endswith("many: taken down\n")


@pytest.mark.parametrize("kind", ["folder", "binary", "missing"])
def test_what_is_no_manifest_starts_no_engine(
    engine: EngineCommand, tmp_path: Path, kind: str
) -> None:
    file = tmp_path / "manifest.yaml"
    if kind == "folder":
        file.mkdir()
    elif kind == "binary":
        file.write_bytes(bytes(range(256)))
    for command in ("validate", "plan", "apply"):
        done = engine(command, file, expect=3)
        assert done.stderr.startswith(f"{file}:")
        assert done.stderr.endswith("nothing was changed.\n")
    assert not engine.processes()


def test_a_home_that_is_a_file_or_too_long_is_wrong_usage(tmp_path: Path, manifests: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for home, message in ((file, "cannot be written"), (tmp_path / ("x" * 120), "is too long")):
        engine = EngineCommand(home)
        done = engine("apply", manifests / "reverse_number.yaml", expect=2)
        assert message in done.stderr
        assert "Choose" in done.stderr
    assert list(tmp_path.iterdir()) == [file]
