"""The client and operators on the engine's own core, also one that is killed meanwhile."""

import asyncio
import contextlib

import pytest

from engine.colink import keys, wire
from engine.colink.client import Client, Connections
from engine.colink.operator import Operator, TaskContext
from engine.colink.role_loop import patiently
from engine.core.server import Core
from engine.kits.aio import cancel_and_wait
from engine.model.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    DeadlineExceededError,
    NotFoundError,
    UsageError,
)
from tests.support.core import CoreProcess, new_user


@pytest.fixture
async def anna(core: Core, connections: Connections) -> Client:
    jwt, _ = await new_user(core)
    return connections.client(core.address, jwt)


@pytest.fixture
async def bob(core: Core, anna: Client) -> Client:
    jwt, _ = await new_user(core)
    return anna.as_user(jwt)


@pytest.fixture
async def carla(core_process: CoreProcess, connections: Connections) -> Client:
    """A user of a core that may be killed."""
    jwt, _ = await new_user(core_process)
    return connections.client(core_process.address, jwt)


async def test_entries(anna):
    path = await anna.create("a:b", b"1")
    assert path.startswith(f"{anna.user_id}::a:b@")
    with pytest.raises(AlreadyExistsError):
        await anna.create("a:b", b"2")
    await anna.update("a:b", b"2")
    assert await anna.read("a:b") == b"2"
    assert await anna.read(path) == b"1"
    assert await anna.read_many(["a:b", "absent", path]) == {"a:b": b"2", path: b"1"}
    await anna.delete("a:b")
    assert await anna.read("a:b") is None
    with pytest.raises(NotFoundError):
        await anna.delete("a:b")


async def test_trees_and_lists(anna):
    await anna.update_many({"t:a": b"1", "t:b:c": b"2", "t": b"3", "tt": b"4"})
    assert await anna.read_tree("t") == {"t:a": b"1", "t:b:c": b"2"}
    assert await anna.read_tree("") == await anna.read_tree("") | {"t": b"3", "tt": b"4"}
    names = {path.partition("::")[2].partition("@")[0] for path in await anna.list_keys("t")}
    assert names == {"t:a", "t:b"}
    assert any("::tt@" in path for path in await anna.list_keys(""))
    await anna.delete_many(["t:a", "absent"])
    await anna.delete_tree("t")
    assert await anna.read_tree("t") == {}
    assert await anna.read("t") == b"3"
    assert anna._caller._channel.extended


async def test_tokens_and_the_rights_they_give(core, connections, anna):
    host = connections.client(core.address, core.host_token)
    info = await connections.client(core.address, "").request_info()
    assert info.core_public_key.hex() == host.user_id
    guest = anna.as_user(await anna.generate_token("guest", 2_000_000_000))
    with pytest.raises(AccessDeniedError):
        await guest.read("k")
    user = anna.as_user(await anna.generate_token("user", 2_000_000_000))
    await user.create("k", b"v")
    assert await anna.read("k") == b"v"
    with pytest.raises(AccessDeniedError):
        await anna.as_user(
            "e30.eyJwcml2aWxlZ2UiOiAidXNlciIsICJ1c2VyX2lkIjogIjAiLCAiZXhwIjogMX0.c2ln"
        ).read("k")


async def test_tasks_of_one(anna):
    task_id = await anna.run_task("p", b"param", [(anna.user_id, "local")], False)
    assert (await anna.read_task(task_id)).status == "started"
    with pytest.raises(DeadlineExceededError):
        await anna.wait_task(task_id, 0.1)
    waiting = asyncio.create_task(anna.wait_task(task_id, 10))
    await anna.finish_task(task_id)
    await waiting
    await anna.wait_task(task_id, 5)
    with pytest.raises(UsageError):
        await anna.finish_task(task_id)


async def test_tasks_of_two_with_agreement(anna, bob):
    both = [(anna.user_id, "initiator"), (bob.user_id, "receiver")]
    task_id = await anna.run_task("p", b"", both, True)
    task = wire.Task()
    while task.status != "started":
        task = await anna.read_task(task_id)
    await bob.finish_task(task_id)
    assert (await anna.read_task(task_id)).status == "started"


async def test_waiting(anna):
    waiting = asyncio.create_task(anna.wait_entry("k", 10))
    async with anna.expect("k") as expectation:
        await anna.create("k", b"v")
        assert await expectation.value(10) == b"v"
    assert await waiting == b"v"
    assert await anna.wait_entry("k", 10) == b"v"
    with pytest.raises(DeadlineExceededError):
        await anna.wait_entry("absent", 0.1)


async def test_variables(anna, bob):
    both = [(anna.user_id, "initiator"), (bob.user_id, "receiver")]
    task_id = await anna.run_task("p", b"", both, True)
    receiving = asyncio.create_task(bob.recv_variable(task_id, "v", anna.user_id, 10))
    await anna.send_variable(task_id, "v", b"value", bob.user_id)
    assert await receiving == b"value"
    await anna.send_variable(task_id, "own", b"value", anna.user_id)
    assert await anna.recv_variable(task_id, "own", anna.user_id, 10) == b"value"


class Work:
    """An operator whose handler notes the tasks it gets."""

    def __init__(self, client: Client) -> None:
        self.tasks: asyncio.Queue[str] = asyncio.Queue()
        self.ready = asyncio.Event()
        self.operator = Operator(client, {"work:local": self.handle}, concurrency=4, lease=1.0)
        self.running = asyncio.create_task(self.operator.run(self.ready))

    async def handle(self, context: TaskContext) -> None:
        self.tasks.put_nowait(context.task_id)

    async def has(self, task_id: str) -> None:
        async with asyncio.timeout(20):
            while await self.tasks.get() != task_id:
                pass


async def test_operators(anna):
    work = Work(anna)
    await work.ready.wait()
    for _ in range(3):
        task_id = await anna.run_task("work", b"", [(anna.user_id, "local")], False)
        await work.has(task_id)
        await anna.wait_task(task_id, 10)
    await work.operator.drain()
    await work.running


@pytest.mark.parametrize("victim", ["core", "queue"])
async def test_everything_goes_on_after_a_kill(core_process, carla, victim):
    work = Work(carla)
    await work.ready.wait()
    await work.has(await carla.run_task("work", b"", [(carla.user_id, "local")], False))
    waiting = asyncio.create_task(carla.wait_entry("k", 30))
    await asyncio.sleep(0.1)
    if victim == "core":
        core_process.kill()
        await asyncio.sleep(0.2)
        core_process.start()
    else:
        core_process.valkey().kill()
    task_id = await patiently(
        lambda: carla.run_task("work", b"", [(carla.user_id, "local")], False)
    )
    await work.has(task_id)
    await patiently(lambda: carla.create("k", b"v"))
    assert await waiting == b"v"
    await carla.wait_task(task_id, 10)
    await cancel_and_wait([work.running])


async def test_no_task_is_lost_while_the_core_is_killed_again_and_again(
    core_process,
    carla,
):
    work = Work(carla)
    await work.ready.wait()
    created: list[str] = []

    async def create() -> None:
        while True:
            with contextlib.suppress(Exception):
                created.append(await carla.run_task("work", b"", [(carla.user_id, "local")], False))
            await asyncio.sleep(0.01)

    creating = asyncio.create_task(create())
    for _ in range(3):
        await asyncio.sleep(0.3)
        core_process.kill()
        core_process.start()
    await asyncio.sleep(0.5)
    await cancel_and_wait([creating])
    assert len(created) > 10
    for task_id in created:
        await patiently(lambda task_id=task_id: carla.wait_task(task_id, 20))
    assert await carla.read(keys.lock(keys.operator_mq("work", "local"))) is None
    await cancel_and_wait([work.running])
