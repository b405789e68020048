"""A core on each kind of message queue: its own Valkey, a given Redis server, a RabbitMQ."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pika
import pytest

from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.rabbitmq import RabbitServer
from tests.support.valkey import ValkeyServer

KINDS = ("valkey", "redis", "rabbitmq")


@pytest.fixture(scope="session")
def given_redis() -> Iterator[ValkeyServer]:
    """A server that somebody else runs."""
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def sdk_connections_closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close at the end what the SDK opens to RabbitMQ and never closes itself."""
    opened: list[pika.BlockingConnection] = []

    class Tracked(pika.BlockingConnection):  # type: ignore[misc]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            opened.append(self)

    monkeypatch.setattr(pika, "BlockingConnection", Tracked)
    yield
    for connection in opened:
        if connection.is_open:
            connection.close()


@pytest.fixture
def queue_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Settings of a core on the kind of queue that the test is parametrized with."""
    kind = request.param
    mq_uri = mq_api = ""
    if kind == "redis":
        redis: ValkeyServer = request.getfixturevalue("given_redis")
        mq_uri = f"redis://127.0.0.1:{redis.port}/"
    elif kind == "rabbitmq":
        rabbit: RabbitServer = request.getfixturevalue("rabbitmq")
        mq_uri, mq_api = rabbit.uri, rabbit.api
    return Settings(home=tmp_path / "core", port=0, mq_uri=mq_uri, mq_api=mq_api)


@pytest.fixture
async def core_on_queue(queue_settings: Settings) -> AsyncIterator[Core]:
    """A core in this event loop; see `queue_settings`."""
    running = Core(queue_settings)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
