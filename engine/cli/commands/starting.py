"""init, schema and core: what one needs before there is an engine, or beside it."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import output
from engine.cli.completing import COMPLETION_VARIABLE, PROGRAM
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Yes
from engine.cli.session import session_of
from engine.model.errors import UsageError


def init(
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help="Where to write it.")] = Path(
        "manifest.yaml"
    ),
    yes: Yes = False,
) -> int:
    """Write a starter manifest.

    Beside it goes the schema that it names to editors.
    """
    from engine.cli.installation import catalog  # imports all plugins
    from engine.loading import SCHEMA_FILE, editor_schema, starter  # YAML and JSON Schema

    _write(file, starter(), overwrite=yes)
    beside = file.with_name(SCHEMA_FILE)
    if yes or not beside.exists():
        _write(beside, json.dumps(editor_schema(catalog()), indent=1), overwrite=True)
    output.show(f"{file} is written. Check it with: engine validate {file}")
    return ExitCode.DONE


def _write(file: Path, text: str, *, overwrite: bool) -> None:
    try:
        with file.open("w" if overwrite else "x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise UsageError(f"{file} is there already.", "Overwrite it with --yes.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def schema(
    layer: Annotated[
        bool, typer.Option("--layer", help="For files that are laid over others or included.")
    ] = False,
) -> int:
    """Print the JSON Schema of manifests.

    It has the flow classes that are installed and their configuration, so that an editor can offer
    them.
    """
    from engine.cli.installation import catalog  # imports all plugins
    from engine.loading import editor_schema

    output.show_json(editor_schema(catalog(), layer=layer))
    return ExitCode.DONE


class Shell(StrEnum):
    """A shell for which there is a completion script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> int:
    """Print a script for your shell; installs nothing.

    With it Tab completes commands, options, and the names of what there is.
    """
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    output.show_lines(
        get_completion_script(
            prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell.value
        ).splitlines()
    )
    return ExitCode.DONE


def core(context: typer.Context) -> int:
    """Run the embedded core alone, in the foreground; all arguments are those of colink-server.


    `check` and `backup TARGET` look at the engine's own core, unless --home names another.
    """
    from engine.core import maintenance  # SQLite, gRPC
    from engine.core.main import main

    arguments = list(context.args)
    is_maintenance = bool(arguments) and arguments[0] in maintenance.COMMANDS
    if is_maintenance and not any(text.startswith("--home") for text in arguments):
        arguments += ["--home", str(session_of(context).home().core)]
    return int(main(arguments) or ExitCode.DONE)
