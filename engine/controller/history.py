"""The generations of every manifest: what was wanted, what was done for it, and how it went.

One file each below ENGINE_HOME, readable without an engine. Texts are kept as they were written, so
a secret is in them only if somebody wrote it into a manifest.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.kits.files import private_folder, write_atomically
from engine.model.composition import Composition
from engine.model.errors import NotFoundError

KEPT = 100
"""So many generations of a manifest are kept."""

_LISTS = ("steps", "layers", "profiles", "env_files")
PROGRESSING, CONVERGED, FAILED = "Progressing", "Converged", "Failed"


@dataclass(frozen=True)
class Generation:
    """One generation of a manifest.

    `time` is when it was first seen, in Unix seconds; `steps` are the lines of what was planned for
    it until it had converged; `result` is Progressing, Converged or Failed, and `message` says what
    failed. `text` is that of `file`, `parts` are those of the files it includes and of its
    `layers`, by path.
    """

    manifest: str
    generation: int
    time: float
    file: str
    text: str
    steps: tuple[str, ...] = ()
    result: str = PROGRESSING
    message: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()

    @property
    def composition(self) -> Composition:
        """Return of what the manifest was put together."""
        return Composition(self.file, self.layers, self.profiles, self.env_files)

    @property
    def texts(self) -> dict[str, str]:
        """Return the texts of all its files, by path."""
        return {self.file: self.text, **self.parts}


class History:
    """The generations in the folder `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, generation: Generation) -> None:
        """Keep a generation, in place of what was known of it; the oldest are forgotten.

        Raises OSError when the disk is full.
        """
        folder = private_folder(self._folder / generation.manifest)
        text = json.dumps(asdict(generation), indent=1)
        write_atomically(folder / f"{generation.generation:08d}.json", text.encode())
        for old in sorted(folder.glob("*.json"))[:-KEPT]:
            old.unlink(missing_ok=True)

    def manifests(self) -> list[str]:
        """Return the names of the manifests that have a history."""
        return sorted(folder.name for folder in self._folder.glob("*/"))

    def all(self, manifest: str) -> list[Generation]:
        """Return the generations of a manifest that are kept, oldest first."""
        files = sorted((self._folder / manifest).glob("*.json"))
        return [found for found in map(_read, files) if found is not None]

    def newest(self, manifest: str) -> int:
        """Return the number of the newest generation that is kept, 0 when there is none."""
        known = self.all(manifest)
        return known[-1].generation if known else 0

    def get(self, manifest: str, generation: int) -> Generation:
        """Return one generation; NotFoundError names those that are kept."""
        known = self.all(manifest)
        for found in known:
            if found.generation == generation:
                return found
        raise NotFoundError(
            f"There is no generation {generation} of {manifest}.", _known(known, self.manifests())
        )

    def forget(self, manifest: str) -> None:
        """Delete what is kept of a manifest."""
        folder = self._folder / manifest
        for file in folder.glob("*.json"):
            file.unlink(missing_ok=True)
        if folder.is_dir():
            folder.rmdir()


def _read(file: Path) -> Generation | None:
    try:
        fields = json.loads(file.read_text())
        lists = {name: tuple(fields.get(name, ())) for name in _LISTS}
        return Generation(**(fields | lists))
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def _known(generations: Iterable[Generation], manifests: Iterable[str]) -> str:
    numbers = ", ".join(str(found.generation) for found in generations)
    if numbers:
        return f"Kept are: {numbers}."
    names = ", ".join(manifests)
    return f"There is a history of: {names}." if names else "No manifest was applied here yet."
