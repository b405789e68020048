"""kill -9 of the core and of its Valkey, at any time: nothing acknowledged is lost."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import psutil
import pytest

from engine.colink import keys, wire
from engine.colink.client import Client, Connections
from engine.colink.mailbox import encode_push
from engine.model.message import FlowMessage
from tests.support.core import CoreProcess, make_user

SCHEDULER = "coflows_scheduler"


@pytest.fixture
async def connections() -> AsyncIterator[Connections]:
    async with Connections() as open_ones:
        yield open_ones


async def _user(core: CoreProcess, connections: Connections, *operators: str) -> Client:
    return connections.client(core.address, (await make_user(core, operators)).jwt)


def _restart(core: CoreProcess) -> None:
    core.kill()
    core.start()


async def _listed(user: Client, name: str) -> list[str]:
    payload = await user.read(name)
    listed = wire.CoLinkInternalTaskIDList.FromString(payload or b"")
    return [one.task_id for one in listed.task_ids_with_key_paths]


async def test_users_tokens_entries_and_history_survive(core_process, connections) -> None:
    user = await _user(core_process, connections)
    first = await user.create("a:b", b"1")
    await user.update("a:b", b"2")
    await user.create("gone", b"3")
    await user.delete("gone")
    before = await user.list_keys("", include_history=True)
    _restart(core_process)
    assert await user.read("a:b") == b"2"
    assert await user.read(first) == b"1"
    assert await user.read("gone") is None
    assert await user.list_keys("", include_history=True) == before
    host = connections.client(core_process.address, core_process.host_token)
    assert await host.read(keys.user_jwt(user.user_id)) is not None


async def test_every_acknowledged_write_survives_a_kill_under_load(
    core_process, connections
) -> None:
    user = await _user(core_process, connections)
    acknowledged: list[str] = []
    enough = asyncio.Event()

    async def write(worker: int) -> None:
        for number in range(10_000):
            name = f"load:{worker}-{number}"
            try:
                await user.create(name, name.encode())
            except Exception:
                return
            acknowledged.append(name)
            if len(acknowledged) > 300:
                enough.set()

    writers = [asyncio.create_task(write(worker)) for worker in range(8)]
    await enough.wait()
    core_process.kill()
    await asyncio.gather(*writers)
    core_process.start()
    # A new connection: the old one waits a while before it tries again.
    async with Connections() as fresh:
        stored = await fresh.client(core_process.address, user.jwt).read_tree("load")
    assert set(acknowledged) <= set(stored)
    assert all(value == name.encode() for name, value in stored.items())


async def test_tasks_keep_their_status_and_lists(core_process, connections) -> None:
    user = await _user(core_process, connections)
    tasks = [await user.run_task("p", b"", [(user.user_id, "local")], False) for _ in range(3)]
    await user.finish_task(tasks[0])
    _restart(core_process)
    assert await _listed(user, keys.protocol_list("p", "started", "local")) == tasks[1:]
    assert await _listed(user, keys.status_list("finished")) == tasks[:1]
    await user.finish_task(tasks[1])
    record = await user.read_task(tasks[1])
    assert record is not None
    assert record.status == "finished"


async def test_queues_outlive_the_core_with_their_messages(core_process, connections) -> None:
    user = await _user(core_process, connections)
    queue_name = await user.subscribe("a", 0)
    await user.update("a", b"before")
    _restart(core_process)
    await user.update("a", b"after")
    queue = await user.queue(queue_name)
    deliveries = [(await queue.take("reader"))[0] for _ in range(2)]
    assert [delivery.payload for delivery in deliveries] == [b"before", b"after"]


async def test_events_arrive_once_and_in_order_when_valkey_is_killed(
    core_process, connections
) -> None:
    user = await _user(core_process, connections)
    queue_name = await user.subscribe("a", 0)
    uri = (await user.request_info()).mq_uri
    for number in range(50):
        await user.update("a", b"%d" % number)
        if number == 20:
            core_process.valkey().kill()
    assert (await user.request_info()).mq_uri == uri, "the address stays the same"
    await user.subscribe("b", 0)  # answered once Valkey is back
    queue = await user.queue(queue_name)
    got: list[bytes] = []
    while len(got) < 50:
        got += [delivery.payload for delivery in await queue.take("reader", 10)]
    assert got == [b"%d" % number for number in range(50)]


async def test_undelivered_events_are_published_after_both_died(core_process, connections) -> None:
    user = await _user(core_process, connections)
    queue_name = await user.subscribe("a", 0)
    valkey = core_process.valkey()
    # While it is stopped, Valkey takes nothing in: what is written now waits in the outbox.
    valkey.send_signal(signal.SIGSTOP)
    await user.update("a", b"waiting")
    core_process.kill()
    core_process.start()
    queue = await user.queue(queue_name)
    assert [d.payload for d in await queue.take("reader")] == [b"waiting"]


async def test_new_subscriptions_wait_for_a_valkey_that_restarts(core_process, connections) -> None:
    user = await _user(core_process, connections)
    await user.subscribe("a", 0)
    core_process.valkey().kill()
    queue = await user.queue(await user.subscribe("b", 0))
    await user.update("b", b"1")
    assert [d.payload for d in await queue.take("reader")] == [b"1"]


async def test_no_process_is_left_behind(core_process: CoreProcess) -> None:
    valkey = core_process.valkey()
    core_process.kill()
    assert not psutil.wait_procs([valkey], timeout=10)[1]
    core_process.start()
    valkey = core_process.valkey()
    core_process.stop()
    assert not valkey.is_running()
    assert not (core_process.home / "valkey" / "valkey.pid").exists()


async def test_a_strange_process_under_the_old_pid_is_left_alone(
    core_process: CoreProcess,
) -> None:
    core_process.kill()
    pid_file = core_process.home / "valkey" / "valkey.pid"
    pid_file.write_text(str(os.getpid()))
    core_process.start()
    assert psutil.pid_exists(os.getpid())
    assert core_process.valkey().pid != os.getpid()


async def test_waiting_messages_are_dispatched_after_a_restart(core_process, connections) -> None:
    user = await _user(core_process, connections, SCHEDULER)
    participants = [(user.user_id, "receiver")]
    for message in ("m1", "m2", "m3"):
        key = keys.push_message(message)
        await user.create(key, b"{}")
        await user.run_task("coflows_push", encode_push("f", key), participants, True)
    started = keys.protocol_list("coflows_dispatch", "started", "local")
    for message in ("m1", "m2", "m3"):
        _restart(core_process)
        (task_id,) = await _listed(user, started)
        record = await user.read_task(task_id)
        assert record is not None
        assert message in record.protocol_param.decode()
        await user.finish_task(task_id)
    assert await _listed(user, started) == []


async def test_a_push_that_waits_for_its_sender_goes_on_after_a_restart(
    core_process, connections
) -> None:
    sender = await _user(core_process, connections)
    receiver = await _user(core_process, connections, SCHEDULER)
    key = keys.push_message("m1")
    task_id = await sender.run_task(
        "coflows_push",
        encode_push("f", key),
        [(sender.user_id, "initiator"), (receiver.user_id, "receiver")],
        True,
    )
    _restart(core_process)
    message = FlowMessage(data={"x": 1}, user_id=sender.user_id).serialize()
    await sender.send_variable(task_id, "msg", message, receiver.user_id)
    assert await receiver.wait_entry(key, 10) == message
    assert len(await _listed(receiver, keys.status_list("started"))) == 1


async def test_operators_of_users_run_again(core_process, connections) -> None:
    user = await _user(core_process, connections)
    other = await _user(core_process, connections)
    _restart(core_process)
    task_id = await user.run_task(
        "p", b"", [(user.user_id, "initiator"), (other.user_id, "receiver")], True
    )
    record = await other.read_task(task_id)
    assert record is not None
    assert record.status == "started"
