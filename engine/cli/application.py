"""All commands of `engine`, put together."""

from typing import Annotated

import typer

from engine.cli.commands import (
    call,
    composition,
    dead,
    generations,
    installed,
    manifests,
    observing,
    starting,
    users,
)
from engine.cli.exit_codes import ExitCode
from engine.cli.help import Command, Group
from engine.cli.session import session_of

_CORE_SETTINGS = {
    "allow_extra_args": True,
    "ignore_unknown_options": True,
    "allow_interspersed_args": False,
    "help_option_names": [],
}


def build() -> typer.Typer:
    """Return the application. `context.obj` of its commands is the run's Session."""
    application = typer.Typer(
        cls=Group,
        # Completion would be installed outside of ENGINE_HOME; panels make long help unreadable.
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    application.callback(invoke_without_command=True)(_engine)
    for command in (
        manifests.validate,
        manifests.plan,
        manifests.apply,
        composition.config,
        observing.status,
        call.call,
        observing.logs,
        observing.events,
        generations.history,
        generations.diff,
        generations.rollback,
        observing.storage,
        installed.plugins,
        installed.flows,
        starting.schema,
        starting.init,
        starting.completion,
        manifests.down,
    ):
        application.command(cls=Command)(command)
    application.command(cls=Command, context_settings=_CORE_SETTINGS)(starting.core)
    group = typer.Typer(cls=Group, rich_markup_mode=None)
    group.callback(invoke_without_command=True)(users.users)
    group.command(cls=Command)(users.token)
    application.add_typer(group, name="users")
    letters = typer.Typer(
        cls=Group,
        rich_markup_mode=None,
        no_args_is_help=True,
        help="Messages that could not be handled: look, send again, drop.",
    )
    letters.command("list", cls=Command)(dead.letters)
    letters.command(cls=Command)(dead.show)
    letters.command(cls=Command)(dead.retry)
    letters.command(cls=Command)(dead.drop)
    application.add_typer(letters, name="dead")
    return application


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"engine {_version()}")
        raise typer.Exit


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 0.02 s

    try:
        return version("colink-engine")
    except PackageNotFoundError:
        return "(not installed)"


def _engine(
    context: typer.Context,
    home: Annotated[
        str | None,
        typer.Option(
            envvar="ENGINE_HOME", metavar="DIR", help="The only folder that the engine writes."
        ),
    ] = None,
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> int:
    """Serve flows over CoLink, declared in YAML.

    Begin with: engine init, engine apply manifest.yaml, engine status.
    """
    session_of(context).home_option = home
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return ExitCode.USAGE
    return ExitCode.DONE
