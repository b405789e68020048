"""The operator loop, on a plain core with a real Valkey."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from engine.colink import keys, wire
from engine.colink.client import Client
from engine.colink.locks import locked
from engine.colink.operator import Handler, Operator, TaskContext
from engine.colink.role_loop import patiently
from engine.kits.aio import cancel_and_wait
from engine.model.errors import CoreUnavailableError, UsageError
from tests.support.plain_core import PlainCore, token

LEASE = 0.3


class Running:
    """An operator that runs as a task; `crash` ends it as SIGKILL would."""

    def __init__(self, operator: Operator) -> None:
        self.operator = operator
        self.ready = asyncio.Event()
        self.task = asyncio.create_task(operator.run(self.ready))

    async def crash(self) -> None:
        await cancel_and_wait([self.task])


@pytest.fixture
async def start(plain_client: Client) -> AsyncIterator:
    running: list[Running] = []

    async def start_operator(handlers: dict[str, Handler], **options: object) -> Running:
        made = Running(Operator(plain_client, handlers, **({"lease": LEASE} | options)))
        running.append(made)
        await asyncio.wait_for(made.ready.wait(), 10)
        return made

    yield start_operator
    for made in running:
        await made.crash()


class Recorder:
    """A handler that notes what it gets, and goes on when `gate` is open."""

    def __init__(self, *, open_gate: bool = True) -> None:
        self.began: asyncio.Queue[TaskContext] = asyncio.Queue()
        self.gate = asyncio.Event()
        if open_gate:
            self.gate.set()
        self.running = 0
        self.most = 0

    async def __call__(self, context: TaskContext) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        self.began.put_nowait(context)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1

    async def next(self) -> TaskContext:
        return await asyncio.wait_for(self.began.get(), 10)


async def new_task(client: Client, param: bytes = b"", protocol: str = "work") -> str:
    return await client.run_task(protocol, param, [("anna", "local")], False)


async def queue_length(core: PlainCore) -> int:
    (queue,) = core.queues_of(keys.protocol_latest("work", "started", "local"))
    return int(core.valkey.command("XLEN", queue)[1:])


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():
            await asyncio.sleep(0.005)


async def test_tasks_are_handled_finished_and_acknowledged(plain_core, plain_client, start):
    work = Recorder()
    await start({"work:local": work})
    task_id = await plain_client.run_task(
        "work", b"param", [("anna", "local"), ("bob", "other")], False, parent_task="parent"
    )
    context = await work.next()
    assert (context.task_id, context.param, context.parent_task) == (task_id, b"param", "parent")
    assert (context.protocol_name, context.role) == ("work", "local")
    assert context.participants == (("anna", "local"), ("bob", "other"))
    await plain_client.wait_task(task_id, 5)
    await until(lambda: equals(queue_length(plain_core), 0))


async def equals(awaitable, value) -> bool:
    return await awaitable == value


async def test_what_the_protocol_asks_for_is_written(plain_core, plain_client, start):
    await start({"work:local": Recorder(), "work:other": Recorder()})
    assert await plain_client.read(keys.protocol_is_initialized("work")) == b"\x01"
    queue = (await plain_client.read(keys.operator_mq("work", "local"))).decode()
    assert plain_core.subscriptions[queue] == (
        "anna",
        "_internal:protocols:work:local:started:latest",
    )
    assert await plain_client.read(keys.lock(keys.operator_mq("work", "local"))) is None


async def test_tasks_that_started_before_any_operator_are_handled(plain_client, start):
    task_id = await new_task(plain_client)
    work = Recorder()
    await start({"work:local": work})
    assert (await work.next()).task_id == task_id


async def test_a_handler_that_raises_ends_only_its_task(plain_client, start, caplog):
    async def handler(context: TaskContext) -> None:
        if context.param == b"bad":
            raise ValueError("this one is bad")

    await start({"work:local": handler})
    for param in (b"bad", b"good"):
        await plain_client.wait_task(await new_task(plain_client, param), 5)
    assert "this one is bad" in caplog.text


async def test_a_handler_that_finds_the_core_gone_runs_again(plain_client, start):
    attempts = []

    async def handler(context: TaskContext) -> None:
        attempts.append(context.task_id)
        if len(attempts) < 3:
            raise CoreUnavailableError("gone for a moment")

    await start({"work:local": handler})
    task_id = await new_task(plain_client)
    await plain_client.wait_task(task_id, 5)
    assert attempts == [task_id] * 3


@pytest.mark.parametrize("concurrency", [1, 3])
async def test_no_more_handlers_run_at_once_than_asked(plain_client, start, concurrency):
    work = Recorder(open_gate=False)
    await start({"work:local": work, "work2:local": work}, concurrency=concurrency)
    tasks = [await new_task(plain_client, protocol=f"work{n % 2 * 2 or ''}") for n in range(8)]
    for _ in range(concurrency):
        await work.next()
    work.gate.set()
    for task_id in tasks:
        await plain_client.wait_task(task_id, 5)
    assert work.most == concurrency


async def test_tasks_are_handled_in_order_one_by_one(plain_client, start):
    work = Recorder()
    await start({"work:local": work})
    tasks = [await new_task(plain_client) for _ in range(10)]
    assert [(await work.next()).task_id for _ in tasks] == tasks
    assert work.most == 1


async def test_a_handler_that_waits_for_others_can_give_its_slot_away(plain_client, start):
    inner_done = asyncio.Event()

    async def handler(context: TaskContext) -> None:
        if context.param == b"outer":
            async with context.slot_released():
                await inner_done.wait()
        else:
            inner_done.set()

    await start({"work:local": handler})
    outer = await new_task(plain_client, b"outer")
    inner = await new_task(plain_client, b"inner")
    await plain_client.wait_task(inner, 5)
    await plain_client.wait_task(outer, 5)


async def test_draining_finishes_what_runs_and_takes_nothing_new(plain_client, start):
    first, second = Recorder(open_gate=False), Recorder()
    old = await start({"work:local": first})
    running = await new_task(plain_client)
    await first.next()
    draining = asyncio.create_task(old.operator.drain())
    await asyncio.sleep(LEASE * 3)
    later = await new_task(plain_client)
    await start({"work:local": second})
    assert (await second.next()).task_id == later
    assert not draining.done()
    first.gate.set()
    await draining
    await old.task
    await plain_client.wait_task(running, 1)
    assert first.began.empty()


async def test_an_idle_operator_drains_at_once(start):
    running = await start({"work:local": Recorder()})
    await asyncio.wait_for(running.operator.drain(), 2)
    await asyncio.wait_for(running.task, 2)


async def test_what_a_dead_operator_worked_on_is_taken_over(plain_core, plain_client, start):
    dead, alive = Recorder(open_gate=False), Recorder()
    first = await start({"work:local": dead})
    task_id = await new_task(plain_client)
    await dead.next()
    await first.crash()
    await start({"work:local": alive})
    assert (await alive.next()).task_id == task_id
    await plain_client.wait_task(task_id, 5)
    await until(lambda: equals(queue_length(plain_core), 0))


async def test_what_an_operator_works_on_for_long_is_not_taken_over(plain_client, start):
    busy, other = Recorder(open_gate=False), Recorder()
    await start({"work:local": busy})
    await start({"work:local": other})
    task_ids = {await new_task(plain_client) for _ in range(1)}
    first = await asyncio.wait(
        [asyncio.create_task(busy.next()), asyncio.create_task(other.next())],
        return_when=asyncio.FIRST_COMPLETED,
    )
    await cancel_and_wait(first[1])
    if busy.running:
        await asyncio.sleep(LEASE * 4)
        assert other.began.empty()
        busy.gate.set()
    for task_id in task_ids:
        await plain_client.wait_task(task_id, 5)


async def test_a_claimed_delivery_of_a_finished_task_is_only_acknowledged(
    plain_core, plain_client, start
):
    dead, alive = Recorder(open_gate=False), Recorder()
    first = await start({"work:local": dead})
    task_id = await new_task(plain_client)
    await dead.next()
    await first.crash()
    await plain_client.finish_task(task_id)
    await start({"work:local": alive})
    await until(lambda: equals(queue_length(plain_core), 0))
    assert alive.began.empty()


async def test_a_task_announced_twice_is_handled_once(plain_core, plain_client, start):
    work = Recorder(open_gate=False)
    await start({"work:local": work}, concurrency=2)
    task_id = await new_task(plain_client)
    await work.next()
    (queue,) = plain_core.queues_of(keys.protocol_latest("work", "started", "local"))
    again = wire.SubscriptionMessage(
        change_type="update",
        key_path="anna::k@1",
        payload=wire.Task(task_id=task_id).SerializeToString(),
    )
    plain_core.valkey.publish(queue, again.SerializeToString())
    await asyncio.sleep(0.05)
    work.gate.set()
    await until(lambda: equals(queue_length(plain_core), 0))
    assert work.began.empty()


async def test_messages_that_announce_no_task_are_removed(plain_core, plain_client, start):
    work = Recorder()
    await start({"work:local": work})
    (queue,) = plain_core.queues_of(keys.protocol_latest("work", "started", "local"))
    for change_type, payload in (("delete", b""), ("update", b"\xff"), ("update", b"")):
        message = wire.SubscriptionMessage(change_type=change_type, payload=payload)
        plain_core.valkey.publish(queue, message.SerializeToString())
    task_id = await new_task(plain_client)
    assert (await work.next()).task_id == task_id
    await until(lambda: equals(queue_length(plain_core), 0))


async def test_the_whole_record_in_the_announcement_saves_a_read(plain_core, plain_client, start):
    work = Recorder()
    await start({"work:local": work})
    (queue,) = plain_core.queues_of(keys.protocol_latest("work", "started", "local"))
    task = wire.Task(task_id="t", protocol_name="work", status="started", protocol_param=b"p")
    message = wire.SubscriptionMessage(change_type="update", payload=task.SerializeToString())
    reads = plain_core.calls["ReadEntries"]
    plain_core.valkey.publish(queue, message.SerializeToString())
    assert (await work.next()).param == b"p"
    assert plain_core.calls["ReadEntries"] == reads


@pytest.mark.parametrize("what", ["core", "queue", "both"])
async def test_operators_survive_restarts(plain_core, plain_client, valkey, start, what):
    work = Recorder()
    await start({"work:local": work})
    await new_task(plain_client)
    await work.next()
    if what != "queue":
        await plain_core.stop()
    if what != "core":
        valkey.kill()
    await asyncio.sleep(0.3)
    if what != "core":
        valkey.start()
    if what != "queue":
        await plain_core.start()
    task_id = await patiently(lambda: new_task(plain_client))
    while (await work.next()).task_id != task_id:
        pass
    await plain_client.wait_task(task_id, 10)


async def test_a_task_in_work_is_finished_after_the_core_came_back(plain_core, plain_client, start):
    work = Recorder(open_gate=False)
    await start({"work:local": work})
    task_id = await new_task(plain_client)
    await work.next()
    await plain_core.stop()
    work.gate.set()
    await asyncio.sleep(0.3)
    await plain_core.start()

    async def finished() -> bool:
        with contextlib.suppress(CoreUnavailableError):
            return (await plain_client.read_task(task_id)).status == "finished"
        return False

    await until(finished)
    assert work.began.empty()


async def test_a_queue_that_is_lost_for_good_is_replaced(plain_core, plain_client, valkey, start):
    work = Recorder()
    await start({"work:local": work})
    await new_task(plain_client)
    await work.next()
    (queue,) = plain_core.queues_of(keys.protocol_latest("work", "started", "local"))
    valkey.command("DEL", queue)
    task_id = await new_task(plain_client)
    while (await work.next()).task_id != task_id:
        pass
    await plain_client.wait_task(task_id, 5)
    assert (await plain_client.read(keys.operator_mq("work", "local"))).decode() != queue
    assert queue not in plain_core.subscriptions


async def test_an_operator_waits_for_a_core_that_is_not_there_yet(
    plain_core, plain_client, connections
):
    await plain_core.stop()
    work = Recorder()
    running = Running(Operator(plain_client, {"work:local": work}))
    await asyncio.sleep(0.2)
    assert not running.ready.is_set()
    await plain_core.start()
    await asyncio.wait_for(running.ready.wait(), 10)
    await running.crash()


async def test_a_lock_left_behind_is_broken_a_used_one_is_not(plain_client, caplog):
    await plain_client.create(keys.lock("k"), b"left behind")
    async with locked(plain_client, "k", patience=0.2):
        assert "breaking the lock" in caplog.text
        entered = asyncio.Event()

        async def second() -> None:
            async with locked(plain_client, "k", patience=60):
                entered.set()

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0.1)
        assert not entered.is_set()
    await asyncio.wait_for(waiting, 5)
    assert await plain_client.read(keys.lock("k")) is None


async def test_a_lock_is_released_when_its_holder_fails(plain_client):
    with contextlib.suppress(ValueError):
        async with locked(plain_client, "k"):
            raise ValueError
    assert await plain_client.read(keys.lock("k")) is None


def test_handlers_are_named_protocol_and_role(plain_client):
    with pytest.raises(UsageError):
        Operator(plain_client, {"work": Recorder()})


PROCESS = """
import asyncio, sys
from engine.colink.client import Connections
from engine.colink.operator import Operator

async def handler(context):
    print(context.task_id, flush=True)
    await asyncio.sleep(60)

async def main():
    async with Connections() as connections:
        client = connections.client(sys.argv[1], sys.argv[2])
        await Operator(client, {"work:local": handler}, lease=float(sys.argv[3])).run()

asyncio.run(main())
"""


async def start_process(core: PlainCore, lease: float) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROCESS, core.address, token("anna"), str(lease)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))},
    )


async def test_the_tasks_of_a_killed_process_are_taken_over(plain_core, plain_client, start):
    task_id = await new_task(plain_client)
    process = await start_process(plain_core, LEASE)
    async with asyncio.timeout(20):
        assert (await process.stdout.readline()).decode().strip() == task_id
    work = Recorder()
    await start({"work:local": work})
    await asyncio.sleep(LEASE * 3)
    assert work.began.empty()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    assert (await work.next()).task_id == task_id
    await plain_client.wait_task(task_id, 5)


@pytest.mark.skipif(sys.platform != "linux", reason="marks of processes need /proc")
async def test_who_starts_after_a_process_was_killed_takes_over_at_once(
    plain_core, plain_client, start
):
    task_id = await new_task(plain_client)
    process = await start_process(plain_core, lease=600)
    async with asyncio.timeout(20):
        await process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    await process.wait()
    work = Recorder()
    await start({"work:local": work}, lease=600)
    assert (await work.next()).task_id == task_id


async def test_draining_finishes_what_runs_even_when_the_queue_dies_meanwhile(
    plain_client, valkey, start
):
    work = Recorder(open_gate=False)
    running = await start({"work:local": work})
    task_id = await new_task(plain_client)
    await work.next()
    valkey.kill()
    draining = asyncio.create_task(running.operator.drain())
    await asyncio.sleep(0.1)
    assert not draining.done()
    valkey.start()
    work.gate.set()
    await asyncio.wait_for(draining, 10)
    assert (await plain_client.read_task(task_id)).status == "finished"
