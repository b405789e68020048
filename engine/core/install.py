"""`colink-server install`: put this core where the SDKs' InstantServer looks for one (§11)."""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.core.settings import colink_home
from engine.kits.files import write_atomically
from engine.model.errors import AlreadyExistsError, UsageError

_MARK = "# Written by `colink-server install`."


def install(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Path:
    """Write the script `$COLINK_HOME/colink-server` that runs this installation; return its path.

    Raises UsageError without a COLINK_HOME or HOME, AlreadyExistsError for another program there.
    """
    parser = argparse.ArgumentParser(
        prog="colink-server install",
        description="Let the SDKs' InstantServer and InstantRegistry run this core: write"
        " $COLINK_HOME/colink-server (without COLINK_HOME: ~/.colink/colink-server).",
    )
    parser.add_argument("--force", action="store_true", help="replace another program there")
    given = parser.parse_args(arguments)
    home = colink_home(os.environ if environment is None else environment)
    if home is None:
        raise UsageError("There is no place for it.", "Set COLINK_HOME.")
    path = home / "colink-server"
    if path.exists() and not given.force and _MARK.encode() not in path.read_bytes()[:200]:
        raise AlreadyExistsError(f"{path} is another program.", "Replace it with --force.")
    home.mkdir(parents=True, exist_ok=True)
    # -P: the working directory, an InstantServer's own, is no place to import from.
    text = f'#!/bin/sh\n{_MARK}\nexec {shlex.quote(sys.executable)} -P -m engine.core.main "$@"\n'
    write_atomically(path, text.encode(), mode=0o755)
    return path
