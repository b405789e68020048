"""A core whose queues are in RabbitMQ: what the server loses, and settings that are wrong."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from engine.colink.client import Client, Connections
from engine.colink.queue import Delivery
from engine.core.queue import rabbitmq as module
from engine.core.queue.accounts import username_of
from engine.core.server import Core
from engine.core.settings import Settings
from engine.model.errors import EngineError, UsageError
from tests.support.core import make_user
from tests.support.rabbitmq import RabbitServer


@pytest.fixture
async def core(rabbitmq: RabbitServer, tmp_path: Path) -> AsyncIterator[Core]:
    running = Core(
        Settings(home=tmp_path / "core", port=0, mq_uri=rabbitmq.uri, mq_api=rabbitmq.api)
    )
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Client]:
    async with Connections() as connections:
        yield connections.client(core.address, (await make_user(core)).jwt)


async def _taken(user: Client, queue_name: str, count: int) -> list[bytes]:
    """Return what is in a queue, once there is a way to it."""
    async with asyncio.timeout(20):
        while True:
            try:
                queue = await user.queue(queue_name)
                deliveries: list[Delivery] = []
                while len(deliveries) < count:
                    deliveries += await queue.take("reader", count)
                await queue.ack(*deliveries)
                await queue.close()
            except EngineError:
                await asyncio.sleep(0.05)
            else:
                return [delivery.payload for delivery in deliveries]


async def test_many_events_come_in_order(user: Client) -> None:
    queue_name = await user.subscribe("a", 0)
    await asyncio.gather(*(user.update("a", b"%d" % number) for number in range(600)))
    in_storage = sorted(
        [path for path in await user.list_keys("", include_history=True) if "::a@" in path],
        key=lambda path: int(path.rpartition("@")[2]),
    )
    queue = await user.queue(queue_name)
    paths: list[str] = []
    while len(paths) < 600:
        deliveries = await queue.take("reader", 600)
        paths += [delivery.key_path for delivery in deliveries]
        await queue.ack(*deliveries)
    assert paths == in_storage
    await queue.close()


async def test_what_the_server_lost_is_made_again_under_the_same_names(
    core: Core, user: Client, rabbitmq: RabbitServer
) -> None:
    queue_name = await user.subscribe("a", 0)
    await user.update("a", b"1")
    async with aiohttp.ClientSession() as session:
        await session.delete(f"{rabbitmq.api}/vhosts/{username_of(queue_name)}")
    await user.update("a", b"2")
    taken = await _taken(user, queue_name, 1)
    assert taken[0] in (b"1", b"2")
    uri = (await user.request_info()).mq_uri
    assert uri.endswith(f"/{username_of(queue_name)}?heartbeat=0")
    await user.update("a", b"3")
    while b"3" not in taken:
        taken += await _taken(user, queue_name, 1)
    assert b"2" in taken


async def test_queues_that_nobody_knows_any_more_go_at_the_next_start(
    core: Core, user: Client, rabbitmq: RabbitServer
) -> None:
    queue_name = await user.subscribe("a", 0)
    virtual_host = username_of(queue_name)
    async with aiohttp.ClientSession() as session:

        async def names() -> set[str]:
            async with session.get(f"{rabbitmq.api}/queues/{virtual_host}") as answer:
                return {found["name"] for found in await answer.json()}

        for name in (f"{virtual_host}:left", "mine"):
            await session.put(
                f"{rabbitmq.api}/queues/{virtual_host}/{name}", json={"durable": True}
            )
        assert await names() == {queue_name, f"{virtual_host}:left", "mine"}
        await core.stop()
        again = Core(core.settings)
        await again.start()
        try:
            assert await names() == {queue_name, "mine"}, "what the user made is his"
        finally:
            await again.stop()


async def test_an_account_in_no_use_has_no_connection(
    user: Client, monkeypatch: pytest.MonkeyPatch, core: Core
) -> None:
    monkeypatch.setattr(module, "_IDLE", 0.05)
    queue_name = await user.subscribe("a", 0)
    for number in range(3):
        await user.update("a", b"%d" % number)
        # After a connection that broke, a message may come twice.
        while await _taken(user, queue_name, 1) != [b"%d" % number]:
            pass
        while _is_connected(core):
            await asyncio.sleep(0.01)


def _is_connected(core: Core) -> bool:
    """Tell whether the core holds, or makes, a connection for any account."""
    link = core.parts.publisher._link
    return link is None or bool(link._senders)  # type: ignore[attr-defined]


async def test_a_wrong_password_for_the_management_api_is_told(
    rabbitmq: RabbitServer, tmp_path: Path
) -> None:
    api = rabbitmq.api.replace("guest:guest", "guest:wrong")
    core = Core(Settings(home=tmp_path, port=0, mq_uri=rabbitmq.uri, mq_api=api))
    with pytest.raises(UsageError, match="does not know us") as caught:
        await core.start()
    assert "wrong" not in str(caught.value)


async def test_a_server_that_is_killed_keeps_what_was_published(
    user: Client, rabbitmq: RabbitServer
) -> None:
    queue_name = await user.subscribe("a", 0)
    for number in range(50):
        await user.update("a", b"%d" % number)
    await asyncio.to_thread(rabbitmq.kill)
    for number in range(50, 60):
        await user.update("a", b"%d" % number)
    await asyncio.to_thread(rabbitmq.start)
    taken: list[bytes] = []
    while b"59" not in taken:
        taken += await _taken(user, queue_name, 1)
    assert list(dict.fromkeys(taken)) == [b"%d" % number for number in range(60)]
