"""The entry point of `engine`, and the one place where errors become text and an exit code."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from engine.cli import completing, failures
from engine.cli.application import build
from engine.cli.exit_codes import ExitCode, exit_code
from engine.cli.output import complain
from engine.cli.session import Session
from engine.model.errors import EngineError

# Newer versions of typer bring their own copy of click, so its base class has no stable address.
_ParserError: type[Exception] = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments` (default: those of the process) and return the exit code."""
    session = Session()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments), session)
        sys.stdout.flush()
    except EngineError as error:
        complain(failures.mistake(error))
        return exit_code(error)
    except BrokenPipeError:
        return _drop_output()
    except KeyboardInterrupt:
        complain(f"\n{session.on_interrupt}".rstrip("\n"))
        return ExitCode.INTERRUPTED
    except Exception as error:
        complain(failures.bug(error, _crash_folder(session)))
        return ExitCode.FAILED
    return code


def _run(arguments: list[str], session: Session) -> int:
    """Parse and run; typer's own `main` is passed by, for it has catches of its own."""
    command = typer.main.get_command(build())
    if completing.complete():
        return completing.answer(command)
    try:
        with command.make_context("engine", arguments, obj=session) as context:
            return int(command.invoke(context) or ExitCode.DONE)
    except typer.Exit as leaving:
        return leaving.exit_code
    except typer.Abort:
        complain("Nothing was changed.")
        return ExitCode.FAILED
    except _ParserError as error:
        complain(f"error: {_parser_message(error)}")
        return ExitCode.USAGE


def _parser_message(error: Exception) -> str:
    if getattr(error, "option_name", None) == "--home":
        return "--home goes before the command: engine --home DIR COMMAND"
    message = str(getattr(error, "format_message", error.__str__)())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "engine"
    end = "" if message.endswith((".", "?")) else "."
    return f"{message}{end} See: {command} --help"


def _crash_folder(session: Session) -> Path | None:
    try:
        return session.home().logs
    except (EngineError, OSError):
        return None


def _drop_output() -> int:
    """Whoever read our output has left (`| head`): say nothing more, at the exit neither."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.BROKEN_PIPE


if __name__ == "__main__":
    sys.exit(main())
