"""The client on a core that offers the plain protocol only, and whose calls are counted."""

import asyncio
import socket

import grpc.aio
import pytest

from engine.colink import keys, wire
from engine.colink.client import Connections
from engine.colink.role_loop import patiently
from engine.colink.rpc import Caller, translate
from engine.model.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CoreUnavailableError,
    DeadlineExceededError,
    EngineError,
    NotFoundError,
    UsageError,
)
from engine.model.manifest import TlsSpec
from tests.support.plain_core import token


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_bulk_reads_are_one_call_when_all_is_there(plain_core, plain_client):
    for number in range(8):
        await plain_client.create(f"k:{number}", b"%d" % number)
    found = await plain_client.read_many([f"k:{number}" for number in (3, 0, 3, 7)])
    assert found == {"k:3": b"3", "k:0": b"0", "k:7": b"7"}
    assert plain_core.calls["ReadEntries"] == 1
    assert await plain_client.read_many([]) == {}


async def test_missing_entries_are_found_by_halving(plain_core, plain_client):
    for number in range(64):
        if number != 17:
            await plain_client.create(f"k:{number}", b"%d" % number)
    found = await plain_client.read_many(f"k:{number}" for number in range(64))
    assert len(found) == 63
    assert plain_core.calls["ReadEntries"] == 1 + 2 * 6


async def test_what_the_extension_does_at_once_is_done_one_by_one(plain_core, plain_client):
    await plain_client.update_many({"t:a": b"1", "t:b:c": b"2", "t": b"3", "tt": b"4"})
    assert await plain_client.read_tree("t") == {"t:a": b"1", "t:b:c": b"2"}
    assert set(await plain_client.read_tree("")) == {"t:a", "t:b:c", "t", "tt"}
    await plain_client.delete_many(["t:a", "absent"])
    await plain_client.delete_tree("t")
    assert await plain_client.read_tree("t") == {}
    assert await plain_client.read("t") == b"3"
    assert plain_core.calls["UpdateEntries"] == 1
    assert "DeleteEntries" not in plain_core.calls


async def test_waiting_asks_where_the_queues_are_once_and_ends_its_subscriptions(
    plain_core, plain_client
):
    for number in range(3):
        waiting = asyncio.create_task(plain_client.wait_entry(f"k{number}", 5))
        await until(lambda number=number: plain_core.queues_of(f"k{number}"))
        await plain_client.create(f"k{number}", b"value")
        assert await waiting == b"value"
    await until(lambda: not plain_core.subscriptions)
    assert plain_core.calls["RequestInfo"] == 1


async def test_a_cancelled_wait_ends_its_subscription(plain_core, plain_client):
    waiting = asyncio.create_task(plain_client.wait_entry("k", 5))
    await until(lambda: plain_core.subscriptions)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: not plain_core.subscriptions)


async def test_a_wait_cancelled_while_it_subscribes_leaves_nothing(plain_core, plain_client):
    for steps in range(12):
        waiting = asyncio.create_task(plain_client.wait_entry("k", 5))
        for _ in range(steps):
            await asyncio.sleep(0.0005)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await until(
        lambda: plain_core.calls.get("Subscribe", 0) == plain_core.calls.get("Unsubscribe", 0)
    )
    assert not plain_core.subscriptions


async def test_a_wait_that_is_over_ends_its_subscription(plain_core, plain_client):
    with pytest.raises(DeadlineExceededError):
        await plain_client.wait_entry("k", 0.1)
    await until(lambda: plain_core.calls.get("Unsubscribe"))


async def test_an_expectation_sees_what_was_written_before_its_subscription(
    plain_core, plain_client
):
    async with plain_client.expect("k") as expectation:
        await plain_client.create("k", b"value")
        assert await expectation.value(5) == b"value"
        assert await expectation.value(5) == b"value"


async def test_many_wait_at_once(plain_core, plain_client):
    names = [f"k:{number}" for number in range(50)]
    waits = [asyncio.create_task(plain_client.wait_entry(name, 10)) for name in names]
    await until(lambda: len(plain_core.subscriptions) == 50)
    await asyncio.gather(*(plain_client.create(name, name.encode()) for name in names))
    assert await asyncio.gather(*waits) == [name.encode() for name in names]


async def test_a_wait_survives_the_core_and_the_queue_dying(plain_core, plain_client, valkey):
    waiting = asyncio.create_task(plain_client.wait_entry("k", 20))
    await until(lambda: plain_core.queues_of("k"))
    await plain_core.stop()
    valkey.kill()
    valkey.start()
    await plain_core.start()
    await patiently(lambda: plain_client.create("k", b"value"))
    assert await waiting == b"value"


async def test_changes_come_in_order_without_deletions(plain_core, plain_client):
    await plain_client.create("k", b"1")
    await plain_client.delete("k")
    await plain_client.create("k", b"2")
    seen = []
    changes = plain_client.changes("k")
    async for delivery in changes:
        seen.append(delivery.payload)
        if delivery.payload == b"2":
            await plain_client.delete("k")
            await plain_client.create("k", b"3")
        if delivery.payload == b"3":
            break
    await changes.aclose()
    assert seen == [b"1", b"2", b"3"]


async def test_a_rejected_task_ends_the_wait(plain_client):
    task_id = await plain_client.run_task("refused", b"", [("anna", "local")], False)
    with pytest.raises(AccessDeniedError, match="rejected"):
        await plain_client.wait_task(task_id, 5)


async def test_a_finished_task_ends_the_wait(plain_client):
    task_id = await plain_client.run_task("p", b"", [("anna", "local")], False)
    with pytest.raises(DeadlineExceededError):
        await plain_client.wait_task(task_id, 0.1)
    waiting = asyncio.create_task(plain_client.wait_task(task_id, 5))
    await plain_client.finish_task(task_id)
    await waiting
    await plain_client.wait_task(task_id, 5)
    with pytest.raises(UsageError):
        await plain_client.finish_task(task_id)


async def test_errors_are_ours(plain_core, plain_client):
    await plain_client.create("k", b"")
    with pytest.raises(AlreadyExistsError, match="k"):
        await plain_client.create("k", b"")
    with pytest.raises(NotFoundError):
        await plain_client.delete("absent")
    assert await plain_client.read("absent") is None
    await plain_core.stop()
    with pytest.raises(CoreUnavailableError):
        await plain_client.read("k")


async def test_a_core_that_comes_back_is_found_again(plain_core, plain_client):
    await plain_client.create("k", b"")
    await plain_core.stop()
    with pytest.raises(CoreUnavailableError):
        await plain_client.read("k")
    await plain_core.start()
    assert await patiently(lambda: plain_client.read("k")) == b""


async def test_a_core_that_hangs_is_unavailable(connections):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        caller = Caller(connections.channel(address, TlsSpec()), token("anna"))
        with pytest.raises(CoreUnavailableError):
            await caller.call("RequestInfo", wire.Empty(), timeout=0.2)


async def test_variables_between_our_own_need_no_inbox(plain_core, connections, plain_client):
    other = connections.client(plain_core.address, token("bob"))
    receiving = asyncio.create_task(other.recv_variable("task", "v", "anna", 5))
    await plain_client.send_variable("task", "v", b"value", "bob")
    assert await receiving == b"value"
    assert plain_core.calls["CreateTask"] == 1


async def test_a_sender_that_waits_is_told_once_that_there_is_no_inbox(
    plain_core, connections, plain_client
):
    other = connections.client(plain_core.address, token("bob"))
    receiving = asyncio.create_task(other.recv_variable("task", "v", "anna", 5))
    inbox = await plain_client.wait_entry(keys.variable("bob", "task", "inbox"), 5)
    assert inbox == b'{"addr": null, "vt_jwt": null, "tls_cert": null}'
    await plain_client.send_variable("task", "v", b"value", "bob")
    assert await receiving == b"value"
    later = asyncio.create_task(other.recv_variable("task", "w", "anna", 5))
    await asyncio.sleep(0.1)
    await plain_client.send_variable("task", "w", b"more", "bob")
    assert await later == b"more"
    assert plain_core.calls["CreateTask"] == 3


async def test_a_variable_for_oneself_is_an_entry(plain_client):
    await plain_client.send_variable("task", "v", b"value", "anna")
    assert await plain_client.recv_variable("task", "v", "anna", 1) == b"value"


async def test_a_variable_that_never_comes_ends_in_time(plain_client):
    with pytest.raises(DeadlineExceededError):
        await plain_client.recv_variable("task", "v", "bob", 0.2)


async def test_malformed_addresses_and_tokens_are_refused(connections):
    for address in ("", "localhost:2021", "http://"):
        with pytest.raises(UsageError):
            connections.client(address, "")
    with pytest.raises(UsageError):
        connections.client("http://127.0.0.1:1", "no token")
    with pytest.raises(UsageError):
        connections.client("https://127.0.0.1:1", "", TlsSpec(ca="/nonexistent/ca.pem"))


async def test_clients_of_one_core_share_a_channel(connections):
    first = connections.client("http://127.0.0.1:1", token("anna"))
    second = first.as_user(token("bob"))
    assert first._caller._channel is second._caller._channel
    assert second.user_id == "bob"


async def test_calls_after_the_end_are_told(plain_core):
    async with Connections() as connections:
        client = connections.client(plain_core.address, token("anna"))
        assert await client.read("k") is None
    with pytest.raises(CoreUnavailableError):
        await client.read("k")


def test_every_code_of_grpc_becomes_an_error_of_ours():
    for code in grpc.StatusCode:
        failure = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "why")
        error = translate(failure, "ReadEntries", "k", NotFoundError, "http://c")
        assert isinstance(error, EngineError)
        assert "why" in str(error)
