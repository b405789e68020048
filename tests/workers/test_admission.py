"""What schedulers let in, and what not: the core's own one, and the one for other cores."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.colink import keys, wire
from engine.colink.mailbox import CANCEL, encode_push
from engine.core.server import Core
from engine.core.settings import Settings
from engine.flows import FlowMessage
from engine.model.errors import (
    AccessDeniedError,
    BusyError,
    DeadlineExceededError,
    FlowInstanceException,
)
from engine.model.ids import new_id
from engine.serving import dead_letters, endpoints, messages
from engine.serving.audit import Audit
from engine.serving.instances import Instance
from engine.serving.messages import Answers
from engine.serving.outgoing import pushed
from tests.support.flows import Endless, Gate
from tests.support.network import Member, members, scheduled, working


@dataclass
class Neighbours:
    """Users with workers, and what their schedulers and workers told of refused attempts."""

    users: list[Member]
    told: list[Mapping[str, Any]]

    def refusals(self) -> list[tuple[str, str, str]]:
        """Return what was told: who was refused, at what, and with which error."""
        lines = [line["audit"] for line in self.told]
        return [(line["sender"], line["resource"], line["type"]) for line in lines]


@pytest.fixture(params=["the core's scheduler", "an operator"])
async def three(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Neighbours]:
    """A server, a friend of his and a stranger, on a core with or without a scheduler."""
    told: list[Mapping[str, Any]] = []
    audit = Audit(told.append)
    core = Core(Settings(home=tmp_path / "core", port=0), audit)
    await core.start()
    inside = request.param == "the core's scheduler"
    try:
        async with AsyncExitStack() as stack:
            operators = ("coflows_scheduler",) if inside else ()
            users = await stack.enter_async_context(members(core, 3, operators))
            if not inside:
                await stack.enter_async_context(scheduled(*users, audit=audit))
            for user in users:
                await stack.enter_async_context(working(user.client, user.catalog, audit=audit))
            yield Neighbours(users, told)
    finally:
        await core.stop()


async def policy(server: Member, endpoint: str, **values: Any) -> None:
    """Give an endpoint a record with a policy, as the engine writes it."""
    await server.client.update(keys.engine_flow(endpoint), json.dumps(values).encode())


def claiming(user_id: str, reply_data: Mapping[str, Any] | None = None) -> FlowMessage:
    return FlowMessage(data={}, user_id=user_id, reply_data=dict(reply_data or {}))


# --- access ---------------------------------------------------------------------------------------


async def test_who_may_get_instances_may_not_always_send(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter", singleton=True)
    allow = {"get_instance": ["any"], "send": [friend.user_id]}
    await policy(server, "ep", allow=allow)
    instance = await friend.instance("ep", server.user_id)
    assert (await friend.ask(instance, {})).data["count"] == 1
    same = await stranger.instance("ep", server.user_id)
    assert same.flow_id == instance.flow_id
    reply = await stranger.ask(same, {})
    assert reply.data["error_type"] == "AccessDeniedError"
    with pytest.raises(AccessDeniedError, match="is not allowed to send"):
        reply.raise_for_error()
    assert three.refusals() == [(stranger.user_id, "ep", "AccessDeniedError")]
    assert (await friend.ask(instance, {})).data["count"] == 2


async def test_an_instance_is_its_holders_own(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    instance = await friend.instance("ep", server.user_id)
    stolen = await stranger.ask(instance, {})
    assert "is not one of the user" in stolen.data["error"]
    own = Instance(instance.flow_id, "local", "ep")
    assert (await server.ask(own, {})).data["count"] == 1, "the server owns it"


async def test_a_refused_get_instance_is_told_in_the_audit(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    await policy(server, "ep", allow={"get_instance": [friend.user_id], "send": ["any"]})
    await friend.instance("ep", server.user_id)
    with pytest.raises(FlowInstanceException, match="is not allowed to use it"):
        await stranger.instance("ep", server.user_id)
    assert three.refusals() == [(stranger.user_id, "ep", "AccessDeniedError")]


async def test_a_message_is_from_whoever_brings_it(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    await policy(server, "ep", allow=[friend.user_id])
    instance = await friend.instance("ep", server.user_id)
    forged = claiming(friend.user_id)
    key = await messages.push(stranger.client, server.user_id, instance.flow_id, forged)
    unsigned = FlowMessage(data={})
    ours = await messages.push(friend.client, server.user_id, instance.flow_id, unsigned)
    assert (await friend.ask(instance, {})).data["count"] == 2, "the forged one did not count"
    assert await server.client.read(key) is None, "and nothing of it is kept"
    stored = FlowMessage.deserialize(await server.client.read(ours) or b"")
    assert stored.user_id == friend.user_id, "who sends without a name gets his own"
    assert (stranger.user_id, "ep", "AccessDeniedError") in three.refusals()


async def test_a_reply_counts_only_from_whom_it_was_asked(three: Neighbours) -> None:
    server, friend, stranger = three.users
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "ep", "test.Gate")
    instance = await friend.instance("ep", server.user_id)
    asking = asyncio.create_task(friend.ask(instance, {}))
    await Gate.started.wait()
    tree = await friend.client.read_tree("push_tasks")
    (question,) = [key for key in tree if key.endswith(":msg")]
    response = keys.push_response(question)
    forged = FlowMessage(data={"count": 99}, is_reply=True, user_id=stranger.user_id)
    await stranger.client.update(response, forged.serialize())
    both = [(stranger.user_id, "initiator"), (friend.user_id, "receiver")]
    task = await stranger.client.run_task(
        "coflows_push", encode_push("storage", response), both, True
    )
    await stranger.client.wait_task(task, 20)
    await until_refused(three, stranger)
    Gate.go_on.set()
    assert (await asking).data["count"] == 1


async def until_refused(three: Neighbours, user: Member) -> None:
    """Wait until something of a user's was refused."""
    async with asyncio.timeout(20):
        while not [who for who, _, _ in three.refusals() if who == user.user_id]:
            await asyncio.sleep(0.01)


async def test_a_composite_takes_replies_of_its_subflows_only(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    await policy(server, "ep", allow=[friend.user_id])
    instance = await friend.instance("ep", server.user_id)
    forged = FlowMessage(data={}, is_reply=True, user_id=stranger.user_id)
    await messages.push(stranger.client, server.user_id, instance.flow_id, forged)
    assert (await friend.ask(instance, {})).data["count"] == 1
    assert (stranger.user_id, "ep", "AccessDeniedError") in three.refusals()
    assert await dead_letters.letters(server.client) == []


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"message_type": "other"}', b"\xff"])
async def test_what_is_no_message_is_not_kept(three: Neighbours, payload: bytes) -> None:
    server, friend, _ = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    instance = await friend.instance("ep", server.user_id)
    key = keys.push_message(new_id())
    await friend.client.update(key, payload)
    both = [(friend.user_id, "initiator"), (server.user_id, "receiver")]
    await friend.client.run_task("coflows_push", encode_push(instance.flow_id, key), both, True)
    assert (await friend.ask(instance, {})).data["count"] == 1
    assert await server.client.read(key) is None


async def test_nobody_can_have_a_third_user_told_of_his_refusal(three: Neighbours) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter", singleton=True)
    await policy(server, "ep", allow=[friend.user_id])
    instance = await friend.instance("ep", server.user_id)
    reply_to = {"mode": "push", "user_id": friend.user_id, "flow_id": new_id()}
    message = claiming(stranger.user_id, reply_to)
    await messages.push(stranger.client, server.user_id, instance.flow_id, message)
    await until_refused(three, stranger)
    assert (await friend.ask(instance, {})).data["count"] == 1
    assert not await dead_letters.letters(friend.client)


async def test_a_message_of_somebody_cannot_be_given_to_another_instance(
    three: Neighbours,
) -> None:
    server, friend, stranger = three.users
    await endpoints.serve(server.client, "ep", "test.Counter")
    instance = await friend.instance("ep", server.user_id)
    other = await stranger.instance("ep", server.user_id)
    message = claiming(friend.user_id)
    key = await messages.push(friend.client, server.user_id, instance.flow_id, message)
    await server.client.wait_entry(key, 20)
    await stranger.client.update(key, claiming(stranger.user_id).serialize())
    both = [(stranger.user_id, "initiator"), (server.user_id, "receiver")]
    await stranger.client.run_task("coflows_push", encode_push(other.flow_id, key), both, True)
    assert (await stranger.ask(other, {})).data["count"] == 1
    assert (await friend.ask(instance, {})).data["count"] == 2


# --- full mailboxes -------------------------------------------------------------------------------


async def test_a_full_mailbox_says_when_to_try_again(three: Neighbours) -> None:
    server, friend, _ = three.users
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "ep", "test.Gate")
    await policy(server, "ep", mailbox_limit=2)
    instance = await friend.instance("ep", server.user_id)
    first = asyncio.create_task(friend.ask(instance, {}))
    await Gate.started.wait()
    key = await messages.push(
        friend.client, server.user_id, instance.flow_id, claiming(friend.user_id)
    )
    await server.client.wait_entry(key, 20)
    busy = await friend.ask(instance, {})
    assert busy.data["retry_after"] > 0
    with pytest.raises(BusyError, match="2 messages are not finished") as caught:
        busy.raise_for_error()
    assert caught.value.retry_after == busy.data["retry_after"]
    assert three.refusals() == [(friend.user_id, "ep", "BusyError")]
    Gate.go_on.set()
    assert (await first).data["count"] == 1
    assert (await friend.ask(instance, {})).data["count"] == 3


# --- giving up ------------------------------------------------------------------------------------


async def test_a_call_given_up_ends_its_run_and_counts_nothing(three: Neighbours) -> None:
    server, friend, _ = three.users
    Endless.started, Endless.ended = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "ep", "test.Endless")
    instance = await friend.instance("ep", server.user_id)
    asking = asyncio.create_task(friend.ask(instance, {}))
    await Endless.started.wait()
    asking.cancel()
    async with asyncio.timeout(20):
        await Endless.ended.wait()
    assert (await friend.ask(instance, {"quick": True})).data["runs"] == 1
    assert await dead_letters.letters(server.client) == []


async def test_giving_up_reaches_the_subflows(three: Neighbours) -> None:
    server, friend, third = three.users
    Endless.started, Endless.ended = asyncio.Event(), asyncio.Event()
    await endpoints.serve(third.client, "below", "test.Endless")
    place = {"below": {"user_id": third.user_id, "flow_endpoint": "below"}}
    for top in ("test.Awaiting", "test.Blocking"):
        Endless.started.clear()
        Endless.ended.clear()
        await endpoints.serve(server.client, top, top)
        await policy(server, top, subflows=place)
        instance = await friend.instance(top, server.user_id)
        asking = asyncio.create_task(friend.ask(instance, {}))
        await Endless.started.wait()
        asking.cancel()
        async with asyncio.timeout(20):
            await Endless.ended.wait()


async def test_a_composite_whose_caller_left_ends_with_the_step_it_is_at(
    three: Neighbours,
) -> None:
    server, friend, _ = three.users
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "below", "test.Gate", singleton=True)
    await endpoints.serve(server.client, "top", "test.Stepping")
    instance = await friend.instance("top", server.user_id)
    asking = asyncio.create_task(friend.ask(instance, {}))
    await Gate.started.wait()
    asking.cancel()
    await server.client.wait_task(await until_cancelled(server), 20)
    assert (await friend.ask(instance, {"look": True})).data["waiting"] == 1
    Gate.go_on.set()
    async with asyncio.timeout(20):
        while (await friend.ask(instance, {"look": True})).data["waiting"]:
            pass
    below = await server.instance("below")
    assert (await server.ask(below, {})).data["count"] == 2, "there was no second step"


async def test_what_still_waits_is_not_run_once_it_is_given_up(three: Neighbours) -> None:
    server, friend, _ = three.users
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "ep", "test.Gate")
    instance = await friend.instance("ep", server.user_id)
    first = asyncio.create_task(friend.ask(instance, {}))
    await Gate.started.wait()
    answers = Answers(friend.client)
    question = pushed(
        friend.user_id,
        server.user_id,
        instance.flow_id,
        claiming(friend.user_id, {"mode": "storage", "user_id": friend.user_id}),
        new_id(),
    )
    answers.ask(question, 20)
    await server.client.wait_entry(question.key, 20)
    answers.cancel(keys.push_response(question.key))
    cancellation = await until_cancelled(server)
    await server.client.wait_task(cancellation, 20)
    Gate.go_on.set()
    assert (await first).data["count"] == 1
    assert (await friend.ask(instance, {})).data["count"] == 2, "the one given up did not run"
    await answers.close()


async def until_cancelled(user: Member) -> str:
    """Wait until a cancellation reaches a user, and return its task's id."""
    latest = keys.protocol_latest("coflows_push", "started", "receiver")
    async with asyncio.timeout(20):
        async for delivery in user.client.changes(latest):
            task = await user.client.read_task(wire.Task.FromString(delivery.payload).task_id)
            if task is not None and CANCEL.encode() in task.protocol_param:
                return str(task.task_id)
    raise AssertionError


async def test_nobody_gives_up_what_others_asked(three: Neighbours) -> None:
    server, friend, stranger = three.users
    Gate.started, Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "ep", "test.Gate")
    instance = await friend.instance("ep", server.user_id)
    asking = asyncio.create_task(friend.ask(instance, {}))
    await Gate.started.wait()
    (key,) = await server.client.read_tree("push_tasks")
    evil = FlowMessage(
        data={"message_key": key, "flow_id": instance.flow_id}, user_id=stranger.user_id
    )
    await messages.push(stranger.client, server.user_id, CANCEL, evil)
    await until_refused(three, stranger)
    Gate.go_on.set()
    assert (await asking).data["count"] == 1


async def test_a_deadline_ends_the_subflows_run_too(three: Neighbours) -> None:
    server, friend, _ = three.users
    Endless.started, Endless.ended = asyncio.Event(), asyncio.Event()
    await endpoints.serve(server.client, "below", "test.Endless")
    await endpoints.serve(server.client, "top", "test.Blocking")
    instance = await friend.instance("top", server.user_id)
    with pytest.raises(DeadlineExceededError):
        await friend.ask(instance, {}, timeout=1)
    async with asyncio.timeout(20):
        await Endless.ended.wait()
