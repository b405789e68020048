"""What was read to load one manifest: so that each file is read once, and a change is seen.

A file that could not be read is remembered too: that it is there later is a change like any other.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from engine.loading.source import UnreadableError, absolute, read_bytes

EXTENSIONS = (".yaml", ".yml")


class Contents:
    """Reads files and folders, by absolute path; `texts` stand in for files on disk.

    With texts the content of a folder is what they say: they are all that a manifest was made of.
    """

    def __init__(self, texts: Mapping[str, str | bytes] | None = None) -> None:
        self.manifests: dict[str, str] = {}
        """The texts of the manifest, of all that it includes and of its layers, by path."""
        self._texts = dict(texts or {})
        self._given: dict[Path, list[str]] = {}
        for path in sorted(self._texts):
            self._given.setdefault(Path(path).parent, []).append(Path(path).name)
        self._files: dict[str, bytes] = {}
        self._folders: dict[str, bytes] = {}

    @property
    def files(self) -> frozenset[str]:
        """Return the absolute paths of all files that were asked for, whether there or not."""
        return frozenset(self._files)

    @property
    def folders(self) -> frozenset[str]:
        """Return the absolute paths of all folders whose fragments were asked for."""
        return frozenset(self._folders)

    def read(self, file: Path) -> bytes:
        """Return what is in `file`; raises UnreadableError."""
        path = str(absolute(file))
        if path in self._texts:
            text = self._texts[path]
            return text.encode() if isinstance(text, str) else text
        try:
            content = read_bytes(file)
        except UnreadableError:
            self._files[path] = b""
            raise
        self._files[path] = _digest(content)
        return content

    def fragments(self, folder: Path) -> list[str] | None:
        """Return the names of the YAML files right in `folder`, sorted; None when it is none.

        Files whose names begin with a dot are not among them: editors keep such.
        """
        path = absolute(folder)
        if path in self._given and str(path) not in self._texts:
            return [name for name in self._given[path] if _is_fragment(name)]
        names = _names(folder)
        if names is not None:
            self._folders[str(path)] = _digest("\0".join(names).encode())
        return names

    def changed(self) -> bool:
        """Tell whether a file or folder that was asked for has another content by now."""
        return any(_content_of(path) != seen for path, seen in self._files.items()) or any(
            _digest("\0".join(_names(Path(path)) or ()).encode()) != seen
            for path, seen in self._folders.items()
        )


def _names(folder: Path) -> list[str] | None:
    try:
        return sorted(entry.name for entry in folder.iterdir() if _is_fragment(entry.name))
    except (OSError, ValueError):
        return None


def _is_fragment(name: str) -> bool:
    return name.endswith(EXTENSIONS) and not name.startswith(".")


def _content_of(path: str) -> bytes:
    try:
        return _digest(read_bytes(Path(path)))
    except UnreadableError:
        return b""


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
