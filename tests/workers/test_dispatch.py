"""Turns on a real core: what is counted, what is answered, and what can be repeated."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.flows import FlowMessage
from engine.model.errors import DeadlineExceededError
from engine.model.ids import new_id
from engine.model.secrets import resolve, wrap
from engine.serving import endpoints, messages
from engine.serving.instances import Instance
from tests.support.network import ATOMIC, Member, members, network, working

ENVIRONMENT = {"KEY": "secret"}


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Member]:
    """A user with one dispatch worker."""
    options = {"resolve_secrets": lambda value: resolve(value, ENVIRONMENT)}
    async with network(core, 1, get_instance=False, **options) as users:
        yield users[0]


async def served(user: Member, name: str, endpoint: str = "flow", **options: Any) -> Instance:
    """Serve `test.<name>` and return an instance of it."""
    await endpoints.serve(user.client, endpoint, f"test.{name}", **options)
    return await user.instance(endpoint)


async def sent(user: Member, instance: Instance, data: dict[str, Any], **reply: Any) -> str:
    """Send a message with a reply in storage and wait for the reply; return the message's key."""
    reply_data = {"mode": "storage", "user_id": user.user_id, **reply}
    message = FlowMessage(data=data, reply_data=reply_data)
    key = await messages.push(user.client, "local", instance.flow_id, message)
    await user.client.wait_entry(keys.push_response(key), 20)
    return key


@pytest.mark.parametrize("name", ["Counter", "AsyncCounter"])
async def test_a_turn_is_one_record_with_state_and_messages_done(user: Member, name: str) -> None:
    instance = await served(user, name)
    assert await user.record(instance) == {"engine": 1, "state": None, "done": [], "outbox": []}
    first = await sent(user, instance, {})
    second = await sent(user, instance, {})
    record = await user.record(instance)
    assert record["state"] == {"count": 2}
    assert record["done"] == [first, second]
    assert [item["key"] for item in record["outbox"]] == [keys.push_response(second)]


async def test_a_message_that_comes_again_is_answered_again_but_not_counted(user: Member) -> None:
    instance = await served(user, "Counter")
    first = await sent(user, instance, {})
    response = keys.push_response(first)
    await user.client.delete(response)
    await user.dispatch(instance, first)
    assert (await user.entry(response))["data"]["count"] == 1
    await sent(user, instance, {})
    await user.client.delete(response)
    await user.dispatch(instance, first)
    assert await user.client.read(response) is None, "an old one needs nothing any more"
    assert (await user.record(instance))["state"] == {"count": 2}


async def test_pushes_of_a_turn_that_is_repeated_reach_the_receiver_once(user: Member) -> None:
    below = await served(user, "Counter", "below", singleton=True)
    instance = await served(user, "Telling")
    message_key = await sent(user, instance, {})
    for _ in range(2):
        await user.dispatch(instance, message_key)
    assert (await user.ask(below, {})).data["count"] == 3


@pytest.mark.parametrize(
    ("name", "fault", "kind", "text"),
    [
        ("Faulty", "raise", "ValueError", "Faulty: ValueError: no such number (tests/support/flo"),
        ("Faulty", "exit", "RuntimeError", "SystemExit: 3"),
        ("Faulty", "stop", "RuntimeError", "StopIteration"),
        ("Faulty", "state", "UsageError", "flow_state['lock'] cannot be stored"),
        ("Faulty", "message", "UsageError", "cannot be sent"),
        ("AsyncFaulty", "raise", "ValueError", "no such number"),
        ("AsyncFaulty", "exit", "SystemExit", "3"),
        ("AsyncFaulty", "cancel", "CancelledError", ""),
    ],
)
async def test_a_flow_that_fails_is_told_to_the_caller_and_its_turn_undone(
    user: Member, name: str, fault: str, kind: str, text: str
) -> None:
    instance = await served(user, name)
    assert (await user.ask(instance, {})).data == {"runs": 1}
    reply = await user.ask(instance, {"fault": fault})
    assert reply.failed
    assert reply.is_reply
    assert reply.data["error_type"] == kind
    assert text in reply.data["error"]
    assert reply.data["flow_endpoint"] == "flow"
    assert reply.data["flow_id"] == instance.flow_id
    assert reply.data["user_id"] == user.user_id
    assert (await user.ask(instance, {})).data == {"runs": 2}, "the failed run does not count"


async def test_an_async_flow_that_hangs_is_ended_at_the_deadline(user: Member) -> None:
    instance = await served(user, "AsyncFaulty")
    with pytest.raises(DeadlineExceededError, match=instance.flow_id):
        await user.ask(instance, {"fault": "hang"}, timeout=1)
    assert (await user.ask(instance, {})).data == {"runs": 1}


async def test_what_comes_after_its_deadline_is_not_run(user: Member) -> None:
    instance = await served(user, "Counter")
    key = await sent(user, instance, {}, deadline=time.time() - 1)
    reply = await user.entry(keys.push_response(key))
    assert reply["data"]["error_type"] == "DeadlineExceededError"
    assert reply["reply_data"]["status"] == "error"
    assert (await user.ask(instance, {})).data["count"] == 1


async def test_whatever_keeps_a_flow_from_being_built_is_told(user: Member) -> None:
    unknown = await user.ask(Instance(new_id(), "local", "flow"), {})
    assert unknown.data["error_type"] == "NotFoundError"
    assert "Unknown flow instance" in unknown.data["error"]

    instance = await served(user, "Unbuildable")
    reply = await user.ask(instance, {})
    assert reply.data["error_type"] == "PluginError"
    assert "test.Unbuildable cannot be set up: OSError: no disk" in reply.data["error"]

    instance = await served(user, "Counter", "gone")
    class_name = keys.flow("gone", "flow_class_name")
    await user.client.update(class_name, b'"os.system"')
    reply = await user.ask(instance, {})
    assert "There is no flow class os.system" in reply.data["error"]
    await user.client.update(class_name, b'"test.Counter"')

    state = keys.mount_field("gone", "local", instance.flow_id, "state")
    await user.client.update(state, b"cos\nsystem\n(S'false'\ntR.")
    reply = await user.ask(instance, {})
    assert "was not written by this engine" in reply.data["error"]


async def test_a_deleted_instance_is_unknown_to_a_worker_that_knew_it(user: Member) -> None:
    instance = await served(user, "Counter")
    assert (await user.ask(instance, {})).data["count"] == 1
    await endpoints.delete(user.client, "flow")
    assert "Unknown flow instance" in (await user.ask(instance, {})).data["error"]


async def test_no_message_that_cannot_be_read_stops_the_worker(user: Member) -> None:
    instance = await served(user, "Counter")
    await user.client.update("push_tasks:odd:msg", b"[]")
    for key in ("push_tasks:odd:msg", "push_tasks:missing:msg"):
        await user.dispatch(instance, key)
    me = [(user.user_id, "local")]
    task_id = await user.client.run_task("coflows_dispatch", b"?", me, False)
    await user.client.wait_task(task_id, 20)
    assert (await user.ask(instance, {})).data["count"] == 1


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "storage", "user_id": "../../etc"},
        {"mode": "push", "user_id": 7, "flow_id": "x"},
        {"mode": "nonsense"},
        {},
    ],
)
async def test_a_reply_that_nobody_can_get_is_dropped(user: Member, asked: dict[str, Any]) -> None:
    instance = await served(user, "Counter")
    message = FlowMessage(data={}, reply_data=asked)
    await messages.push(user.client, "local", instance.flow_id, message)
    assert (await user.ask(instance, {})).data["count"] == 2


async def test_a_reply_goes_nowhere_but_to_its_own_message(user: Member) -> None:
    instance = await served(user, "Counter")
    await user.client.update("flows:x:init", b"1")
    key = await sent(user, instance, {}, input_msg_path="flows:x:init")
    assert await user.client.read("flows:x:response") is None
    assert (await user.entry(keys.push_response(key)))["data"]["count"] == 1


@pytest.mark.parametrize(
    ("name", "answer"), [("Blocking", {"count": 1}), ("Awaiting", [{"count": 1}] * 3)]
)
async def test_waiting_for_a_subflow_of_the_same_worker_does_not_block_it(
    user: Member, name: str, answer: Any
) -> None:
    await endpoints.serve(user.client, "below", "test.Counter", parallel_dispatch=True)
    instance = await served(user, name, parallel_dispatch=True)
    replies = await asyncio.gather(*(user.ask(instance, {}) for _ in range(5)))
    for reply in replies:
        below = reply.data["below"]
        answers = below if isinstance(below, list) else [below]
        assert [{"count": each["count"]} for each in answers] == (
            answer if isinstance(answer, list) else [answer]
        )


async def test_a_subflow_that_fails_fails_the_caller_with_its_reason(user: Member) -> None:
    await endpoints.serve(user.client, "below", "test.Faulty")
    instance = await served(user, "Blocking")
    reply = await user.ask(instance, {"fault": "raise"})
    assert reply.data["error_type"] == "FlowFailedError"
    assert "Faulty: ValueError: no such number" in reply.data["error"]


async def test_a_parallel_flow_keeps_no_state(user: Member) -> None:
    instance = await served(user, "Counter", parallel_dispatch=True)
    replies = await asyncio.gather(*(user.ask(instance, {}) for _ in range(5)))
    assert {reply.data["count"] for reply in replies} == {1}
    assert (await user.record(instance))["state"] is None


async def test_secrets_reach_the_flow_and_nothing_else(user: Member) -> None:
    await endpoints.serve(user.client, "flow", "test.Secretive")
    expression = "${oc.env:KEY}"
    instance = await user.instance("flow", config_overrides={"key": wrap(expression)})
    assert (await user.ask(instance, {})).data == {"length": len("secret")}
    assert not [
        key for key, value in (await user.client.read_tree("")).items() if b"secret" in value
    ]
    missing = await user.instance("flow", config_overrides={"key": wrap("${oc.env:NONE}")})
    assert "NONE is not set" in (await user.ask(missing, {})).data["error"]


async def test_a_worker_that_is_stopped_finishes_what_runs(core: Core) -> None:
    async with members(core, 1) as users:
        user, stop = users[0], asyncio.Event()
        await endpoints.serve(user.client, "below", "test.Counter")
        async with working(user.client, user.catalog, get_instance=False, stop=stop):
            instance = await served(user, "Counter")
            asking = asyncio.create_task(user.ask(instance, {}))
            assert (await asking).data["count"] == 1
            stop.set()
        waiting = asyncio.create_task(user.ask(instance, {}))
        async with working(user.client, user.catalog, get_instance=False):
            assert (await waiting).data["count"] == 2


async def test_the_number_is_reversed(user: Member) -> None:
    await endpoints.serve(user.client, "atomic", ATOMIC)
    instance = await user.instance("atomic")
    assert (await user.ask(instance, {"number": 1234})).data == {"output_number": 4321}
