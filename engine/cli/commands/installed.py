"""plugins and flows: what is installed. No engine is needed for either."""

from typing import Annotated

import typer

from engine.cli import completing, output, render
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Format, Output


def plugins(output_format: Output = Format.TEXT) -> int:
    """List the plugins, where they are from, and what is broken."""
    from engine.cli import installation  # imports all plugins

    found = installation.plugins(installation.catalog())
    if output_format is Format.JSON:
        output.show_json(found)
    else:
        output.show(render.plugins(found))
    return ExitCode.DONE


def flows(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[CLASS]",
            help="As manifests name it: PLUGIN.CLASS.",
            autocompletion=completing.flow_classes,
        ),
    ] = None,
    output_format: Output = Format.TEXT,
) -> int:
    """List the flow classes, or show one.

    One is shown with its interfaces and its default configuration.
    """
    from engine.cli import installation  # imports all plugins

    installed = installation.catalog()
    found = installation.flows(installed) if name is None else installation.flow(installed, name)
    if output_format is Format.JSON:
        output.show_json(found)
    elif isinstance(found, list):
        output.show(render.flows(found))
    else:
        output.show(render.flow(found))
    return ExitCode.DONE
