"""Queues on a real RabbitMQ: the client side."""

import asyncio
from collections.abc import AsyncIterator

import aio_pika
import pytest

from engine.colink import wire
from engine.colink.amqp import AmqpBroker
from engine.colink.queue import Delivery
from engine.model.errors import CoreUnavailableError, NotFoundError
from tests.support.rabbitmq import RabbitServer


class Administrator:
    """Makes queues and publishes, as a core does."""

    def __init__(self, channel: aio_pika.abc.AbstractChannel) -> None:
        self._channel = channel
        self.queue = ""

    async def add_queue(self) -> None:
        self.queue = (await self._channel.declare_queue("", exclusive=False)).name

    async def publish(self, *bodies: bytes) -> None:
        for body in bodies:
            await self._channel.default_exchange.publish(aio_pika.Message(body), self.queue)

    async def length(self) -> int:
        queue = await self._channel.declare_queue(self.queue, passive=True)
        return int(queue.declaration_result.message_count)

    async def delete_queue(self) -> None:
        await self._channel.queue_delete(self.queue)


@pytest.fixture
async def administrator(rabbitmq: RabbitServer) -> AsyncIterator[Administrator]:
    connection = await aio_pika.connect(rabbitmq.uri)
    administrator = Administrator(await connection.channel())
    await administrator.add_queue()
    yield administrator
    await administrator.delete_queue()
    await connection.close()


@pytest.fixture
async def broker(rabbitmq: RabbitServer) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker(f"{rabbitmq.uri}?heartbeat=0")
    yield broker
    await broker.close()


def message(payload: str) -> bytes:
    encoded: bytes = wire.SubscriptionMessage(
        change_type="create", key_path="u::k@1", payload=payload.encode()
    ).SerializeToString()
    return encoded


def texts(deliveries: list[Delivery]) -> list[str]:
    return [delivery.payload.decode() for delivery in deliveries]


async def test_messages_are_taken_and_acknowledged(administrator, broker):
    await administrator.publish(message("one"))
    queue = await broker.queue(administrator.queue, 1)
    (delivery,) = await queue.take("a")
    assert (delivery.payload, delivery.again) == (b"one", False)
    await queue.ack(delivery)
    await queue.close()
    assert await administrator.length() == 0


async def test_no_more_are_held_than_the_capacity(administrator, broker):
    await administrator.publish(*(message(text) for text in "abc"))
    queue = await broker.queue(administrator.queue, 2)
    held = await queue.take("a", 5)
    while len(held) < 2:
        held += await queue.take("a", 5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take("a", 5), 0.1)
    await queue.ack(*held)
    assert texts(await queue.take("a", 5)) == ["c"]
    await queue.close()


async def test_what_was_not_acknowledged_comes_again(administrator, broker):
    await administrator.publish(message("one"))
    first = await broker.queue(administrator.queue, 1)
    await first.take("a")
    await first.close()
    second = await broker.queue(administrator.queue, 1)
    (again,) = await second.take("b")
    assert (again.payload, again.again) == (b"one", True)
    assert await second.recover("b") == []
    assert await second.claim("b", 0) == []
    assert await second.renew("b", [again]) == []
    await second.close()


async def test_stopping_gives_back_what_was_not_taken(administrator, broker):
    await administrator.publish(message("a"), message("b"))
    first = await broker.queue(administrator.queue, 2)
    (taken,) = await first.take("a", 1)
    await first.stop()
    second = await broker.queue(administrator.queue, 2)
    assert texts(await second.take("b", 2)) == ["b"]
    await first.ack(taken)
    await first.close()
    await second.close()


async def test_what_is_no_message_is_removed(administrator, broker):
    await administrator.publish(b"\xff", message("good"))
    queue = await broker.queue(administrator.queue, 5)
    assert texts(await queue.take("a", 5)) == ["good"]
    await queue.close()


async def test_a_missing_queue_is_told(broker):
    with pytest.raises(NotFoundError):
        await broker.queue("none", 1)


async def test_a_queue_that_is_deleted_while_it_is_read_is_told(administrator, broker):
    queue = await broker.queue(administrator.queue, 1)
    taking = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0.05)
    await administrator.delete_queue()
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(taking, 5)
    await queue.close()


async def test_a_lost_connection_is_told_and_made_again(administrator, broker):
    queue = await broker.queue(administrator.queue, 1)
    taking = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0.05)
    await broker.close()
    with pytest.raises(CoreUnavailableError):
        await asyncio.wait_for(taking, 5)
    await queue.close()
    again = await broker.queue(administrator.queue, 1)
    await administrator.publish(message("one"))
    assert texts(await again.take("a")) == ["one"]
    await again.close()


async def test_a_listener_reads_without_acknowledging(administrator, broker):
    await administrator.publish(b"\xff", message("a"), message("b"))
    listener = await broker.listen(administrator.queue)
    assert [(await listener.next()).payload for _ in range(2)] == [b"a", b"b"]
    await listener.close()
    assert await administrator.length() == 0


async def test_a_server_that_is_not_there_is_told():
    broker = AmqpBroker("amqp://guest:guest@127.0.0.1:1/")
    with pytest.raises(CoreUnavailableError):
        await broker.listen("any")
