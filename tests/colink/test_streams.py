import asyncio
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from engine.colink import wire
from engine.colink.queue import Delivery, Queue, consumer_name
from engine.colink.resp import Connection, parse_uri
from engine.colink.streams import StreamBroker
from engine.kits.processes import process_mark
from engine.model.errors import AccessDeniedError, CoreUnavailableError, NotFoundError, UsageError
from tests.support.valkey import ValkeyServer

QUEUE = "colink--user:queue"


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer()
    server.start()
    yield server
    server.close()


@pytest.fixture
def uri(server: ValkeyServer) -> str:
    server.command("FLUSHALL")
    server.add_queue(QUEUE)
    return server.add_account("colink--user", "secret")


@pytest.fixture
async def broker(uri: str) -> AsyncIterator[StreamBroker]:
    broker = StreamBroker(uri)
    yield broker
    await broker.close()


@pytest.fixture
async def queue(broker: StreamBroker) -> AsyncIterator[Queue]:
    queue = await broker.queue(QUEUE, 1)
    yield queue
    await queue.close()


def message(payload: str, change_type: str = "create") -> bytes:
    encoded: bytes = wire.SubscriptionMessage(
        change_type=change_type, key_path="u::k@1", payload=payload.encode()
    ).SerializeToString()
    return encoded


def texts(deliveries: list[Delivery]) -> list[str]:
    return [delivery.payload.decode() for delivery in deliveries]


async def test_a_waiting_reader_gets_the_next_message(server, queue):
    taking = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0)
    server.publish(QUEUE, message("one", "update"))
    (delivery,) = await taking
    assert (delivery.change_type, delivery.key_path) == ("update", "u::k@1")
    assert (delivery.payload, delivery.again) == (b"one", False)


async def test_as_many_messages_are_taken_as_there_are_up_to_count(server, queue):
    for text in "abc":
        server.publish(QUEUE, message(text))
    assert texts(await queue.take("a", 2)) == ["a", "b"]
    assert texts(await queue.take("a", 2)) == ["c"]


async def test_a_cancelled_wait_loses_nothing(server, queue):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take("a"), 0.05)
    server.publish(QUEUE, message("one"))
    assert texts(await queue.take("a")) == ["one"]


async def test_acknowledged_messages_are_gone_others_come_again_after_a_reconnect(server, broker):
    first = await broker.queue(QUEUE, 1)
    for text in "ab":
        server.publish(QUEUE, message(text))
    done, _ = await first.take("a", 2)
    await first.ack(done)
    await first.close()
    second = await broker.queue(QUEUE, 1)
    (again,) = await second.recover("a")
    assert (again.payload, again.again) == (b"b", True)
    await second.ack(again)
    assert await second.recover("a") == []
    assert server.command("XLEN", QUEUE) == b":0\r\n"
    await second.close()


async def test_only_what_is_not_renewed_twice_is_claimed(server, queue):
    for text in "abc":
        server.publish(QUEUE, message(text))
    held = await queue.take("dead", 3)
    assert await queue.claim("live", min_idle=60) == []
    assert not queue.suspects
    await asyncio.sleep(0.05)
    assert await queue.claim("live", min_idle=0.04) == []
    assert queue.suspects
    await queue.renew("dead", held[:1])
    claimed = await queue.claim("live", min_idle=0.04, count=5)
    assert texts(claimed) == ["b", "c"]
    assert all(delivery.again for delivery in claimed)
    assert not queue.suspects
    assert texts(await queue.renew("dead", held)) == ["b", "c"]
    assert texts(await queue.recover("live")) == ["b", "c"]


async def test_claiming_takes_no_more_than_asked_and_the_rest_the_next_time(server, queue):
    for text in "abc":
        server.publish(QUEUE, message(text))
    await queue.take("dead", 3)
    await asyncio.sleep(0.02)
    assert await queue.claim("live", 0.01, count=2) == []
    assert texts(await queue.claim("live", 0.01, count=2)) == ["a", "b"]
    assert texts(await queue.claim("live", 0.01, count=2)) == ["c"]


async def test_one_of_two_claims_the_same_message(server, broker):
    queues = [await broker.queue(QUEUE, 1) for _ in range(2)]
    server.publish(QUEUE, message("a"))
    await queues[0].take("dead")
    await asyncio.sleep(0.02)
    for queue in queues:
        assert await queue.claim("live", 0.01) == []
    found = await asyncio.gather(queues[0].claim("x", 0.01), queues[1].claim("y", 0.01))
    assert sorted(map(texts, found)) == [[], ["a"]]


@pytest.mark.skipif(sys.platform != "linux", reason="marks of processes need /proc")
async def test_what_a_process_held_that_ended_is_claimed_at_once(server, queue):
    place, pid, start = process_mark().rsplit(".", 2)
    for text in "ab":
        server.publish(QUEUE, message(text))
    await queue.take(consumer_name("this process"))
    await queue.take(f"worker~1~{place}.{pid}.{int(start) - 1}")
    await asyncio.sleep(0.01)
    assert texts(await queue.claim("live", min_idle=60)) == ["b"]


async def test_what_is_no_message_is_removed(server, queue):
    server.publish(QUEUE, b"\xff\xff")
    server.command("XADD", QUEUE, "*", "other", "field")
    server.publish(QUEUE, message("good"))
    assert texts(await queue.take("a", 5)) == ["good"]
    assert server.command("XLEN", QUEUE) == b":1\r\n"


async def test_a_missing_queue_is_told(broker):
    queue = await broker.queue("colink--user:none", 1)
    with pytest.raises(NotFoundError):
        await queue.recover("a")
    with pytest.raises(NotFoundError):
        await queue.take("a")


async def test_a_queue_that_is_deleted_while_it_is_read_is_told(server, queue):
    taking = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0.05)
    server.command("XGROUP", "DESTROY", QUEUE, QUEUE)
    with pytest.raises(NotFoundError):
        await taking


async def test_queues_of_others_are_out_of_reach(server, broker):
    server.add_queue("colink--other:queue")
    queue = await broker.queue("colink--other:queue", 1)
    with pytest.raises(AccessDeniedError):
        await queue.take("a")


async def test_stopping_hands_on_what_was_delivered_in_that_moment(server, queue):
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.take("a"), 0.05)
    server.publish(QUEUE, message("one"))
    await queue.stop()
    assert texts(await queue.recover("a")) in (["one"], [])


async def test_large_messages_arrive_whole(server, queue):
    text = "x" * 3_000_000
    server.publish(QUEUE, message(text))
    (delivery,) = await queue.take("a")
    assert delivery.payload == text.encode()


async def test_a_listener_reads_from_the_beginning_and_its_connection_is_used_again(server, broker):
    server.publish(QUEUE, message("old"))
    listener = await broker.listen(QUEUE)
    assert (await listener.next()).payload == b"old"
    waiting = asyncio.create_task(listener.next())
    await asyncio.sleep(0)
    server.publish(QUEUE, message("new"))
    assert (await waiting).payload == b"new"
    await listener.close()
    before = connections(server)
    again = await broker.listen(QUEUE)
    assert (await again.next()).payload == b"old"
    assert connections(server) == before
    await again.close()


async def test_the_connection_of_a_cancelled_listener_is_not_used_again(server, broker):
    listener = await broker.listen(QUEUE)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.next(), 0.05)
    await listener.close()
    server.publish(QUEUE, message("one"))
    other = await broker.listen(QUEUE)
    assert (await other.next()).payload == b"one"
    await other.close()


async def test_a_server_that_dies_is_told_and_found_again(server, uri):
    broker = StreamBroker(uri)
    queue = await broker.queue(QUEUE, 1)
    taking = asyncio.create_task(queue.take("a"))
    await asyncio.sleep(0.05)
    server.kill()
    with pytest.raises(CoreUnavailableError):
        await taking
    with pytest.raises(CoreUnavailableError):
        await queue.recover("a")
    with pytest.raises(CoreUnavailableError):
        await queue.take("a")
    server.start()
    server.publish(QUEUE, message("after"))
    assert texts(await queue.take("a")) == ["after"]
    await broker.close()


async def test_a_wrong_password_may_be_right_later(uri):
    with pytest.raises(CoreUnavailableError):
        await Connection.open(parse_uri(uri.replace("secret", "wrong")))


async def test_replies_match_commands_when_some_are_cancelled(broker):
    connection = await broker.control()
    calls = [connection.call("XLEN", QUEUE) for _ in range(100)]
    for call in calls[::2]:
        call.cancel()
    missing = connection.call("XINFO", "STREAM", "colink--user:none")
    with pytest.raises(UsageError):
        await missing
    assert await asyncio.gather(*calls[1::2]) == [0] * 50


@pytest.mark.parametrize("piece", [1, 2, 7, 1000])
async def test_replies_may_come_in_pieces(piece):
    connection = Connection()
    calls = []

    class Transport:
        def write(self, _: bytes) -> None:
            pass

        def abort(self) -> None:
            pass

    connection._transport = Transport()
    calls = [connection.call("X") for _ in range(6)]
    raw = b"+OK\r\n:12\r\n$-1\r\n*3\r\n$2\r\na\r\r\n*-1\r\n*1\r\n:-1\r\n$0\r\n\r\n-NOPERM no\r\n"
    for start in range(0, len(raw), piece):
        connection.data_received(raw[start : start + piece])
    values = [await call for call in calls[:5]]
    assert values == [b"OK", 12, None, [b"a\r", None, [-1]], b""]
    with pytest.raises(AccessDeniedError):
        await calls[5]
    bad = connection.call("X")
    connection.data_received(b"HTTP/1.1 400\r\n")
    with pytest.raises(CoreUnavailableError):
        await bad
    assert connection.closed


def test_uris():
    server = parse_uri("redis://a--b:p%40ss@host:7000/?protocol=2&socket_timeout=31536000")
    assert (server.host, server.port, server.username) == ("host", 7000, "a--b")
    assert (server.password, server.tls) == ("p@ss", None)
    assert parse_uri("rediss://:p@host").tls is not None
    assert parse_uri("rediss://:p@host?ssl_cert_reqs=none").tls.check_hostname is False
    with pytest.raises(UsageError):
        parse_uri("http://host")


def connections(server: ValkeyServer) -> int:
    return server.command("CLIENT", "LIST").count(b"user=colink--user")
