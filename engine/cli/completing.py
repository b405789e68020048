"""What a shell offers when Tab is pressed: names of manifests, users, targets and flow classes.

Nothing is started or written, and nothing fails aloud: what cannot be found out is not offered.
"""

import json
import os
import sys
from collections.abc import Iterator
from typing import Any

import typer

from engine.app import home as homes
from engine.daemon.client import ControlClient
from engine.model.errors import EngineError
from engine.model.home import Home

PROGRAM = "engine"
COMPLETION_VARIABLE = "_ENGINE_COMPLETE"
"""Set by the scripts of `engine completion` when they ask what to offer."""
_PATIENCE = 2.0
"""Seconds after which nobody waits for a completion any more."""
_LOGS = ("engine", "core", "operators")


def complete() -> bool:
    """Tell whether a shell asks for completions rather than for a command to be run."""
    return COMPLETION_VARIABLE in os.environ


def manifests(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the applied manifests."""
    return _matching(_applied(_home(context)), incomplete)


def generations(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the manifests that have a history."""
    folders = _home(context).history.glob("*/")
    return _matching((folder.name for folder in folders), incomplete)


def users(context: typer.Context, incomplete: str) -> list[str]:
    """Return the users of the applied manifests."""
    return _matching((name for name, _ in _users(context)), incomplete)


def targets(context: typer.Context, incomplete: str) -> list[str]:
    """Return each mount and flow endpoint as USER/NAME."""
    return _matching(
        (
            f"{user}/{name}"
            for user, found in _users(context)
            for name in (*found["mounts"], *found["flows"])
        ),
        incomplete,
    )


def logs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the users, their workers as USER/WORKER, and the engine's own logs."""
    found = list(_users(context))
    workers = (f"{user}/{worker['name']}" for user, one in found for worker in one["workers"])
    return _matching((*(user for user, _ in found), *workers, *_LOGS), incomplete)


def flow_classes(incomplete: str) -> list[str]:
    """Return the installed flow classes; imports all plugins."""
    from engine.cli.installation import catalog

    return _matching(catalog().names(), incomplete)


def _home(context: typer.Context) -> Home:
    return Home(homes.locate(context.find_root().params.get("home")))


def _matching(names: Any, incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _applied(home: Home) -> list[str]:
    try:
        return [str(record["name"]) for record in json.loads(home.applied.read_text())]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _users(context: typer.Context) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        status = ControlClient(_home(context).path).glance("/v1/status", timeout=_PATIENCE)
    except (EngineError, ValueError):
        return
    for manifest in status["manifests"]:
        yield from manifest["users"].items()


def answer(command: Any) -> int:
    """Print what the shell that set COMPLETION_VARIABLE may offer; return the exit code."""
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()
    try:
        command.main(args=[], prog_name=PROGRAM)
    except SystemExit as leaving:
        sys.stdout.flush()
        return leaving.code if isinstance(leaving.code, int) else 0
    return 0
