"""The client on a core with the extension: bulk calls are one call."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.colink import wire
from engine.colink.client import Client, Connections
from tests.support.plain_core import PlainCore, token


class ExtendedCore(PlainCore):
    """Has the extension as well, made of the plain calls."""

    def register(self, server: Any) -> None:
        super().register(server)
        wire.add_extension_to_server(self, server)

    async def UpdateEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        replies = [await self.UpdateEntry(entry, context) for entry in request.entries]
        return wire.StorageEntries(entries=replies)

    async def DeleteEntries(self, request: Any, context: Any) -> Any:  # noqa: N802
        for entry in request.entries:
            await self.DeleteEntry(entry, context)
        return wire.StorageEntries()

    async def ReadTree(self, request: Any, context: Any) -> Any:  # noqa: N802
        names = [name for name in self.names() if name.startswith(f"{request.prefix}:")]
        entries = [wire.StorageEntry(key_name=name) for name in names]
        return await self.ReadEntries(wire.StorageEntries(entries=entries), context)


@pytest.fixture
async def core(valkey) -> AsyncIterator[ExtendedCore]:
    core = ExtendedCore(valkey)
    await core.start()
    yield core
    await core.stop()


@pytest.fixture
def client(core: ExtendedCore, connections: Connections) -> Client:
    return connections.client(core.address, token("anna"))


async def test_bulk_calls_are_one_call(core, client):
    await client.update_many({"t:a": b"1", "t:b:c": b"2", "t": b"3"})
    assert await client.read_tree("t") == {"t:a": b"1", "t:b:c": b"2"}
    await client.delete_many(["t:a"])
    await client.delete_tree("t")
    assert await client.read_tree("t") == {}
    assert core.calls == {"UpdateEntries": 1, "ReadTree": 3, "DeleteEntries": 2}


async def test_nothing_to_do_needs_no_call(core, client):
    await client.update_many({})
    await client.delete_many([])
    assert core.calls == {}


async def test_replies_may_be_large(client):
    await client.update_many({f"t:{number}": bytes(1_000_000) for number in range(8)})
    assert len(await client.read_tree("t")) == 8
