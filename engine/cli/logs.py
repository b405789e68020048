"""Reading the logs in an ENGINE_HOME, and following them: a turn of reading is one call.

Workers append to their files from processes of their own, so the files are looked at, not told.
A file that is replaced (rotation) is read to its end before the new one is opened; one that is
truncated is read from its start again.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from engine.model.errors import NotFoundError
from engine.model.home import Home

_CHUNK = 64 * 2**10


def log_files(home: Home, selector: str = "") -> dict[str, Path]:
    """Return the log files that `selector` means, by source.

    "" is those of all workers, `USER` those of his, `USER/WORKER` one; `engine`, `core` and
    `operators` are the engine's own (unless a user is called so). Raises NotFoundError, naming
    what there is, when a selector means none.
    """
    folder = home.logs / "workers"
    workers = {
        str(file.relative_to(folder).with_suffix("")): file
        for file in sorted(folder.glob("*/*.log"))
    }
    chosen = {
        source: file
        for source, file in workers.items()
        if not selector or source == selector or source.startswith(f"{selector}/")
    }
    if chosen or not selector:
        return chosen
    own = {file.stem: file for file in (home.engine_log, home.core_log, home.operators_log)}
    if selector in own and own[selector].exists():
        return {selector: own[selector]}
    known = sorted({source.split("/")[0] for source in workers} | set(workers))
    there = [*known, *(name for name, file in own.items() if file.exists())]
    raise NotFoundError(
        f"There is no log of {selector!r}.",
        f"There are logs of: {', '.join(there)}." if there else "There are no logs yet.",
    )


class Tail:
    """One log file, read on from where the last turn ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""

    def lines(self, *, final: bool = False) -> Iterator[str]:
        """Yield the whole lines that came since the last turn; with `final`, a part of one too."""
        yield from self._new_lines()
        if self._is_replaced():
            yield from self._take_rest()
            self.close()
            yield from self._new_lines()
        if final:
            yield from self._take_rest()

    def close(self) -> None:
        """Close the file; a further turn opens what is at its path then."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _open(self) -> None:
        if self._file is None:
            try:
                self._file = self._path.open("rb")
            except FileNotFoundError:
                return

    def _new_lines(self) -> Iterator[str]:
        self._open()
        if self._file is None:
            return
        if os.fstat(self._file.fileno()).st_size < self._file.tell():
            self._file.seek(0)
            self._rest = b""
        while chunk := self._file.read(_CHUNK):
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from (_decoded(line) for line in whole)

    def _take_rest(self) -> Iterator[str]:
        rest, self._rest = self._rest, b""
        if rest:
            yield _decoded(rest)

    def _is_replaced(self) -> bool:
        if self._file is None:
            return False
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(self._file.fileno())
        return (now.st_dev, now.st_ino) != (ours.st_dev, ours.st_ino)


def _decoded(line: bytes) -> str:
    return line.rstrip(b"\r").decode(errors="replace")


class Follower:
    """Several logs at once: `turn` yields `(source, line)` of all that came since the last one."""

    def __init__(self) -> None:
        self._tails: dict[str, Tail] = {}

    def turn(self, files: Mapping[str, Path], *, final: bool = False) -> Iterator[tuple[str, str]]:
        """Read `files` (by source) on; one that is new here is read from its start."""
        for source, path in files.items():
            tail = self._tails.setdefault(source, Tail(path))
            yield from ((source, line) for line in tail.lines(final=final))

    def close(self) -> None:
        """Close all files."""
        for tail in self._tails.values():
            tail.close()
