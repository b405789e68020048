"""Where the stages of loading put what they find wrong, so that one mistake is told once.

Two notes keep a mistake from being told again by a later stage:

- a *spoiled* path has a value that cannot be judged, nor anything below it;
- a *doubtful* path has content that is not all known (a key of it was mistyped, say), so nothing
  may be called missing in it.
"""

from engine.loading.paths import Path, path_text
from engine.model.errors import Fault, InvalidManifestError

Place = tuple[str, int, int]
"""File, line and column, the two from 1; both are 0 for the file as a whole."""


class Faults:
    """Collects the faults of one manifest, in whichever of its files they are."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._faults: dict[tuple[Place, str, str], Fault] = {}
        self._told: set[tuple[Place, str]] = set()
        self._spoiled: set[Path] = set()
        self._doubtful: set[Path] = set()

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, place: Place, path: Path, message: str, hint: str = "") -> None:
        """Note a fault."""
        self.comes_next(place[0])
        text, message = _one_line(path_text(path)), _one_line(message)
        fault = Fault(*place, text, message, _one_line(hint))
        self._faults.setdefault((place, text, message), fault)
        self._told.add((place, text))

    def comes_next(self, file: str) -> None:
        """Let the faults of `file` stand below those of all files that came before."""
        self._files.setdefault(file, len(self._files))

    def told(self, place: Place, path: Path) -> bool:
        """Tell whether there is a fault of `path` at `place` already."""
        return (place, _one_line(path_text(path))) in self._told

    def spoil(self, path: Path) -> None:
        """Let nothing at or below `path` be judged any more."""
        self._spoiled.add(path)
        self._doubtful.add(path)

    def doubt(self, path: Path) -> None:
        """Let nothing be called missing from what is at `path`."""
        self._doubtful.add(path)

    def lift(self, section: Path) -> None:
        """Let what is known of paths below `section` also hold for these paths without it."""
        for paths in (self._spoiled, self._doubtful):
            length = len(section)
            paths |= {path[length:] for path in paths if path[:length] == section}

    def spoiled(self, path: Path) -> bool:
        """Tell whether `path`, or what it is in, cannot be judged."""
        return bool(self._spoiled) and any(
            path[:length] in self._spoiled for length in range(len(path) + 1)
        )

    def doubtful(self, *paths: Path) -> bool:
        """Tell whether not all that is at one of `paths` is known."""
        return any(path in self._doubtful for path in paths)

    def sorted(self) -> tuple[Fault, ...]:
        """Return the faults, those of one file after those of another, each in its order."""
        found = self._faults.values()
        return tuple(sorted(found, key=lambda fault: (self._files[fault.file], fault)))

    def raise_if_any(self) -> None:
        """Raise InvalidManifestError with all faults, if there are some."""
        if self._faults:
            raise InvalidManifestError(self.sorted())


def _one_line(text: str) -> str:
    """Return `text` with line breaks and the like escaped: a fault is always one line."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )
