"""What a process holds open: one channel per core, one broker per message queue account."""

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from engine.colink.amqp import AmqpBroker
from engine.colink.queue import Broker
from engine.colink.rpc import CoreChannel
from engine.colink.streams import StreamBroker
from engine.kits.aio import cancel_and_wait
from engine.model.errors import EngineError
from engine.model.manifest import TlsSpec

T = TypeVar("T")
_FAREWELL = 2.0


class ConnectionPool:
    """Channels, brokers and background work, all closed at the end of `async with`."""

    def __init__(self) -> None:
        self._channels: dict[tuple[str, TlsSpec], CoreChannel] = {}
        self._brokers: dict[str, Broker] = {}
        self.mq_uris: dict[tuple[str, str], str] = {}
        """Where the queues of a user at a core (address, user id) are, once it is known."""
        self._background: set[asyncio.Task[Any]] = set()
        self._tidying: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> "ConnectionPool":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def channel(self, address: str, tls: TlsSpec) -> CoreChannel:
        """Return the channel to a core; UsageError when `address` is none."""
        channel = self._channels.get((address, tls))
        if channel is None:
            channel = self._channels[address, tls] = CoreChannel(address, tls)
        return channel

    def broker(self, mq_uri: str) -> Broker:
        """Return the broker of a message queue account; UsageError for an unknown kind of URI."""
        broker = self._brokers.get(mq_uri)
        if broker is None:
            redis = urlsplit(mq_uri).scheme.startswith("redis")
            broker = StreamBroker(mq_uri) if redis else AmqpBroker(mq_uri)
            self._brokers[mq_uri] = broker
        return broker

    def spawn(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Run `work` in the background; it is cancelled when the pool is closed."""
        return _kept(asyncio.create_task(work), self._background)

    def tidy(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`, that nobody waits for, in the background; its EngineErrors are dropped.

        Closing the pool gives it a little time.
        """

        async def quietly() -> None:
            with contextlib.suppress(EngineError):
                await work

        _kept(asyncio.create_task(quietly()), self._tidying)

    async def close(self) -> None:
        """End the background work and close everything."""
        await cancel_and_wait(self._background)
        if self._tidying:
            await asyncio.wait(self._tidying, timeout=_FAREWELL)
        await cancel_and_wait(self._tidying)
        for broker in self._brokers.values():
            with contextlib.suppress(EngineError):
                await broker.close()
        for channel in self._channels.values():
            await channel.close()
        self._brokers.clear()
        self._channels.clear()


def _kept(task: "asyncio.Task[T]", tasks: set[asyncio.Task[Any]]) -> "asyncio.Task[T]":
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
