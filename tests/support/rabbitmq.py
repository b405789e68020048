"""A real RabbitMQ server with its management API, on loopback ports and in a folder of its own.

Where no RabbitMQ is installed, tests that ask for the fixture are skipped.
"""

import base64
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.kits.ports import free_port

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
"""Where Debian keeps them: what stands in the search path changes to another user first."""
MISSING = (
    "RabbitMQ is not installed, so its queues are NOT tested here: apt-get install rabbitmq-server"
)
_START_TIMEOUT = 90.0


class RabbitServer:
    """Keeps its data over `kill` and `start`. The administrator is `guest`."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
        self.port, self._api_port = free_port(), free_port()
        self._name_port, self._distribution_port = free_port(), free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def uri(self) -> str:
        """What `--mq-uri` takes."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def api(self) -> str:
        """What `--mq-api` takes."""
        return f"http://guest:guest@127.0.0.1:{self._api_port}/api"

    def start(self) -> None:
        """Start the server and wait until its management API and its port answer."""
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "management.tcp.ip = 127.0.0.1\n"
            f"management.tcp.port = {self._api_port}\n"
            "loopback_users.guest = true\n"
        )
        self._run("epmd", "-port", str(self._name_port), "-address", "127.0.0.1")
        self._run(str(PROGRAMS / "rabbitmq-server"))
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._serves():
            assert self._processes[-1].poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """The end of what it has printed."""
        return (self.folder / "output").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it by SIGKILL, with all its processes."""
        for process in self._processes:
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                below = psutil.Process(process.pid).children(recursive=True)
                os.killpg(process.pid, signal.SIGKILL)
                # Its helpers lead groups of their own, and go when their input ends.
                psutil.wait_procs(below, timeout=10)
            process.wait()
        self._processes.clear()

    def close(self) -> None:
        """End it and delete its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._name_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_AFLAGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_NODENAME": f"test-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_HOME": str(next(PROGRAMS.parent.glob("lib/rabbitmq_server-*"))),
            "RABBITMQ_BASE": str(self.folder),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            # A test needs no more schedulers than the machine is to spare.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none",
        }
        with (self.folder / "output").open("ab") as log:
            self._processes.append(
                subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def _serves(self) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self._api_port}/api/overview")
        request.add_header("Authorization", "Basic " + base64.b64encode(b"guest:guest").decode())
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[RabbitServer]:
    """A server for the whole run."""
    if not (PROGRAMS / "rabbitmq-server").exists():
        pytest.skip(MISSING)
    server = RabbitServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
