"""Two users on a real embedded core, and workers for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from engine.colink.client import Client, Connections
from engine.core.server import Core
from engine.flows import Flow
from engine.hooks import Catalog, load_catalog
from engine.kits.aio import cancel_and_wait
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.get_instance import run_get_instance_worker
from tests.support.core import core, new_user  # noqa: F401


@dataclass
class Network:
    """Two users, user0 and user1, with one worker of each kind."""

    user0: Client
    user1: Client
    catalog: Catalog


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """What is installed."""
    return load_catalog(Flow)


@asynccontextmanager
async def working(client: Client, catalog: Catalog) -> AsyncIterator[None]:
    """Run a dispatch and a get_instance worker for a user."""
    readies = [asyncio.Event(), asyncio.Event()]
    tasks = [
        asyncio.create_task(run_dispatch_worker(client, catalog, ready=readies[0])),
        asyncio.create_task(run_get_instance_worker(client, catalog, ready=readies[1])),
    ]
    try:
        async with asyncio.timeout(20):
            for ready in readies:
                await ready.wait()
        yield
    finally:
        await cancel_and_wait(tasks)


@pytest.fixture
async def network(core: Core, catalog: Catalog) -> AsyncIterator[Network]:  # noqa: F811
    """Two users with workers."""
    async with Connections() as connections:
        clients = []
        for _ in range(2):
            token, _ = await new_user(core, operators=("coflows_scheduler",))
            clients.append(connections.client(core.address, token))
        async with working(clients[0], catalog), working(clients[1], catalog):
            yield Network(*clients, catalog)
