"""A running embedded core for tests, in this process or in one of its own, and users on it.

A test package takes the fixtures over in its conftest.py:
`from tests.support.core import core, core_process  # noqa: F401`.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest

from engine.colink import wire
from engine.colink.identity import KeyPair
from engine.core.server import Core
from engine.core.settings import Settings
from engine.kits.ports import free_port


@dataclass(frozen=True)
class CoreUser:
    """A user imported into a core."""

    user_id: str
    jwt: str
    key_pair: KeyPair


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core in this event loop, on a free port; its storage is below `tmp_path`."""
    running = Core(Settings(home=tmp_path / "core", port=0))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def new_user(core: "Core | CoreProcess", operators: tuple[str, ...] = ()) -> tuple[str, str]:
    """Import a fresh user and return his JWT and user id; `operators` are started for him."""
    user = await make_user(core, operators)
    return user.jwt, user.user_id


async def make_user(
    core: "Core | CoreProcess",
    operators: tuple[str, ...] = (),
    key_pair: KeyPair | None = None,
    credentials: grpc.ChannelCredentials | None = None,
) -> CoreUser:
    """Import a user (a fresh one unless `key_pair` is given), with the host's token.

    `credentials` are for a core behind TLS.
    """
    keys = key_pair or KeyPair.generate()
    host = (("authorization", core.host_token),)
    place = core.address.partition("://")[2]
    async with (
        grpc.aio.insecure_channel(place)
        if credentials is None
        else grpc.aio.secure_channel(place, credentials)
    ) as channel:
        stub = wire.CoLinkStub(channel)
        info = await stub.RequestInfo(wire.Empty(), metadata=host)
        consent = keys.sign_consent(info.core_public_key, int(time.time()) + 86400)
        token = (await stub.ImportUser(consent, metadata=host)).jwt
        if getattr(core, "given", False):
            await _initialised(stub, token)
        for name in operators:
            request = wire.StartProtocolOperatorRequest(protocol_name=name, user_id=keys.user_id)
            await stub.StartProtocolOperator(request, metadata=host)
    return CoreUser(keys.user_id, token, keys)


async def _initialised(stub: wire.CoLinkStub, token: str) -> None:
    """Wait until a core whose operators are processes has started them for a user."""
    name = wire.StorageEntry(key_name="_internal:_is_initialized")
    request = wire.StorageEntries(entries=[name])
    end = time.monotonic() + 60
    while True:
        reply = await stub.ReadEntries(request, metadata=(("authorization", token),))
        if reply.entries[0].payload == b"\x01":
            return
        assert time.monotonic() < end, "the user is not initialised"
        await asyncio.sleep(0.05)


class CoreProcess:
    """A core in a process of its own, that can be killed and started again on the same home."""

    def __init__(
        self, home: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is added to this process's."""
        self.home = home
        self._environment = {**os.environ, **(environment or {})}
        self.port = free_port()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def host_token(self) -> str:
        return (self.home / "host_token.txt").read_text()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.home.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "engine.core.main", "--home", str(self.home)]
        with (self.home / "stderr.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._arguments],
                stdin=subprocess.DEVNULL,
                stderr=log,
                env=self._environment,
            )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            assert self._process.poll() is None, (self.home / "stderr.log").read_text()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise AssertionError("the core did not start")

    def valkey(self) -> psutil.Process:
        """Return the process of its message queue."""
        return psutil.Process(int((self.home / "valkey" / "valkey.pid").read_text()))

    def kill(self) -> None:
        """kill -9 the core; its Valkey has to end by itself."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the core in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        with contextlib.suppress(psutil.Error, OSError, ValueError):
            children = psutil.Process(self.pid).children()
            self._process.send_signal(number)
            self._process.wait(20)
            _, left = psutil.wait_procs(children, timeout=10)
            assert not left, left
        self._process.wait(20)
        self._process = None


@pytest.fixture
def core_process() -> Iterator[CoreProcess]:
    """A core in a process of its own, started."""
    home = Path(tempfile.mkdtemp(prefix="core-"))
    process = CoreProcess(home)
    try:
        process.start()
        yield process
    finally:
        process.kill()
        shutil.rmtree(home, ignore_errors=True)
