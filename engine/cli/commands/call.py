"""call: one message to a flow, and its reply."""

import sys
from typing import Annotated

import typer

from engine.cli import completing, inputs, output
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Timeout
from engine.cli.session import session_of

_GRACE = 10.0
"""Seconds by which we wait longer than the engine, so that its own answer comes first."""


def call(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="USER/NAME",
            help="A mount, or a flow endpoint, of USER.",
            autocompletion=completing.targets,
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(metavar="[JSON|@FILE|-]", help="The input, a JSON object; default: {}."),
    ] = None,
    caller: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="USER",
            help="Call as another local user.",
            autocompletion=completing.users,
        ),
    ] = None,
    timeout: Timeout = 60.0,
) -> int:
    """Send a message to a flow and print the reply's data as JSON."""
    user, name = inputs.target(target)
    session = session_of(context)
    session.on_interrupt = "The call is given up; what has not begun of it is not run."
    body = {
        "user": user,
        "name": name,
        "data": inputs.json_object(data, sys.stdin),
        "as": caller,
        "timeout": timeout,
    }
    reply = session.client().post("/v1/call", body, timeout=timeout + _GRACE)
    output.show_json(reply["data"])
    return ExitCode.DONE
