"""The scheduler for cores without one: here users for whom the core's own was not started."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from engine.colink import keys
from engine.colink.mailbox import encode_push
from engine.core.server import Core
from engine.flows import FlowMessage
from engine.model.ids import new_id
from engine.serving import endpoints, messages
from engine.serving.instances import Instance
from engine.workers import scheduler
from tests.support.flows import Gate
from tests.support.network import Member, members, scheduled, working


@pytest.fixture
async def users(core: Core) -> AsyncIterator[list[Member]]:
    """Two users with workers and without schedulers."""
    async with members(core, 2, operators=()) as users:
        first, second = users
        async with working(first.client, first.catalog), working(second.client, second.catalog):
            yield users


async def test_messages_to_a_serial_instance_are_handled_one_by_one(users: list[Member]) -> None:
    user = users[0]
    async with scheduled(user):
        await endpoints.serve(user.client, "ep", "test.Counter")
        instance = await user.instance("ep")
        replies = await asyncio.gather(*(user.ask(instance, {}) for _ in range(12)))
        assert sorted(reply.data["count"] for reply in replies) == list(range(1, 13))


async def test_messages_go_to_the_endpoints_dispatch_point(users: list[Member]) -> None:
    user = users[0]
    options = {"get_instance": False, "dispatch_point": "gpu_dispatch"}
    async with scheduled(user), working(user.client, user.catalog, **options):
        await endpoints.serve(
            user.client, "ep", "test.Counter", dispatch_point="gpu_dispatch", parallel_dispatch=True
        )
        instance = await user.instance("ep")
        replies = await asyncio.gather(*(user.ask(instance, {}) for _ in range(5)))
        assert {reply.data["count"] for reply in replies} == {1}
        moved = await user.instance("ep", dispatch_point_override="coflows_dispatch")
        assert (await user.ask(moved, {})).data["count"] == 1


async def test_messages_and_replies_travel_between_users(users: list[Member]) -> None:
    server, caller = users
    async with scheduled(server, caller):
        await endpoints.serve(server.client, "below", "test.Counter")
        await endpoints.serve(caller.client, "top", "test.Blocking")
        place = {"user_id": server.user_id, "flow_endpoint": "below"}
        top = await caller.instance("top", config_overrides={"subflows_config": {"below": place}})
        for count in (1, 2, 3):
            assert (await caller.ask(top, {})).data["below"]["count"] == count
        unknown = Instance(new_id(), server.user_id, "below")
        assert "Unknown flow instance" in (await caller.ask(unknown, {})).data["error"]


async def test_what_waits_survives_a_restart(users: list[Member]) -> None:
    user = users[0]
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(user.client, "ep", "test.Gate")
    instance = await user.instance("ep")
    async with scheduled(user):
        asking = [asyncio.create_task(user.ask(instance, {}, timeout=60)) for _ in range(4)]
        await Gate.started.wait()
    asking.append(asyncio.create_task(user.ask(instance, {}, timeout=60)))
    async with scheduled(user):
        Gate.go_on.set()
        replies = await asyncio.gather(*asking)
        assert sorted(reply.data["count"] for reply in replies) == [1, 2, 3, 4, 5]


async def test_a_finished_task_that_nobody_told_of_is_noticed(
    users: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    user = users[0]
    monkeypatch.setattr(scheduler, "_LOOK", 0.2)

    async def deaf(self: scheduler.Scheduler, since: int) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(scheduler.Scheduler, "_follow", deaf)
    async with scheduled(user):
        await endpoints.serve(user.client, "ep", "test.Counter")
        instance = await user.instance("ep")
        replies = await asyncio.gather(*(user.ask(instance, {}) for _ in range(3)))
        assert sorted(reply.data["count"] for reply in replies) == [1, 2, 3]


async def test_a_sender_cannot_choose_which_entry_is_written(users: list[Member]) -> None:
    victim, sender = users
    async with scheduled(victim, sender):
        await sender.client.update("flows:evil:init", b"1")
        both = [(sender.user_id, "initiator"), (victim.user_id, "receiver")]
        for param in (encode_push("x", "flows:evil:init"), b"nonsense"):
            await sender.client.run_task("coflows_push", param, both, True)
        await endpoints.serve(victim.client, "ep", "test.Counter")
        instance = await victim.instance("ep")
        assert (await victim.ask(instance, {})).data["count"] == 1
        message = FlowMessage(data={})
        key = await messages.push(sender.client, victim.user_id, instance.flow_id, message)
        await victim.client.wait_entry(key, 20)
        assert await victim.client.read("flows:evil:init") is None


async def test_the_same_push_twice_counts_once(users: list[Member]) -> None:
    server, caller = users
    async with scheduled(server, caller):
        await endpoints.serve(server.client, "ep", "test.Counter")
        instance = await caller.instance("ep", server.user_id)
        for _ in range(2):
            message = FlowMessage(data={})
            await messages.push(
                caller.client, server.user_id, instance.flow_id, message, message_id="same"
            )
        assert (await caller.ask(instance, {})).data["count"] == 2
        assert await server.client.read(keys.push_message("same")) is not None
