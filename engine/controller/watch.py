"""Watching files: a wake-up for each save, whichever way the editor saves.

The folder is watched, not the file (editors write a new file and move it in place), and the event
is only a hint to look: the reader compares contents. A quiet period joins the several events of
one save.
"""

import asyncio
from collections.abc import Callable, Set
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver, ObservedWatch

QUIET = 0.2
"""Seconds without a further event after which a save counts as complete."""
_READS = {"opened", "closed_no_write"}


class _Handler(FileSystemEventHandler):
    def __init__(self, changed: Callable[[set[str]], None]) -> None:
        self._changed = changed

    def on_any_event(self, event: FileSystemEvent) -> None:
        if event.event_type in _READS:
            return
        paths = {str(event.src_path), str(event.dest_path)} - {""}
        self._changed(paths)


class FileWatch:
    """Calls `on_change` on the event loop when one of the watched files may have changed."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_change = on_change
        self._observer: BaseObserver = Observer()
        self._watches: dict[Path, ObservedWatch] = {}
        self._files: frozenset[str] = frozenset()
        self._folders: frozenset[str] = frozenset()
        self._timer: asyncio.TimerHandle | None = None
        self._observer.start()

    def set_files(self, files: Set[Path], folders: Set[Path] = frozenset()) -> None:
        """Watch exactly `files`, and all that is right in `folders`, from now on.

        A folder that is not there is skipped until it is.
        """
        self._files = frozenset(_spellings(files))
        self._folders = frozenset(_spellings(folders))
        parents = {Path(spelling).parent for spelling in self._files}
        self._watch(parents | {Path(spelling) for spelling in self._folders})

    def _watch(self, folders: set[Path]) -> None:
        for folder in set(self._watches) - folders:
            self._observer.unschedule(self._watches.pop(folder))
        for folder in folders - set(self._watches):
            if folder.is_dir():
                self._watches[folder] = self._observer.schedule(
                    _Handler(self._from_thread), str(folder)
                )

    def close(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        self._observer.stop()
        self._observer.join()

    def _from_thread(self, paths: set[str]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._seen, paths)

    def _seen(self, paths: set[str]) -> None:
        parents = {str(Path(path).parent) for path in paths}
        if self._files.isdisjoint(paths) and self._folders.isdisjoint(parents):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(QUIET, self._on_change)


def _spellings(files: Set[Path]) -> set[str]:
    """Return each file as given and with links resolved: a link or its target may be changed."""
    return {str(file.absolute()) for file in files} | {str(file.resolve()) for file in files}
