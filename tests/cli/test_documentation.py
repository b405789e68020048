"""docs/command-line.md says what there is: every command, option, exit code."""

import re
from pathlib import Path

import pytest
import typer

from engine.cli.application import build
from engine.cli.exit_codes import ExitCode

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
ENGINE = typer.main.get_command(build())
COMMANDS = {name: command for name, command in ENGINE.commands.items() if name != "dead"} | {
    f"{group} {name}": command
    for group in ("users", "dead")
    for name, command in ENGINE.commands[group].commands.items()
}


def row(command: str) -> str:
    (found,) = re.findall(rf"^\| `engine {command}(?: [\[A-Z…].*)?` \| .*$", PAGE, re.MULTILINE)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_row_with_its_options(name):
    for parameter in COMMANDS[name].params:
        spellings = [*parameter.opts, *parameter.secondary_opts]
        if parameter.param_type_name == "option" and parameter.name != "help":
            assert any(f"`{spelling}" in row(name) for spelling in spellings), spellings


@pytest.mark.parametrize("code", ExitCode)
def test_every_exit_code_is_explained(code):
    assert f"\n| {code.value} | " in PAGE
