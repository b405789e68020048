"""Deadlines and cancellation inside of flows: who waits for whom, and until when."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.flows import FlowMessage
from engine.model.errors import CallCancelledError
from engine.serving import endpoints, messages
from engine.serving.messages import Answers
from engine.serving.outgoing import pushed
from tests.support import flows
from tests.support.flows import Endless
from tests.support.network import Member, network


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Member]:
    """A user with one worker of each kind, and what Endless tells."""
    Endless.started, Endless.ended = asyncio.Event(), asyncio.Event()
    async with network(core, 1) as users:
        yield users[0]


async def ended() -> None:
    async with asyncio.timeout(20):
        await Endless.ended.wait()


async def test_a_run_that_cancels_its_question_ends_what_was_asked(user: Member) -> None:
    await endpoints.serve(user.client, "below", "test.Endless")
    await endpoints.serve(user.client, "top", "test.Cancelling")
    instance = await user.instance("top")
    reply = await user.ask(instance, {})
    assert reply.data == {"waited": "CallCancelledError"}
    await ended()


async def test_a_run_that_fails_gives_its_questions_up(user: Member) -> None:
    await endpoints.serve(user.client, "below", "test.Endless")
    await endpoints.serve(user.client, "top", "test.Cancelling")
    instance = await user.instance("top")
    reply = await user.ask(instance, {"fail": True})
    assert reply.data["message"] == "after it has asked"
    await ended()


async def test_who_waits_for_what_he_gave_up_is_told(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Endless")
    instance = await user.instance("ep")
    answers = Answers(user.client)
    asked = FlowMessage(data={}, reply_data={"mode": "storage", "user_id": user.user_id})
    question = pushed(user.user_id, "local", instance.flow_id, asked, "q")
    response = keys.push_response(question.key)
    answers.ask(question, 20)
    await Endless.started.wait()
    waiting = asyncio.create_task(answers.wait(response, 20))
    answers.cancel(response)
    answers.cancel(response)
    with pytest.raises(CallCancelledError):
        await waiting
    await ended()
    reply = FlowMessage.deserialize(await user.client.wait_entry(response, 20))
    assert reply.data["error_type"] == "CallCancelledError"
    await answers.close()


async def test_a_composite_does_not_go_on_for_a_caller_who_has_left(user: Member) -> None:
    flows.Gate.started, flows.Gate.go_on = asyncio.Event(), asyncio.Event()
    await endpoints.serve(user.client, "below", "test.Gate")
    await endpoints.serve(user.client, "top", "test.Stepping")
    instance = await user.instance("top")
    asking = asyncio.create_task(user.ask(instance, {}))
    await flows.Gate.started.wait()
    record = await user.record(instance)
    (run,) = record["state"]["pending_runs"].values()
    run["message"]["value"]["reply_data"]["deadline"] = time.time() - 1
    state = keys.mount_field("top", "local", instance.flow_id, "state")
    await user.client.update(state, json.dumps(record).encode())
    flows.Gate.go_on.set()
    reply = await asking
    assert reply.data["error_type"] == "DeadlineExceededError"
    assert (await user.record(instance))["state"]["pending_runs"] == {}
    stored = (await user.client.read_tree("push_tasks")).values()
    assert {"step": 2} not in [FlowMessage.deserialize(payload).data for payload in stored]


async def test_messages_pushed_without_a_deadline_are_run_at_any_time(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter")
    instance = await user.instance("ep")
    await messages.push(user.client, "local", instance.flow_id, FlowMessage(data={}))
    assert (await user.ask(instance, {})).data["count"] == 2
