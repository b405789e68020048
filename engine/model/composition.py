"""Of which files a manifest is put together, as the command line is told."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Composition:
    """A manifest's file and what is laid over it; what these include is said in them.

    `layers` are files, later ones over earlier ones; `profiles` are names; the variables in
    `env_files` are what `${oc.env:…}` sees beside the environment. All files are absolute paths
    once an engine is asked.
    """

    file: str
    layers: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """Return the manifest's file and its layers, in the order in which they are laid."""
        return (self.file, *self.layers)

    def absolute(self) -> "Composition":
        """Return the same with absolute paths.

        Links stay: an engine watches what was named, wherever it points to by then.
        """
        return Composition(
            _absolute(self.file),
            tuple(map(_absolute, self.layers)),
            self.profiles,
            tuple(map(_absolute, self.env_files)),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Composition":
        """Return what `to_json` was made of; KeyError, TypeError when it is nothing of the kind."""
        lists = ("layers", "profiles", "env_files")
        return cls(value["file"], **{name: tuple(value.get(name, ())) for name in lists})


def _absolute(file: str) -> str:
    return os.path.normpath(Path(file).absolute())
