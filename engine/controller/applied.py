"""Which manifests are applied, kept on disk so that a killed engine takes up where it was.

Beside each file's name stands the text of its last good generation, and those of all files it was
put together of: when the engine starts and one of them is broken or gone, these texts still count.
Env files are only named: what is in them may be secret.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.kits.files import write_atomically
from engine.model.composition import Composition
from engine.model.errors import PermanentError, TransientError


@dataclass(frozen=True)
class AppliedRecord:
    """One applied manifest. `users` are the names whose storage may hold something of it.

    `text` is that of `file`, `parts` are those of the files it includes and of its layers, by path.
    """

    name: str
    file: str
    generation: int
    text: str
    users: tuple[str, ...] = ()
    removing: str = ""
    """"" while it is wanted; `release` or `purge` once `engine down` was asked for."""
    parts: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()

    @property
    def composition(self) -> Composition:
        """Return of what the manifest is put together."""
        return Composition(self.file, self.layers, self.profiles, self.env_files)

    @property
    def texts(self) -> dict[str, str]:
        """Return the texts of all its files by path, none while it has no good generation."""
        return {self.file: self.text, **self.parts} if self.text else {}


class AppliedStore:
    """The records in one JSON file, replaced as a whole at each change."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._records = {record.name: record for record in _read(file)}

    def all(self) -> list[AppliedRecord]:
        """Return all records, by name."""
        return [self._records[name] for name in sorted(self._records)]

    def put(self, record: AppliedRecord) -> None:
        """Store `record`; raises TransientError when it cannot be written: nothing is changed."""
        if self._records.get(record.name) != record:
            self._write([*(r for r in self.all() if r.name != record.name), record])
            self._records[record.name] = record

    def drop(self, name: str) -> None:
        """Forget the record `name`."""
        if name in self._records:
            self._write(r for r in self.all() if r.name != name)
            del self._records[name]

    def _write(self, records: Iterable[AppliedRecord]) -> None:
        text = json.dumps([asdict(record) for record in records], indent=1)
        try:
            write_atomically(self._file, text.encode())
        except OSError as error:
            raise TransientError(
                f"{self._file}, the list of applied manifests, cannot be written: "
                f"{error.strerror or error}.",
                "Make room on the disk, or let your user write there.",
            ) from error


def _read(file: Path) -> list[AppliedRecord]:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return []
    try:
        return [_record(fields) for fields in json.loads(text)]
    except (ValueError, TypeError, KeyError) as error:
        raise PermanentError(
            f"{file}, the list of applied manifests, is damaged: {error}.",
            "Move it away; then apply the manifests again.",
        ) from error


def _record(fields: Mapping[str, Any]) -> AppliedRecord:
    names = ("users", "layers", "profiles", "env_files")
    lists = {name: tuple(fields.get(name, ())) for name in names}
    return AppliedRecord(**{**fields, **lists})
