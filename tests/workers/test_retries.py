"""Turns that fail: tried again as the endpoint says; in the end parked, and the caller told."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.flows import FlowMessage
from engine.model.errors import DeadlineExceededError, NotFoundError, UsageError
from engine.model.ids import new_id
from engine.serving import dead_letters, endpoints, messages
from engine.serving.dead_letters import DeadLetter
from engine.serving.instances import Instance
from tests.support.flows import Endless
from tests.support.network import Member, network


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Member]:
    """A user with one worker of each kind."""
    async with network(core, 1) as users:
        yield users[0]


async def served(user: Member, name: str, endpoint: str = "ep", **policy: Any) -> Instance:
    """Serve `test.<name>` under a policy such as `retries`, and return an instance of it."""
    await endpoints.serve(user.client, endpoint, f"test.{name}")
    await user.client.update(keys.engine_flow(endpoint), json.dumps(policy).encode())
    return await user.instance(endpoint)


async def letters(user: Member) -> list[DeadLetter]:
    return await dead_letters.letters(user.client)


@pytest.mark.parametrize("name", ["Flaky", "AsyncFlaky"])
async def test_a_turn_that_fails_is_tried_again_from_the_state_as_before(
    user: Member, name: str
) -> None:
    instance = await served(user, name, retries={"attempts": 3, "backoff": 0.01})
    assert (await user.ask(instance, {"failures": 2})).data["count"] == 1
    assert (await user.ask(instance, {})).data["count"] == 2
    assert await letters(user) == []


async def test_what_fails_for_good_is_parked_and_the_caller_is_told(user: Member) -> None:
    instance = await served(user, "Flaky", retries={"attempts": 2, "backoff": 0.01})
    reply = await user.ask(instance, {"failures": 5})
    assert reply.failed
    assert reply.data["message"] == "attempt 2"
    (letter,) = await letters(user)
    assert (letter.reason, letter.attempts, letter.flow_endpoint) == ("failed", 2, "ep")
    assert letter.error["message"] == "attempt 2"
    assert "ValueError: attempt 2" in letter.traceback
    assert json.loads(letter.message)["data"] == {"failures": 5}
    assert "Traceback" not in json.dumps(reply.data), "which is for the owner alone"


async def test_without_retries_the_error_reply_goes_out_at_once(user: Member) -> None:
    instance = await served(user, "Flaky")
    assert (await user.ask(instance, {"failures": 1})).data["message"] == "attempt 1"
    assert (await letters(user))[0].attempts == 1


async def test_no_attempt_begins_beyond_the_deadline(user: Member) -> None:
    instance = await served(user, "Flaky", retries={"attempts": 9, "backoff": 30})
    reply = await user.ask(instance, {"failures": 5}, timeout=10)
    assert reply.data["message"] == "attempt 1"


async def test_others_run_while_a_message_waits_for_its_next_attempt(user: Member) -> None:
    instance = await served(user, "Flaky", retries={"attempts": 2, "backoff": 60})
    other = await served(user, "Counter", "other")
    asking = asyncio.create_task(user.ask(instance, {"failures": 1}, timeout=120))
    try:
        assert (await user.ask(other, {})).data["count"] == 1
        assert not asking.done()
    finally:
        asking.cancel()


async def test_a_dead_letter_is_retried_and_leaves_once_it_has_served(user: Member) -> None:
    instance = await served(user, "Faulty")
    await user.ask(instance, {"fault": "raise"})
    (letter,) = await letters(user)
    again = await dead_letters.retry(user.client, letter.id, 20)
    assert again is not None
    assert again.failed
    (other,) = await letters(user)
    assert other.id != letter.id, "the new attempt has a letter of its own"
    class_name = keys.flow("ep", "flow_class_name")
    await user.client.update(class_name, b'"test.Counter"')
    again = await dead_letters.retry(user.client, other.id, 20)
    assert again is not None
    assert again.data["count"] == 1
    assert await letters(user) == []
    with pytest.raises(NotFoundError, match="no dead letter"):
        await dead_letters.retry(user.client, other.id, 20)


async def test_a_letter_whose_retry_is_not_answered_in_time_stays(user: Member) -> None:
    Endless.started, Endless.ended = asyncio.Event(), asyncio.Event()
    instance = await served(user, "Endless")
    letter = DeadLetter("x", "failed", "push_tasks:x:msg", instance.flow_id, {}, message=question())
    await user.client.update_many(letter.entry())
    with pytest.raises(DeadlineExceededError):
        await dead_letters.retry(user.client, "x", 0.5)
    assert "x" in {letter.id for letter in await letters(user)}


def question(**data: Any) -> str:
    return FlowMessage(data=data).serialize().decode()


async def test_what_cannot_be_read_is_parked_and_only_dropped(user: Member) -> None:
    instance = await served(user, "Counter")
    await user.client.update("push_tasks:odd:msg", b"[]")
    await user.dispatch(instance, "push_tasks:odd:msg")
    (letter,) = await letters(user)
    assert (letter.id, letter.reason, letter.message) == ("odd", "unreadable", "[]")
    with pytest.raises(UsageError, match="holds nothing that could be sent"):
        await dead_letters.retry(user.client, "odd", 5)
    await dead_letters.drop(user.client, "odd")
    assert await letters(user) == []


async def test_a_message_to_an_unknown_instance_is_parked_if_nobody_can_be_told(
    user: Member,
) -> None:
    unknown = new_id()
    assert (
        "Unknown flow instance"
        in (await user.ask(Instance(unknown, "local", "ep"), {})).data["error"]
    )
    assert await letters(user) == []
    key = await messages.push(user.client, "local", unknown, FlowMessage(data={}))
    # Messages to one instance are handled one by one, so that this answer comes after it.
    await user.ask(Instance(unknown, "local", "ep"), {})
    (letter,) = await letters(user)
    assert (letter.message_key, letter.reason) == (key, "refused")


async def test_a_class_that_cannot_be_used_makes_a_letter(user: Member) -> None:
    instance = await served(user, "Unbuildable")
    assert (await user.ask(instance, {})).failed
    (letter,) = await letters(user)
    assert letter.error["error_type"] == "PluginError"


async def test_a_reply_that_cannot_be_brought_is_parked(user: Member) -> None:
    instance = await served(user, "Counter")
    nobody = "02" + "ab" * 32
    asked = {"mode": "push", "user_id": nobody, "flow_id": "f"}
    message = FlowMessage(data={}, reply_data=asked)
    key = await messages.push(user.client, "local", instance.flow_id, message)
    assert (await user.ask(instance, {})).data["count"] == 2
    (letter,) = await letters(user)
    assert (letter.reason, letter.user_id, letter.flow_id) == ("undeliverable", nobody, "f")
    assert json.loads(letter.message)["data"]["count"] == 1
    assert key != letter.message_key


async def test_a_subflow_of_nobody_is_told_to_the_caller(user: Member) -> None:
    nobody = "02" + "ab" * 32
    await endpoints.serve(user.client, "below", "test.Counter")
    instance = await served(user, "Blocking")
    config_key = keys.mount_field("ep", "local", instance.flow_id, "config_overrides")
    config = await user.entry(config_key)
    config["subflows_config"]["below"]["user_id"] = nobody
    await user.client.update(config_key, json.dumps(config).encode())
    reply = await user.ask(instance, {})
    assert reply.failed
    assert "is not on this core" in reply.data["error"]


async def test_only_the_newest_letters_are_kept(
    user: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "KEPT", 2)
    for number in range(4):
        letter = DeadLetter(f"l{number}", "failed", "k", "f", {}, time=float(number))
        await user.client.update_many(letter.entry())
    await dead_letters.prune(user.client)
    assert [letter.id for letter in await letters(user)] == ["l2", "l3"]


async def test_an_error_reply_tells_the_way_down_to_where_it_failed(core: Core) -> None:
    async with network(core, 3) as (first, second, third):
        await endpoints.serve(third.client, "bottom", "test.Faulty")
        await endpoints.serve(second.client, "middle", "test.Blocking")
        await endpoints.serve(first.client, "top", "test.Blocking")
        middle = {"below": {"user_id": third.user_id, "flow_endpoint": "bottom"}}
        top = {
            "below": {
                "user_id": second.user_id,
                "flow_endpoint": "middle",
                "subflows_config": middle,
            }
        }
        await endpoints_open(second, "middle", middle)
        del top["below"]["subflows_config"]
        instance = await first.instance("top", config_overrides={"subflows_config": top})
        reply = await first.ask(instance, {"fault": "raise"})
        assert [(step["user_id"], step["flow_endpoint"]) for step in reply.data["path"]] == [
            (first.user_id, "top"),
            (second.user_id, "middle"),
            (third.user_id, "bottom"),
        ]
        assert reply.data["cause"] == {"error_type": "ValueError", "message": "no such number"}
        assert "no such number" in reply.data["error"]
        assert "Traceback" not in json.dumps(reply.data)


async def endpoints_open(user: Member, endpoint: str, subflows: Any) -> None:
    """Let an endpoint of a user have its subflows somewhere."""
    record = json.dumps({"subflows": subflows}).encode()
    await user.client.update(keys.engine_flow(endpoint), record)
