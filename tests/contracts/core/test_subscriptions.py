"""§5: queues, replay, events, and the accounts they are read with; on each kind of queue."""

import asyncio
from urllib.parse import urlsplit

import pytest
import redis.asyncio

from engine.colink import wire
from engine.core.server import Core
from tests.support.core import make_user
from tests.support.queues import (  # noqa: F401
    KINDS,
    core_on_queue,
    given_redis,
    queue_settings,
    sdk_connections_closed,
)
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import Messages, blocking, stock

pytestmark = [
    pytest.mark.parametrize("queue_settings", KINDS, indirect=True),
    pytest.mark.usefixtures("sdk_connections_closed"),
]


@pytest.fixture
def core(core_on_queue: Core) -> Core:  # noqa: F811
    return core_on_queue


async def _subscribed(client, key: str, start: int | None = 0) -> tuple[str, Messages]:
    queue = await blocking(client.subscribe, key, start)
    return queue, await Messages.of(client, queue)


async def test_every_kind_of_change_is_told_in_order(alice) -> None:
    user_id = alice.get_user_id()
    _, messages = await _subscribed(alice, "a")
    created = await blocking(alice.create_entry, "a", b"1")
    updated = await blocking(alice.update_entry, "a", b"2")
    deleted = await blocking(alice.delete_entry, "a")
    expected = [
        ("create", created, b"1"),
        ("update", updated, b"2"),
        ("delete", deleted, b""),
    ]
    for wanted in expected:
        message = await messages.next()
        assert (message.change_type, message.key_path, message.payload) == wanted
        assert message.key_path.startswith(f"{user_id}::a@")


@pytest.mark.ours
async def test_history_is_replayed_oldest_first_from_the_given_time(alice) -> None:
    first = await blocking(alice.create_entry, "a", b"1")
    second = await blocking(alice.update_entry, "a", b"2")
    await blocking(alice.delete_entry, "a")
    third = await blocking(alice.create_entry, "a", b"3")
    _, all_of_it = await _subscribed(alice, "a", 0)
    for path, payload in ((first, b"1"), (second, b"2"), (third, b"3")):
        message = await all_of_it.next()
        assert (message.change_type, message.key_path) == ("in-storage", path)
        assert message.payload == payload
    _, later = await _subscribed(alice, "a", int(second.partition("@")[2]) + 1)
    assert (await later.next()).key_path == third


@pytest.mark.ours
async def test_only_the_exact_key_is_told_of_also_one_that_is_a_directory(alice) -> None:
    await blocking(alice.create_entry, "d:below", b"1")
    _, messages = await _subscribed(alice, "d", 0)
    await blocking(alice.update_entry, "d:below", b"2")
    await blocking(alice.update_entry, "d", b"3")
    assert (await messages.next()).payload == b"3"


async def test_each_subscription_has_a_copy_and_readers_of_one_queue_compete(alice) -> None:
    queue, first = await _subscribed(alice, "a")
    _, other = await _subscribed(alice, "a")
    second = await Messages.of(alice, queue)
    for number in range(4):
        await blocking(alice.update_entry, "a", str(number))
    assert (await first.next()).payload == b"0"
    first.close()
    assert [(await second.next()).payload for _ in range(3)] == [b"1", b"2", b"3"]
    assert [(await other.next()).payload for _ in range(4)] == [b"0", b"1", b"2", b"3"]


async def test_the_uri_appears_with_the_first_subscription(core: Core, stub) -> None:
    made = await make_user(core)
    user = bearer(made.jwt)
    assert (await stub.RequestInfo(wire.Empty(), metadata=user)).mq_uri == ""
    queue = (await stub.Subscribe(wire.SubscribeRequest(key_name="a"), metadata=user)).queue_name
    uri = (await stub.RequestInfo(wire.Empty(), metadata=user)).mq_uri
    username = urlsplit(uri).username
    assert username is not None
    assert username.startswith("colink--")
    assert len(username) == len("colink--") + 16
    assert queue.partition(":")[0] == username
    if uri.startswith("redis"):
        assert uri.endswith("/?protocol=2&socket_timeout=31536000")
    else:
        assert uri.endswith(f"/{username}?heartbeat=0")
    entry = wire.StorageEntry(key_name="_internal:mq_uri")
    reply = await stub.ReadEntries(wire.StorageEntries(entries=[entry]), metadata=user)
    assert reply.entries[0].payload.decode() == uri


async def test_an_account_reaches_its_own_queues_only(alice, bob) -> None:
    await _subscribed(alice, "a")
    theirs, _ = await _subscribed(bob, "a")
    await blocking(bob.update_entry, "a", b"secret")
    with pytest.raises(Exception, match=r"permission|NOPERM|NOT_FOUND"):
        await (await Messages.of(alice, theirs)).next()


async def test_an_account_runs_no_other_commands(core: Core, alice) -> None:
    await _subscribed(alice, "a")
    uri = (await blocking(alice.request_info)).mq_uri
    if not uri.startswith("redis"):
        pytest.skip("in RabbitMQ an account has a virtual host of its own, and all rights there")
    async with redis.asyncio.from_url(uri) as connection:
        with pytest.raises(redis.exceptions.NoPermissionError):
            await connection.flushall()


async def test_the_host_subscribes_too(core: Core, stub) -> None:
    host = bearer(core.host_token)
    await stub.Subscribe(wire.SubscribeRequest(key_name="a"), metadata=host)
    assert (await stub.RequestInfo(wire.Empty(), metadata=host)).mq_uri


@pytest.mark.ours
async def test_unsubscribing_ends_the_queue_and_is_the_owners_right(core, alice, bob) -> None:
    queue, _ = await _subscribed(alice, "a")
    with pytest.raises(Exception, match="INTERNAL"):
        await blocking(bob.unsubscribe, queue)
    await blocking(alice.update_entry, "a", b"1")
    await blocking(alice.unsubscribe, queue)
    with pytest.raises(Exception, match="INTERNAL"):
        await blocking(alice.unsubscribe, queue)
    await blocking(alice.update_entry, "a", b"2")
    with pytest.raises(Exception, match=r"NOGROUP|NOT_FOUND"):
        await (await Messages.of(alice, queue)).next()
    uri = (await blocking(alice.request_info)).mq_uri
    if uri.startswith("redis"):
        async with redis.asyncio.from_url(uri) as connection:
            assert await connection.xlen(queue) == 0, "a stream that is gone does not come back"


async def test_reading_waits_for_what_is_not_there_yet(alice) -> None:
    waiting = asyncio.create_task(blocking(alice.read_or_wait, "later"))
    await asyncio.sleep(0)
    await blocking(alice.create_entry, "later", b"now")
    assert await waiting == b"now"


async def test_unknown_queues_are_refused(core: Core, stub) -> None:
    user = bearer((await make_user(core)).jwt)
    call = stub.Unsubscribe(wire.MQQueueName(queue_name="none"), metadata=user)
    assert await refused(call) is Code.INTERNAL


async def test_the_waiting_message_of_a_new_user_is_plain_ascii(core: Core, alice) -> None:
    # The SDK decodes it as text, to log it.
    _, messages = await _subscribed(alice, "_internal:_is_initialized")
    message = await messages.next()
    message.SerializeToString().decode("ascii")


async def test_queues_outlive_a_restart_with_what_waits_in_them(
    queue_settings,  # noqa: F811
    core: Core,
    alice,
) -> None:
    queue, _ = await _subscribed(alice, "a")
    await blocking(alice.update_entry, "a", b"before")
    uri = (await blocking(alice.request_info)).mq_uri
    await core.stop()
    again = Core(queue_settings)
    await again.start()
    try:
        client = stock(again, alice.jwt)
        assert (await blocking(client.request_info)).mq_uri == uri
        await blocking(client.update_entry, "a", b"after")
        messages = await Messages.of(client, queue)
        assert [(await messages.next()).payload for _ in range(2)] == [b"before", b"after"]
        messages.close()
    finally:
        await again.stop()
