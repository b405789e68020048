"""users: who has an identity on this machine, and tokens for stock clients."""

from typing import Annotated

import typer

from engine.cli import completing, output, render
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Format, Output
from engine.cli.session import session_of

_DAY = 86_400.0


def users(context: typer.Context, output_format: Output = Format.TEXT) -> int:
    """List the identities on this machine."""
    if context.invoked_subcommand is not None:
        return ExitCode.DONE
    found = session_of(context).client().get("/v1/users")["users"]
    if output_format is Format.JSON:
        output.show_json(found)
    else:
        output.show(render.users(found))
    return ExitCode.DONE


def token(
    context: typer.Context,
    user: Annotated[
        str,
        typer.Argument(
            metavar="USER", help="A user of the embedded core.", autocompletion=completing.users
        ),
    ],
    expires_in: Annotated[
        float,
        typer.Option(min=1.0, metavar="SECONDS", help="How long the token is valid."),
    ] = _DAY,
) -> int:
    """Print a fresh token (JWT) of USER, a secret, for stock CoLink clients."""
    body = {"user": user, "expires_in": expires_in}
    output.show(session_of(context).client().post("/v1/users/token", body)["jwt"])
    return ExitCode.DONE
