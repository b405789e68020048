"""`kill -9` at every commit point: no message is lost, no turn counts twice, the order is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from engine.colink.client import Connections
from engine.core.server import Core
from engine.core.settings import Settings
from engine.flows import FlowMessage
from engine.serving import endpoints, messages
from engine.serving.instances import Instance
from tests.support.core import CoreProcess, core_process, new_user  # noqa: F401
from tests.support.flows import Gate
from tests.support.network import Member, catalog, members, scheduled, working
from tests.support.processes import worker_process

POINTS = [
    *(("extension", number) for number in range(1, 4)),
    *(("plain", number) for number in range(1, 6)),
]
"""The writing calls of a turn: one with all entries, or one for each, then the tasks."""


@asynccontextmanager
async def user_on(folder: Path, protocol: str) -> AsyncIterator[Member]:
    """Yield a user without workers; with `plain`, the scheduler is an operator, too."""
    core = Core(Settings(home=folder / "core", port=0))
    await core.start()
    try:
        async with AsyncExitStack() as stack:
            plain = protocol == "plain"
            operators = () if plain else ("coflows_scheduler",)
            (user,) = await stack.enter_async_context(members(core, 1, operators))
            if plain:
                await stack.enter_async_context(scheduled(user))
            yield user
    finally:
        await core.stop()


@pytest.mark.parametrize("die", ["before", "after"])
@pytest.mark.parametrize(("protocol", "number"), POINTS)
async def test_a_worker_killed_at_a_commit_point_loses_and_doubles_nothing(
    tmp_path: Path, protocol: str, number: int, die: str
) -> None:
    async with user_on(tmp_path, protocol) as user:
        await endpoints.serve(user.client, "below", "test.Counter", singleton=True)
        await endpoints.serve(user.client, "ep", "test.Tallying")
        below, instance = await user.instance("below"), await user.instance("ep")
        environment = {"DIE_AT": str(number), "DIE": die}
        if protocol == "plain":
            environment["PLAIN"] = "1"
        async with worker_process(user, **environment) as process:
            asking = asyncio.create_task(user.ask(instance, {}, timeout=60))
            async with asyncio.timeout(30):
                assert await process.wait() < 0, "it died of the signal"
        async with working(user.client, user.catalog, get_instance=False):
            assert (await asking).data["count"] == 1
            assert (await user.ask(instance, {})).data["count"] == 2
            assert await settled(user, below) == 2, "each turn told its subflow once"


async def settled(user: Member, below: Instance) -> int:
    """Return how many messages a Counter got, once all that were sent to it are handled."""
    return int((await user.ask(below, {})).data["count"]) - 1


@asynccontextmanager
async def scheduled_by_hand(core: Core) -> AsyncIterator[Member]:
    """Yield a user with a worker, whose scheduler the test starts and kills."""
    async with AsyncExitStack() as stack:
        (user,) = await stack.enter_async_context(members(core, 1, operators=()))
        await stack.enter_async_context(working(user.client, user.catalog, get_instance=False))
        yield user


async def diary(user: Member) -> Instance:
    await endpoints.serve(user.client, "ep", "test.Diary")
    return await user.instance("ep")


async def write(user: Member, instance: Instance, page: int, **data: bool) -> None:
    """Send a page that nobody waits for."""
    message = FlowMessage(data={"page": page, **data})
    await messages.push(user.client, "local", instance.flow_id, message)


async def test_a_killed_scheduler_is_followed_by_one_that_keeps_the_order(core: Core) -> None:
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    async with scheduled_by_hand(core) as user:
        instance = await diary(user)
        async with worker_process(user, "scheduler") as process:
            await write(user, instance, 0, wait=True)
            await Gate.started.wait()
            for page in range(1, 6):
                await write(user, instance, page)
            process.kill()
            await process.wait()
        for page in range(6, 9):
            await write(user, instance, page)
        async with worker_process(user, "scheduler"):
            Gate.go_on.set()
            reply = await user.ask(instance, {"page": 9}, timeout=60)
            assert reply.data["pages"] == list(range(10))


async def test_a_scheduler_killed_while_nothing_is_held_up_loses_nothing(core: Core) -> None:
    async with scheduled_by_hand(core) as user:
        instance = await diary(user)
        for round_ in range(3):
            async with worker_process(user, "scheduler") as process:
                for page in range(round_ * 10, round_ * 10 + 10):
                    await write(user, instance, page)
                process.kill()
        async with worker_process(user, "scheduler"):
            reply = await user.ask(instance, {"page": 30}, timeout=60)
            assert reply.data["pages"] == list(range(31))


async def test_a_killed_core_rebuilds_its_mailboxes_in_order(
    core_process: CoreProcess,  # noqa: F811
) -> None:
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    async with Connections() as connections:
        token, _ = await new_user(core_process, ("coflows_scheduler",))
        user = Member(connections.client(core_process.address, token), catalog())
        async with working(user.client, user.catalog, get_instance=False):
            instance = await diary(user)
            await write(user, instance, 0, wait=True)
            await Gate.started.wait()
            for page in range(1, 6):
                await write(user, instance, page)
            core_process.kill()
            core_process.start()
            for page in range(6, 9):
                await write(user, instance, page)
            Gate.go_on.set()
            reply = await user.ask(instance, {"page": 9}, timeout=60)
            assert reply.data["pages"] == list(range(10))


async def test_a_message_that_kills_its_workers_is_parked_in_the_end(core: Core) -> None:
    async with members(core, 1) as (user,):
        await endpoints.serve(user.client, "ep", "test.Stuck")
        instance = await user.instance("ep")
        asking = asyncio.create_task(user.ask(instance, {}, timeout=100))
        for _ in range(6):
            async with worker_process(user, STUCK="1") as process:
                assert process.stdout is not None
                async with asyncio.timeout(30):
                    await process.stdout.readline()
                process.kill()
        async with working(user.client, user.catalog, get_instance=False):
            reply = await asking
            assert reply.failed
            assert "died 5 times" in reply.data["error"]
            assert (await user.ask(instance, {})).data["count"] == 1
