"""One engine per ENGINE_HOME: a lock that the kernel drops when its holder dies."""

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType

from engine.model.errors import LockHeldError

_LOOK = 0.02
"""Seconds between two looks at the lock; the kernel can only wait for it without an end."""
_TRIES = 5


def wait_released(file: Path, timeout: float) -> bool:
    """Wait until no engine holds the lock in `file`; False when `timeout` seconds were too few."""
    end = time.monotonic() + timeout
    while _is_held(file):
        if time.monotonic() >= end:
            return False
        time.sleep(_LOOK)
    return True


def _is_held(file: Path) -> bool:
    try:
        with file.open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _taken(descriptor: int) -> bool:
    """Take the lock; a few tries, for whoever only looks at it holds it for a moment, too."""
    for _ in range(_TRIES):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(_LOOK)
    return False


class EngineLock:
    """Held by the running engine; the file names its pid. Use it as a context manager."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._descriptor = -1

    def __enter__(self) -> "EngineLock":
        """Take the lock, or raise LockHeldError naming the holder."""
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not _taken(descriptor):
            holder = os.read(descriptor, 32).decode().strip() or "unknown"
            os.close(descriptor)
            raise LockHeldError(
                f"Another engine (pid {holder}) runs in {self._file.parent}.",
                holder=f"pid {holder}",
                hint="Use it, stop it with `engine down --all`, or choose another --home.",
            )
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)
