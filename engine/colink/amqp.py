"""Queues in RabbitMQ (§5.5). The broker itself hands on what a lost connection held."""

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from engine.colink import wire
from engine.colink.queue import Delivery
from engine.model.errors import CoreUnavailableError, EngineError, NotFoundError

if TYPE_CHECKING:
    from aio_pika.abc import (
        AbstractChannel,
        AbstractConnection,
        AbstractIncomingMessage,
        AbstractQueue,
    )

log = logging.getLogger(__name__)
_LISTENER_CAPACITY = 16
_HEARTBEAT = 30
"""Seconds."""


class AmqpBroker:
    """An account at a RabbitMQ server: one connection, a channel for each queue."""

    def __init__(self, mq_uri: str) -> None:
        self._uri = mq_uri
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()

    async def queue(self, name: str, capacity: int) -> "AmqpQueue":
        """Open a shared queue; at most `capacity` messages are held unacknowledged."""
        return AmqpQueue(await self._consumer(name, capacity, no_ack=False))

    async def listen(self, name: str) -> "AmqpListener":
        """Open a private queue."""
        return AmqpListener(await self._consumer(name, _LISTENER_CAPACITY, no_ack=True))

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _consumer(self, name: str, capacity: int, *, no_ack: bool) -> "_Consumer":
        consumer = _Consumer(name)
        await _translated(consumer.start(await self._connect(), capacity, no_ack), name)
        return consumer

    async def _connect(self) -> "AbstractConnection":
        # Only users of RabbitMQ pay for these imports.
        import aio_pika
        from yarl import URL

        async with self._opening:
            if self._connection is None or self._connection.is_closed:
                # Whatever the core advises the SDK: a peer that vanished has to be noticed.
                uri = URL(self._uri).update_query(heartbeat=_HEARTBEAT)
                self._connection = await _translated(aio_pika.connect(str(uri)), "")
        return self._connection


class _Consumer:
    """The consumer of one queue on a channel of its own; None in `arrived` means that it ended."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arrived: asyncio.Queue[AbstractIncomingMessage | None] = asyncio.Queue()
        self.channel: AbstractChannel | None = None
        self._queue: AbstractQueue | None = None
        self._tag = ""
        self._ended: EngineError | None = None

    async def start(self, connection: "AbstractConnection", capacity: int, no_ack: bool) -> None:
        self.channel = await connection.channel()
        lost = CoreUnavailableError("The connection to the message queue was lost.")
        self.channel.close_callbacks.add(lambda *_: self._end(lost))
        # Older versions of the library do not tell that the broker deleted a queue.
        underlay = await self.channel.get_underlay_channel()
        gone = NotFoundError(f"The queue {self.name} was deleted.")
        cancelled: set[Any] = getattr(underlay, "on_consumer_cancel_callbacks", set())
        cancelled.add(lambda *_: self._end(gone))
        await self.channel.set_qos(prefetch_count=capacity)
        self._queue = await self.channel.get_queue(self.name, ensure=True)
        self._tag = await self._queue.consume(self._arrive, no_ack=no_ack)

    async def _arrive(self, message: "AbstractIncomingMessage") -> None:
        self.arrived.put_nowait(message)

    async def next(self) -> "AbstractIncomingMessage":
        message = await self.arrived.get()
        if message is None:
            self.arrived.put_nowait(None)
            raise self._ended or CoreUnavailableError("The queue was closed.")
        return message

    def _end(self, reason: EngineError) -> None:
        self._ended = self._ended or reason
        self.arrived.put_nowait(None)

    async def stop(self) -> None:
        if self._queue is not None:
            await _translated(self._queue.cancel(self._tag), self.name)
        while not self.arrived.empty():
            message = self.arrived.get_nowait()
            if message is not None:
                await _translated(message.nack(), self.name)

    async def close(self) -> None:
        if self.channel is not None and not self.channel.is_closed:
            await _translated(self.channel.close(), self.name)


class AmqpQueue:
    """A shared queue; see `engine.colink.queue.Queue`. Consumers' names play no part here."""

    def __init__(self, consumer: _Consumer) -> None:
        self.name = consumer.name
        self.suspects = False
        self._consumer = consumer
        self._held: dict[str, AbstractIncomingMessage] = {}

    async def take(self, consumer: str, count: int = 1) -> list[Delivery]:
        """Wait for new messages and return one to `count` of them."""
        deliveries: list[Delivery] = []
        while not deliveries:
            messages = [await self._consumer.next()]
            while len(messages) < count and not self._consumer.arrived.empty():
                messages.append(await self._consumer.next())
            for message in messages:
                delivery = _delivery(message)
                if delivery is None:
                    log.warning("removing an unreadable message from queue %s", self.name)
                    await _translated(message.ack(), self.name)
                    continue
                self._held[delivery.id] = message
                deliveries.append(delivery)
        return deliveries

    async def recover(self, consumer: str) -> list[Delivery]:
        """Return nothing: the broker delivers again what a lost connection held."""
        return []

    async def claim(self, consumer: str, min_idle: float, count: int = 10) -> list[Delivery]:
        """Return nothing: the broker itself notices dead consumers."""
        return []

    async def renew(self, consumer: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Return nothing: what a live connection holds is taken by nobody."""
        return []

    async def ack(self, *deliveries: Delivery) -> None:
        """Remove messages from the queue; those of an earlier connection come again."""
        for delivery in deliveries:
            message = self._held.pop(delivery.id, None)
            if message is not None:
                await _translated(message.ack(), self.name)

    async def stop(self) -> None:
        """Take nothing new; what has come and was not taken goes back."""
        await self._consumer.stop()

    async def close(self) -> None:
        """Stop altogether; the broker gives others what is not acknowledged."""
        await self._consumer.close()


class AmqpListener:
    """A private queue; see `engine.colink.queue.Listener`."""

    def __init__(self, consumer: _Consumer) -> None:
        self._consumer = consumer

    async def next(self) -> Delivery:
        """Wait for the next message."""
        while (delivery := _delivery(await self._consumer.next())) is None:
            log.warning("an unreadable message in queue %s", self._consumer.name)
        return delivery

    async def close(self) -> None:
        """Stop reading."""
        await self._consumer.close()


def _delivery(message: "AbstractIncomingMessage") -> Delivery | None:
    try:
        content = wire.SubscriptionMessage.FromString(message.body)
    except DecodeError:
        return None
    return Delivery(
        content.change_type,
        content.key_path,
        content.payload,
        # Tags count from 1 on each channel: without the channel's own mark they would be mixed up.
        f"{id(message.channel):x}-{message.delivery_tag}",
        bool(message.redelivered),
    )


async def _translated(operation: Awaitable[Any], name: str) -> Any:
    """Await `operation`, with the errors of the AMQP library translated to ours."""
    from aio_pika.exceptions import AMQPError, ChannelNotFoundEntity  # as in AmqpBroker._connect

    try:
        return await operation
    except ChannelNotFoundEntity as error:
        raise NotFoundError(f"The queue {name} does not exist.") from error
    except (AMQPError, OSError, asyncio.InvalidStateError) as error:
        raise CoreUnavailableError(f"The message queue does not answer: {error}.") from error
