"""docs/command-line.md says what there is: every command, option, exit code and JSON shape."""

import json
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import typer

from engine.cli.application import build
from engine.cli.exit_codes import ExitCode
from engine.cli.help import EXAMPLES
from engine.model.status import State
from engine.reconcile.steps import Plan, Problem
from engine.reconcile.text import to_json
from tests.conftest import ROOT
from tests.support.engine import EngineCommand
from tests.support.markdown import blocks

FILE = ROOT / "docs" / "command-line.md"
PAGE = FILE.read_text()
ENGINE: Any = typer.main.get_command(build())
COMMANDS = {name: command for name, command in ENGINE.commands.items() if name != "dead"} | {
    f"{group} {name}": command
    for group in ("users", "dead")
    for name, command in ENGINE.commands[group].commands.items()
}
NAMED = {"users", "flows", "mounts"}
"""Objects whose keys are names that the user chose."""


def row(command: str) -> str:
    (found,) = re.findall(rf"^\| `engine {command}(?: [\[A-Z…].*)?` \| .*$", PAGE, re.MULTILINE)
    return str(found)


def shape(command: str) -> set[str]:
    """Return the keys that the page names in what `command` prints as JSON."""
    lines = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \| (.*) \|$", PAGE.split("## JSON")[1], re.M)
    (found,) = [prints for commands, prints in lines if f"`{command}`" in commands]
    return set(re.findall(r'"(\w+)"', re.sub(r'("type": )"\w+"', r'"type"', found)))


def keys(value: Any) -> set[str]:
    """Return all keys of objects in JSON data."""
    if isinstance(value, Mapping):
        return set(value) | {key for item in value.values() for key in keys(item)}
    return {key for item in value for key in keys(item)} if isinstance(value, list) else set()


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the path of each value in JSON data, with `*` for names that users chose."""
    yield path
    if isinstance(value, Mapping):
        named = path.rpartition(".")[2] in NAMED
        for key, item in value.items():
            yield from paths(item, f"{path}.{'*' if named else key}")
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{path}[]")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_row_with_its_options(name: str) -> None:
    for parameter in COMMANDS[name].params:
        spellings = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert any(f"`{spelling}" in row(name) for spelling in spellings), spellings


@pytest.mark.parametrize("name", COMMANDS)
def test_a_row_has_no_other_options_and_the_true_defaults(name: str) -> None:
    if name == "core":
        return
    known = {o: p for p in COMMANDS[name].params for o in [*p.opts, *p.secondary_opts]}
    for option, default in re.findall(r"`(--?[a-z][a-z-]*)(?: [A-Z])?`(?: \((\d+)\))?", row(name)):
        assert option in known
        assert not default or float(default) == known[option].default


def test_the_page_names_no_command_that_there_is_not() -> None:
    named = re.findall(r"^\| `engine ([a-z]+(?: [a-z]+)?)(?: [\[A-Z…].*)?` \|", PAGE, re.MULTILINE)
    # `engine core …` hands its words on to colink-server, which has commands of its own.
    assert sorted(name for name in named if not name.startswith("core ")) == sorted(COMMANDS)


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_explained(code: ExitCode) -> None:
    assert f"\n| {code.value} | " in PAGE


def test_every_state_is_named() -> None:
    assert all(f"`{state.value}`" in PAGE for state in State)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_all_that_can_be_written(name: str) -> None:
    with ENGINE.make_context("engine", ["status"]) as parent:
        text = COMMANDS[name].get_help(COMMANDS[name].context_class(COMMANDS[name], parent=parent))
    for parameter in COMMANDS[name].params:
        assert all(
            spelling in text for spelling in [*parameter.opts[1:], *parameter.secondary_opts]
        )
        assert parameter.help or parameter.name == "help"
    assert all(line in text for line in EXAMPLES.get(name, ()))


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_of_the_help_can_be_parsed(line: str) -> None:
    _, *words = shlex.split(line.split(">")[0].split("<")[0])
    with ENGINE.make_context("engine", words) as context:
        name, command, rest = ENGINE.resolve_command(
            context, context._protected_args + context.args
        )
        with command.make_context(name, rest, parent=context):
            pass


def test_every_shape_is_what_is_printed(engine: EngineCommand, manifests: Path) -> None:
    demo = Path(shutil.copy(manifests / "reverse_number.yaml", engine.home / "demo.yaml"))
    (status,) = blocks(FILE, "json")
    nothing = engine.status()
    assert keys(nothing) == {"core", "manifests", "kind", "address", "ready", "message"}
    assert (nothing["core"]["ready"], nothing["manifests"]) == (False, [])
    nothing_down = json.loads(engine("down", "-o", "json").stdout)
    assert set(nothing_down) | {"text"} | {"manifest"} == shape("down")
    problem = to_json(Plan("name", problems=(Problem("resource", "message"),)))["problems"]
    for command in (("plan",), ("apply", "--dry-run")):
        plan = json.loads(engine(*command, demo, "-o", "json").stdout)
        assert keys(plan) | keys(problem) == shape("plan")

    applied = [json.loads(line) for line in engine("apply", demo, "-o", "json").stdout.splitlines()]
    assert keys(applied) == shape("apply")
    assert [line["type"] for line in applied] == ["progress"] * (len(applied) - 1) + ["result"]

    assert set(paths(engine.status())) == set(paths(json.loads(status.text)))
    assert json.loads(engine("call", "user1/twice", '{"number": 12}').stdout) == {
        "output_number": 12
    }
    stream = engine("events", "-o", "json").stdout.splitlines()
    assert all(set(json.loads(line)) == shape("events") for line in stream)
    for command in ("plugins", "flows", "users"):
        assert keys(engine.json(command)) == shape(command), command
    entries = engine.json("storage", "user0")
    assert keys(entries) == shape("storage")
    assert {entry["value"] for entry in entries} == {None}
    (init,) = engine.json("storage", "user0", "flows:reverse_number_atomic:init", "--values")
    assert (init["value"], init["size"]) == ("1", 1)
    flow = engine.json("flows", "reverse_number.ReverseNumberAtomicFlow")
    assert set(flow) == shape("flows") | shape("flows CLASS")
    assert json.loads(engine("schema").stdout)["title"]

    lines = [json.loads(line) for line in engine("down", "-o", "json").stdout.splitlines()]
    assert keys(lines) == shape("down")


def test_the_exit_codes_are_those_of_the_page(engine: EngineCommand, manifests: Path) -> None:
    demo = Path(shutil.copy(manifests / "reverse_number.yaml", engine.home / "demo.yaml"))
    engine("status", expect=ExitCode.FAILED)
    engine("aply", expect=ExitCode.USAGE)
    engine("plan", demo, "--detailed-exitcode", expect=ExitCode.CHANGES)
    engine("apply", demo, "--timeout", "0.1", expect=ExitCode.TIMED_OUT)
    engine("apply", demo, expect=ExitCode.DONE)
    engine("apply", "--foreground", demo, expect=ExitCode.LOCK_HELD)
    engine("call", "user1/twice", expect=ExitCode.FAILED)

    nobody = f"      nobody: {{user_id: 03{'ab' * 32}, flow_endpoint: nothing}}\n"
    demo.write_text(demo.read_text() + nobody)
    partly = engine("apply", demo, expect=ExitCode.IN_PART)
    assert partly.stderr.startswith("error: reverse-number: mount/user1/nobody: ")

    demo.write_text("apiVersion: engine/v1\nuser: {}\n")
    bad = engine("validate", demo, expect=ExitCode.INVALID_MANIFEST)
    assert bad.stderr.startswith(f"{demo}:2:1: user: There is no such key. Did you mean users?\n")
    (fault,) = json.loads(engine("validate", demo, "-o", "json", expect=3).stdout)
    assert set(fault) == shape("validate")
