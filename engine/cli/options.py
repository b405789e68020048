"""Options and arguments that several commands have, spelled and explained once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How a command prints what it found."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option("-o", "--output", metavar="FORMAT", help="text for people, or json for programs."),
]
Files = Annotated[list[Path] | None, typer.Argument(metavar="FILE...", help="Manifests.")]
File = Annotated[Path | None, typer.Argument(metavar="FILE", help="A manifest.")]
Layers = Annotated[
    list[Path] | None,
    typer.Option(
        "-f", "--layer", metavar="FILE", help="Lay FILE over the manifest; later over earlier ones."
    ),
]
Profiles = Annotated[
    list[str] | None,
    typer.Option("--profile", metavar="NAME", help="Lay the manifest's profile NAME over it."),
]
EnvFiles = Annotated[
    list[Path] | None,
    typer.Option("--env-file", metavar="FILE", help="Take variables from FILE, NAME=value a line."),
]
LONGEST_TIMEOUT = 30 * 86400
"""More seconds than anybody waits, and few enough for the clocks of every system."""
Timeout = Annotated[
    float,
    typer.Option(min=0.1, max=LONGEST_TIMEOUT, metavar="SECONDS", help="How long to wait at most."),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is lost.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")]
