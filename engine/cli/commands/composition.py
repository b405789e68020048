"""config: what a manifest says once it is put together, and who says it."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from engine.cli import inputs, output, render
from engine.cli.exit_codes import ExitCode
from engine.cli.options import EnvFiles, File, Format, Layers, Output, Profiles


def config(
    file: File = None,
    layers: Layers = None,
    profiles: Profiles = None,
    env_files: EnvFiles = None,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="PATH", help="Say who sets the value at PATH."),
    ] = None,
    interpolate: Annotated[
        bool, typer.Option(help="Put in the values of ${...}; secrets stay as they are written.")
    ] = True,
    output_format: Output = Format.TEXT,
) -> int:
    """Print a manifest as it is put together, or where one of its values comes from."""
    from engine.cli.installation import catalog  # imports all plugins
    from engine.loading import as_yaml, configuration  # YAML and JSON Schema

    (composition,) = inputs.compositions([file] if file else [], layers, profiles, env_files)
    found = configuration(composition, catalog(), os.environ)
    value: Any = found.resolved if interpolate else found.written
    if explain is not None:
        value = _explanation(asdict(found.explain(explain)))
    if output_format is Format.JSON:
        output.show_json(value)
    else:
        output.show(render.explanation(value) if explain is not None else as_yaml(value))
    return ExitCode.DONE


def _explanation(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON shape of an explanation: the source that counts, and those before it."""
    *before, last = found["sources"] or [{}]
    return {
        "path": found["path"],
        "value": found["value"],
        "written": found["written"],
        **{name: last.get(name) for name in ("file", "line", "column", "origin")},
        "overrides": before[::-1],
    }
