from collections.abc import AsyncIterator, Iterator

import pytest

from engine.colink.client import Client, Connections
from tests.support.core import core, core_process  # noqa: F401
from tests.support.plain_core import PlainCore, token
from tests.support.valkey import ValkeyServer


@pytest.fixture(scope="session")
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
async def plain_core(valkey: ValkeyServer) -> AsyncIterator[PlainCore]:
    valkey.command("FLUSHALL")
    plain = PlainCore(valkey)
    await plain.start()
    yield plain
    await plain.stop()


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    async with Connections() as connections:
        yield connections


@pytest.fixture
def plain_client(plain_core: PlainCore, connections: Connections) -> Client:
    return connections.client(plain_core.address, token("anna"))
