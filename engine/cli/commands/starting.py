"""init, schema and core: what one needs before there is an engine, or beside it."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli import output
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
    """Write a starter manifest."""
    from engine.loading import starter  # YAML and JSON Schema

    try:
        with file.open("w" if yes else "x", encoding="utf-8") as new:
            new.write(starter())
    except FileExistsError:
        raise UsageError(f"{file} is there already.", "Overwrite it with --yes.") from None
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error
    output.show(f"{file} is written. Check it with: engine validate {file}")
    return ExitCode.DONE


def schema() -> int:
    """Print the JSON Schema of manifests.

    It has the flow classes that are installed, so that an editor can offer them.
    """
    from engine.cli.installation import catalog  # imports all plugins
    from engine.loading import schema as manifest_schema

    output.show_json(manifest_schema(catalog()))
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
