"""The storage file: transactions, savepoints, the clock; and idle consumers."""

import asyncio
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from engine.colink import keys, wire
from engine.colink.mailbox import encode_push
from engine.core import schema
from engine.core import store as store_module
from engine.core.operators.scheduler import Scheduler
from engine.core.server import Core
from engine.core.service import Service
from engine.core.store import Store
from engine.core.tokens import USER, Bearer
from engine.model.errors import UsageError
from engine.model.message import FlowMessage
from tests.support.core import make_user


def _failed(error: BaseException) -> None:
    raise AssertionError(error)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "core.sqlite"


async def test_what_one_iteration_writes_is_committed_together(path: Path) -> None:
    store, other = Store(path, _failed), Store(path, _failed)
    store.set_meta("a", 1)
    store.set_meta("b", 2)
    assert other.meta("a") is None
    told: list[str] = []
    store.after_commit(lambda: told.append("committed"))
    assert told == []
    await store.committed()
    assert told == ["committed"]
    assert (other.meta("a"), other.meta("b")) == (1, 2)
    await store.close()
    await other.close()


async def test_a_savepoint_undoes_only_its_own_part(path: Path) -> None:
    store = Store(path, _failed)
    undone: list[str] = []
    store.on_rollback.append(lambda: undone.append("rollback"))
    store.set_meta("a", 1)
    with pytest.raises(ZeroDivisionError), store.savepoint():
        store.set_meta("a", 2)
        store.after_commit(lambda: undone.append("never"))
        raise ZeroDivisionError
    with store.savepoint():
        store.set_meta("b", 3)
    await store.committed()
    assert (store.meta("a"), store.meta("b")) == (1, 3)
    assert undone == ["rollback"]
    await store.close()


async def test_timestamps_increase_over_restarts_and_clocks_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(path, _failed)
    before = [store.tick() for _ in range(1000)]
    assert before == sorted(set(before))
    await store.close()
    monkeypatch.setattr(time, "time_ns", lambda: before[0] - 3600 * 10**9)
    store = Store(path, _failed)
    assert store.tick() > before[-1]
    await store.close()


async def test_the_log_stays_small_under_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_LOG_SIZE", 200_000)
    store, log = Store(path, _failed), path.with_name("core.sqlite-wal")
    largest = 0
    for number in range(3000):
        store.set_meta(f"k{number}", "x" * 500)
        await store.committed()
        largest = max(largest, log.stat().st_size)
    assert 200_000 < largest < 20_000_000, "38 MB if it were left alone"
    assert store.execute("SELECT COUNT(*) FROM meta WHERE name LIKE 'k%'").fetchone() == (3000,)
    await store.close()


async def test_a_commit_that_fails_is_told_to_all_who_wait(path: Path) -> None:
    failures: list[BaseException] = []
    store = Store(path, failures.append)
    store.set_meta("a", 1)
    store.execute("ROLLBACK")  # as SQLite does by itself when the disk is full
    with pytest.raises(Exception, match="no transaction"):
        await store.committed()
    assert len(failures) == 1
    await store.close()


async def test_whatever_goes_wrong_in_a_commit_nobody_waits_for_ever(path: Path) -> None:
    failures: list[BaseException] = []
    store = Store(path, failures.append)
    store.before_commit.append(lambda: 1 // 0)
    store.set_meta("a", 1)
    with pytest.raises(ZeroDivisionError):
        await store.committed()
    assert len(failures) == 1


async def test_a_file_of_another_version_is_refused(path: Path) -> None:
    store = Store(path, _failed)
    store.execute("PRAGMA user_version=99")
    await store.close()
    with pytest.raises(UsageError, match="another version"):
        Store(path, _failed)


async def test_a_file_of_an_earlier_version_gets_what_it_lacks(path: Path) -> None:
    with sqlite3.connect(path) as earlier:
        earlier.executescript(schema.STEPS[0] + "PRAGMA user_version=1;")
        earlier.execute("INSERT INTO meta(name, value) VALUES('a', 1)")
    earlier.close()
    store = Store(path, _failed)
    assert store.meta("a") == 1
    assert store.execute("SELECT COUNT(*) FROM parcels").fetchone() == (0,)
    assert store.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    await store.close()


async def test_a_failing_operator_undoes_only_its_own_part(
    core: Core, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:

    parts = core.parts
    ann = (await make_user(core, ("coflows_scheduler",))).user_id
    ben = (await make_user(core, ("coflows_scheduler",))).user_id

    def push(message: str) -> str:
        key = keys.push_message(message)
        parts.entries.create(ann, key, FlowMessage(data={}, user_id=ann).serialize())
        task = wire.Task(
            protocol_name="coflows_push",
            protocol_param=encode_push("f", key),
            participants=[
                wire.Participant(user_id=ann, role="initiator"),
                wire.Participant(user_id=ben, role="receiver"),
            ],
            require_agreement=True,
            expiration_time=2**31,
        )
        task_id = parts.tasks.create(ann, task)
        parts.effects.run()
        return task_id

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    queue = await _queue(core, ben)
    with monkeypatch.context() as broken:
        broken.setattr(Scheduler, "_create", fail)
        task_id = push("m1")
    assert "a built-in operator failed" in caplog.text
    await parts.store.committed()
    for user_id in (ann, ben):
        copy = parts.tasks.get(user_id, task_id)
        assert copy is not None
        assert copy.status == "finished"
    assert parts.entries.get(ben, keys.push_message("m1")) is None
    push("m2")
    await parts.store.committed()
    started = [copy.task.protocol_name for copy in parts.tasks.in_status(ben, "started")]
    assert started == ["coflows_dispatch"], "the next one works"
    assert queue


async def _queue(core: Core, user_id: str) -> str:

    bearer = Bearer(USER, user_id, 2**31)
    request = wire.SubscribeRequest(key_name="_internal:tasks:status:started:latest")
    return (await Service(core.parts).subscribe(bearer, request)).queue_name


async def test_consumers_that_nobody_uses_are_forgotten(core: Core) -> None:
    user_id = (await make_user(core)).user_id
    queue = await _queue(core, user_id)
    account = core.parts.accounts.find(core.parts.store.owner_id(user_id))
    assert account is not None
    async with redis.asyncio.from_url(core.parts.queue_uri(account)) as connection:
        for number in range(40):
            await connection.xreadgroup(queue, f"c{number}", {queue: ">"}, count=1)
        await core.parts.publisher.tidy()
        assert len(await connection.xinfo_consumers(queue, queue)) == 0


async def test_who_holds_a_message_or_waits_for_one_is_not_forgotten(core: Core) -> None:
    user_id = (await make_user(core)).user_id
    owner_id = core.parts.store.owner_id(user_id)
    queue = await _queue(core, user_id)
    send = partial(core.parts.subscriptions.send, queue, owner_id, "a", "update")
    account = core.parts.accounts.find(owner_id)
    assert account is not None
    async with redis.asyncio.from_url(core.parts.queue_uri(account)) as connection:
        send(1, b"held")
        held = await connection.xreadgroup(queue, "holder", {queue: ">"}, count=1, block=5000)
        assert held
        waiting = asyncio.create_task(
            connection.xreadgroup(queue, "waiter", {queue: ">"}, count=1, block=5000)
        )
        names: set[bytes] = set()
        while b"waiter" not in names:
            names = {one["name"] for one in await connection.xinfo_consumers(queue, queue)}
        for number in range(40):
            await connection.xreadgroup(queue, f"c{number}", {queue: ">"}, count=1)
        await core.parts.publisher.tidy()
        send(2, b"awaited")
        assert b"awaited" in str(await waiting).encode()
        names = {one["name"] for one in await connection.xinfo_consumers(queue, queue)}
        assert names == {b"holder", b"waiter"}


async def test_a_busy_queue_keeps_no_more_consumers_than_a_few_hundred(core: Core) -> None:
    user_id = (await make_user(core)).user_id
    owner_id = core.parts.store.owner_id(user_id)
    queue = await _queue(core, user_id)
    account = core.parts.accounts.find(owner_id)
    assert account is not None
    most = 0
    async with redis.asyncio.from_url(core.parts.queue_uri(account)) as connection:
        for number in range(1500):
            core.parts.subscriptions.send(queue, owner_id, "a", "update", number, b"")
            # As the SDK reads: a name for each message, acknowledged and deleted at once.
            read = await connection.xreadgroup(queue, f"c{number}", {queue: ">"}, 1, block=5000)
            message = read[0][1][0][0]
            await connection.xack(queue, queue, message)
            await connection.xdel(queue, message)
            if number % 100 == 99:
                most = max(most, len(await connection.xinfo_consumers(queue, queue)))
    assert 32 < most <= 600
