"""Child processes that are told what to do, tell how they are, and never outlive their parent.

Parent and child share a socket pair, which is the child's standard input when it starts. The parent
writes JSON lines (what the child shall be: the newest line counts), the child writes JSON lines
back (how it is). When either side dies, by whatever signal, the kernel closes the pair and the
other side reads the end of file. No secret is in argv or the environment, no descriptor number has
to be agreed on, and Linux and macOS behave alike.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = dict[str, Any]
_PR_SET_PDEATHSIG = 1
_LIMIT = 64 * 2**20


class ChildProcess:
    """The parent's side: a running child, the lines it sends, and its end."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self.pid = process.pid

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> "ChildProcess":
        """Start `command` in a session of its own; its output is appended to the file `log`.

        Raises OSError when the program or the log file cannot be opened.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = _spawn(list(command), theirs, log, environment, folder)
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=_LIMIT)
        return cls(process, reader, writer)

    async def tell(self, line: Mapping[str, Any]) -> None:
        """Send the child a new line; a child that is gone already is no error."""
        with contextlib.suppress(ConnectionError):
            self._writer.write(json.dumps(line).encode() + b"\n")
            await self._writer.drain()

    async def next_line(self) -> Line | None:
        """Return the next line that the child sent, or None once it has closed its side."""
        try:
            raw = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        return _decode(raw)

    async def wait(self) -> int:
        """Wait for the child's end and return its exit code, negative for a signal."""
        while (code := self._process.poll()) is None:
            # The end of file tells at once; only between it and the exit is there anything to poll.
            if await self.next_line() is None:
                await asyncio.sleep(0.01)
        self._writer.close()
        return code

    def terminate(self) -> None:
        """Ask the child to finish what it does and end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the child, and what it started in its session, at once (SIGKILL)."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the child if it still runs, and let go of it. May be called again."""
        self.kill()
        self._writer.close()
        # What is killed is gone in a moment; unless it is waited for, a zombie stays.
        self._process.wait()

    def _signal(self, number: int) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class Parent:
    """The child's side: what the parent wants, and a way to tell it how things are."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self._lock = threading.Lock()

    @classmethod
    def adopt(cls) -> "Parent":
        """Take the socket pair from standard input, and put the null device in its place."""
        connection = socket.socket(fileno=os.dup(0))
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        return cls(connection)

    def read(self) -> Line | None:
        """Return the next line of the parent; blocks. None when the parent is gone."""
        try:
            raw = self._lines.readline()
        except OSError:
            return None
        return _decode(raw)

    def tell(self, line: Mapping[str, Any]) -> None:
        """Send the parent a line; a parent that is gone is noticed by `watch`, not here."""
        with self._lock, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps(line).encode() + b"\n")

    def watch(self, on_line: Callable[[Line], None] | None = None) -> None:
        """Read on in a daemon thread: lines go to `on_line`; without a parent, end by SIGKILL."""

        def read_on() -> None:
            while (line := self.read()) is not None:
                if on_line is not None:
                    on_line(line)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=read_on, name="parent", daemon=True).start()


def _decode(raw: bytes) -> Line | None:
    """Return the line's JSON object; None for the end of file, also in the middle of a line."""
    if not raw.endswith(b"\n"):
        return None
    line: Line = json.loads(raw)
    return line


def _spawn(
    command: list[str],
    link: socket.socket,
    log: Path,
    environment: Mapping[str, str] | None,
    folder: Path | None,
) -> subprocess.Popen[bytes]:
    with open(log, "ab", opener=_open_private) as output:
        return subprocess.Popen(
            command,
            stdin=link.fileno(),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=folder,
            start_new_session=True,
        )


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def signal_on_parent_death() -> None:
    """Ask the Linux kernel to SIGKILL this process when the thread that forked it ends.

    For use as `preexec_fn` of programs that are not ours. A no-op on other systems.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
