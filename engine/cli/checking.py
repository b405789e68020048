"""Checking manifests in this process, before any engine is asked. Heavy to import: YAML, schema."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.cli.installation import catalog
from engine.loading import check_together, load_all, variables


@dataclass(frozen=True)
class Checked:
    """Manifests without a fault: their absolute paths, names, and the variables they refer to."""

    files: tuple[str, ...]
    names: tuple[str, ...]
    environment: dict[str, str]


def check(files: Sequence[Path], environment: Mapping[str, str]) -> Checked:
    """Check `files` alone and together; `environment` gives the values of `${oc.env:...}`.

    A file that is named twice counts once.
    Raises InvalidManifestError with all faults of all files.
    """
    # Links stay: the engine watches what was named, wherever it points to by then.
    paths = {os.path.normpath(file.absolute()): file for file in reversed(files)}
    files = [*reversed(paths.values())]
    manifests = load_all(files, catalog(), environment)
    check_together(manifests)
    needed = {name for file in files for name in variables(file.read_text(encoding="utf-8-sig"))}
    return Checked(
        tuple(reversed(paths)),
        tuple(manifest.name for manifest in manifests),
        {name: environment[name] for name in sorted(needed) if name in environment},
    )
