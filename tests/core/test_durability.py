"""kill -9 of the core and of its Valkey at random moments, under load.

Every operation is noted when it is asked for and again when it is acknowledged. Whatever was
acknowledged has to be there afterwards, whatever was asked for may be, and nothing else.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import redis

from engine.colink import keys, wire
from engine.colink.client import Client, Connections
from engine.core.check import check
from engine.model.errors import EngineError
from tests.support.core import CoreProcess, CoreUser, make_user
from tests.support.stock import Messages, blocking, stock

Step = Callable[[], Coroutine[Any, Any, None]]
ROUNDS = 4
WRITERS = 4


class Load:
    """Operations of one user, over several connections, and what was acknowledged of them."""

    def __init__(self) -> None:
        self.asked: dict[str, int] = defaultdict(int)
        """The number last written to an entry, whether it was acknowledged or not."""
        self.acknowledged: dict[str, dict[int, str]] = defaultdict(dict)
        """The numbers acknowledged of an entry, each with the version's key path."""
        self.tasks: dict[str, str] = {}
        """The acknowledged status of a task; of one that may be further, with a question mark."""
        self.done = 0
        self._goal = 0
        self._reached = asyncio.Event()

    async def until(self, more: int) -> None:
        """Wait until so many more operations are acknowledged."""
        self._goal = self.done + more
        self._reached.clear()
        await self._reached.wait()

    def count(self) -> None:
        self.done += 1
        if self.done >= self._goal:
            self._reached.set()

    async def write(self, user: Client, name: str) -> None:
        self.asked[name] += 1
        number = self.asked[name]
        path = await user.update(name, b"%d" % number)
        self.acknowledged[name][number] = path
        self.count()

    async def task(self, user: Client) -> None:
        task_id = await user.run_task("p", b"", [(user.user_id, "local")], False)
        self.tasks[task_id] = "started"
        self.count()
        self.tasks[task_id] = "started?"
        await user.finish_task(task_id)
        self.tasks[task_id] = "finished"
        self.count()


async def _until_killed(
    step: Callable[[], Coroutine[Any, Any, None]], ending: asyncio.Event
) -> None:
    while not ending.is_set():
        try:
            await step()
        except EngineError:
            return


async def _round(core: CoreProcess, owner: CoreUser, load: Load, chance: random.Random) -> None:
    """Put load on the core, and kill something in the midst of it."""
    victim = chance.choice(("core", "valkey", "both", "valkey, then core"))
    async with Connections() as connections:
        user = connections.client(core.address, owner.jwt)
        ending = asyncio.Event()
        steps = [
            *(lambda name=f"load:{n}": load.write(user, name) for n in range(WRITERS)),
            lambda: load.write(user, "watched"),
            lambda: load.task(user),
        ]
        working = [asyncio.create_task(_until_killed(step, ending)) for step in steps]
        await load.until(chance.randrange(20, 300))
        if victim != "core":
            core.valkey().kill()
        if victim == "valkey, then core":
            await load.until(chance.randrange(1, 60))
        if victim == "valkey":
            await load.until(chance.randrange(1, 200))
            ending.set()
            await asyncio.gather(*working)
        else:
            core.kill()
            await asyncio.gather(*working)
            core.start()


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_was_acknowledged_survives(core_process: CoreProcess, seed: int) -> None:
    chance, load = random.Random(seed), Load()
    owner = await make_user(core_process)
    async with Connections() as connections:
        user = connections.client(core_process.address, owner.jwt)
        queue_name = await user.subscribe("watched", 0)
        started = await user.subscribe(keys.protocol_latest("p", "started", "local"), 0)
    for _ in range(ROUNDS):
        await _round(core_process, owner, load, chance)

    async with Connections() as connections:
        user = connections.client(core_process.address, owner.jwt)
        for name, numbers in load.acknowledged.items():
            value = int(await user.read(name) or b"0")
            assert max(numbers) <= value <= load.asked[name], name
            for number, path in numbers.items():
                assert await user.read(path) == b"%d" % number, path
        for task_id, status in load.tasks.items():
            record = await user.read_task(task_id)
            assert record is not None, task_id
            assert record.status in ({"started", "finished"} if "?" in status else {status})
        finished = wire.CoLinkInternalTaskIDList.FromString(
            await user.read(keys.status_list("finished")) or b""
        )
        listed = [one.task_id for one in finished.task_ids_with_key_paths]
        assert len(listed) == len(set(listed))
        assert {t for t, status in load.tasks.items() if status == "finished"} <= set(listed)

        # One event for each version that is there, each once, in order.
        history = await user.list_keys("", include_history=True)
        versions = [path for path in history if path.partition("@")[0].endswith("::watched")]
        assert await _events(user, queue_name, len(versions)) == sorted(
            versions, key=lambda path: int(path.rpartition("@")[2])
        )
        assert len(set(await _events(user, started, len(load.tasks)))) >= len(load.tasks)
    assert check(core_process.home)[0] == []


async def _events(user: Client, queue_name: str, count: int) -> list[str]:
    """Return the key paths in a queue, `count` of them at least; what comes later is a fault."""
    queue = await user.queue(queue_name)
    paths: list[str] = []
    async with asyncio.timeout(20):
        while len(paths) < count:
            deliveries = await queue.take("reader", 1000)
            paths += [delivery.key_path for delivery in deliveries]
            await queue.ack(*deliveries)
    await queue.close()
    return paths


async def test_a_reader_that_goes_on_meanwhile_misses_nothing(core_process: CoreProcess) -> None:
    owner = await make_user(core_process)
    seen: list[bytes] = []

    async def read(queue_name: str) -> None:
        async with Connections() as connections:
            user = connections.client(core_process.address, owner.jwt)
            while b"299" not in seen:
                try:
                    queue = await user.queue(queue_name)
                    for delivery in await queue.recover("reader"):
                        seen.append(delivery.payload)
                        await queue.ack(delivery)
                    while b"299" not in seen:
                        for delivery in await queue.take("reader", 10):
                            seen.append(delivery.payload)
                            await queue.ack(delivery)
                except EngineError:
                    await asyncio.sleep(0.05)

    async with Connections() as connections:
        user = connections.client(core_process.address, owner.jwt)
        reading = asyncio.create_task(read(await user.subscribe("a", 0)))
        for number in range(300):
            await user.update("a", b"%d" % number)
            if number in (70, 180):
                core_process.valkey().kill()
        await asyncio.wait_for(reading, 30)
    assert set(seen) == {b"%d" % number for number in range(300)}
    assert list(dict.fromkeys(seen)) == [b"%d" % number for number in range(300)]


async def test_a_queue_that_valkey_lost_altogether_is_filled_from_the_store(
    core_process: CoreProcess,
) -> None:
    owner = await make_user(core_process)
    async with Connections() as connections:
        user = connections.client(core_process.address, owner.jwt)
        latest = keys.protocol_latest("p", "started", "local")
        tasks_queue, entry_queue = await user.subscribe(latest, 0), await user.subscribe("a", 0)
        tasks = [await user.run_task("p", b"", [(user.user_id, "local")], False) for _ in range(3)]
        await user.finish_task(tasks[0])
        await user.update("a", b"1")
        await user.update("a", b"2")
    core_process.stop()  # in order, so that nothing is left in the outbox
    for file in (core_process.home / "valkey" / "appendonlydir").iterdir():
        file.unlink()
    core_process.start()
    async with Connections() as connections:
        user = connections.client(core_process.address, owner.jwt)
        queue = await user.queue(entry_queue)
        assert [d.payload for d in await queue.take("reader", 10)] == [b"2"]
        found: list[str] = []
        queue = await user.queue(tasks_queue)
        while len(found) < 2:
            found += [
                wire.Task.FromString(d.payload).task_id for d in await queue.take("reader", 10)
            ]
        assert found == tasks[1:]


async def test_a_subscriber_of_the_sdk_ends_as_upstream_and_its_successor_misses_nothing(
    core_process: CoreProcess,
) -> None:
    owner = await make_user(core_process)
    user = stock(core_process, owner.jwt)
    queue = await blocking(user.subscribe, "a", 0)
    first = await Messages.of(user, queue)
    await blocking(user.update_entry, "a", b"1")
    assert (await first.next()).payload == b"1"
    waiting = asyncio.create_task(first.next())
    core_process.valkey().kill()
    try:
        # It depends on the version of redis-py whether the read is tried again.
        await blocking(user.update_entry, "a", b"2")
        assert (await waiting).payload == b"2"
        first.close()
    except redis.exceptions.ConnectionError:
        await blocking(user.subscribe, "b", 0)  # answered once Valkey is back
        successor = await Messages.of(user, queue)
        assert (await successor.next()).payload == b"2"
        successor.close()
