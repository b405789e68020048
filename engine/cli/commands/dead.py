"""dead: messages that could not be handled for good, and what to do about them."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing, output, render
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Format, Output, Timeout
from engine.cli.session import session_of
from engine.model.errors import UsageError

_GRACE = 10.0
"""Seconds by which we wait longer than the engine, so that its own answer comes first."""

User = Annotated[
    str,
    typer.Argument(
        metavar="USER", help="A user of an applied manifest.", autocompletion=completing.users
    ),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `engine dead list USER` shows it.")]


def letters(context: typer.Context, user: User, output_format: Output = Format.TEXT) -> int:
    """List the dead letters of USER, the oldest first."""
    found = session_of(context).client().get("/v1/dead", user=user)["letters"]
    if output_format is Format.JSON:
        output.show_json([_summary(letter) for letter in found])
    else:
        output.show(render.dead_letters(found))
    return ExitCode.DONE


def _summary(letter: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "time", "reason", "flow_endpoint", "flow_id", "attempts")
    error = letter["error"].get("error", "")
    return {name: letter[name] for name in names} | {"error": error}


def show(context: typer.Context, user: User, id_: Id, output_format: Output = Format.TEXT) -> int:
    """Show one dead letter: the message, the error, and the traceback."""
    found = session_of(context).client().get("/v1/dead/letter", user=user, id=id_)["letter"]
    if output_format is Format.JSON:
        output.show_json(found)
    else:
        output.show(render.dead_letter(found))
    return ExitCode.DONE


def retry(context: typer.Context, user: User, id_: Id, timeout: Timeout = 60.0) -> int:
    """Send what a dead letter holds once more, and print the reply's data as JSON.

    The letter is dropped once it has served. What could only not be brought is brought, and
    nothing printed.
    """
    session = session_of(context)
    session.on_interrupt = "Nobody waits for the reply any more; the dead letter stays."
    body = {"user": user, "id": id_, "timeout": timeout}
    answer = session.client().post("/v1/dead/retry", body, timeout=timeout + _GRACE)
    if answer["data"] is not None:
        output.show_json(answer["data"])
    return ExitCode.DONE


def drop(
    context: typer.Context,
    user: User,
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="[ID...]", help="As `dead list` shows them.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of USER's.")] = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Delete dead letters for good."""
    if bool(ids) == everything:
        raise UsageError("Name the dead letters to drop, or say --all; not both.")
    body = {"user": user, "ids": ids or [], "all": everything}
    dropped = session_of(context).client().post("/v1/dead/drop", body)["dropped"]
    if output_format is Format.JSON:
        output.show_json({"dropped": dropped})
    else:
        output.show("\n".join(f"Dropped {id_}." for id_ in dropped) or "There was none.")
    return ExitCode.DONE
