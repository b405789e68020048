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
    Format, typer.Option("-o", "--output", help="Print text for people or JSON for programs.")
]
Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Manifests, YAML.")]
LONGEST_TIMEOUT = 30 * 86400
"""More seconds than anybody waits, and few enough for the clocks of every system."""
Timeout = Annotated[
    float, typer.Option(min=0.1, max=LONGEST_TIMEOUT, help="Seconds to wait at most.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before something is lost.")]
Follow = Annotated[bool, typer.Option("-f", "--follow", help="Go on until Ctrl-C.")]
