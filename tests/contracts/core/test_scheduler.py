"""§9.5, §9.7, §9.9: the scheduler inside the core, with peers inside and outside of it."""

import asyncio
import json

import pytest

from engine.colink import keys, wire
from engine.colink.mailbox import decode_dispatch, encode_push
from engine.core.server import Core
from engine.model.message import FlowMessage
from tests.support.stock import Messages, VtP2pCtx, blocking, sdk, stock_user

SCHEDULER = "coflows_scheduler"
pytestmark = pytest.mark.ours  # upstream's is a package of its own


class Pusher:
    """What a test does with a user who has flows."""

    def __init__(self, client) -> None:
        self.client = client
        self.user_id = client.get_user_id()

    async def serve(self, flow_id: str, *, parallel: bool = False, point: str = "coflows_dispatch"):
        """Write what the scheduler reads of an instance."""
        entries = {
            keys.instance_metadata(flow_id): json.dumps(
                {"flow_endpoint": f"ep_{flow_id}", "user_id": "local"}
            ),
            keys.flow(f"ep_{flow_id}", "parallel_dispatch"): int(parallel),
            keys.flow(f"ep_{flow_id}", "default_dispatch_point"): point,
        }
        for name, value in entries.items():
            await blocking(self.client.update_entry, name, value)

    async def push(self, receiver: "Pusher", flow_id: str, message: str, kind: str = "msg") -> str:
        """Push a message, and return the push task's id."""
        key = f"push_tasks:{message}:{kind}"
        await blocking(self.client.update_entry, key, self.message(message))
        return await self.task(receiver, encode_push(flow_id, key))

    def message(self, name: str) -> bytes:
        """Return the bytes of the message that `push` sends under a name, the same each time."""
        now = "2026-01-01 00:00:00.000000000"
        return FlowMessage(
            data={}, message_id=name, created_at=now, user_id=self.user_id
        ).serialize()

    async def task(self, receiver: "Pusher", param: bytes) -> str:
        roles = {receiver.user_id: "receiver"}
        if receiver is not self:
            roles = {self.user_id: "initiator"} | roles
        participants = [sdk.Participant(user_id=u, role=role) for u, role in roles.items()]
        return await blocking(self.client.run_task, "coflows_push", param, participants, True)

    async def dispatches(self, point: str = "coflows_dispatch") -> list[tuple[str, list[str]]]:
        """Return flow ids and messages of the started dispatch tasks."""
        found = []
        for task_id in await self.started(f"_internal:protocols:{point}:local:started"):
            flow_id, message_keys = decode_dispatch((await self.record(task_id)).protocol_param)
            found.append((flow_id, [key.split(":")[1] for key in message_keys]))
        return found

    async def finish_first(self, point: str = "coflows_dispatch") -> None:
        task_ids = await self.started(f"_internal:protocols:{point}:local:started")
        await blocking(self.client.finish_task, task_ids[0])

    async def started(self, name: str) -> list[str]:
        payload = await blocking(self.client.read_entry, name)
        listed = wire.CoLinkInternalTaskIDList.FromString(payload or b"")
        return [one.task_id for one in listed.task_ids_with_key_paths]

    async def record(self, task_id: str) -> wire.Task:
        payload = await blocking(self.client.read_entry, keys.task(task_id))
        return wire.Task.FromString(payload)

    async def read(self, name: str) -> bytes | None:
        return await blocking(self.client.read_entry, name)


@pytest.fixture
async def ann(core: Core) -> Pusher:
    return Pusher(await stock_user(core, SCHEDULER))


@pytest.fixture
async def ben(core: Core) -> Pusher:
    return Pusher(await stock_user(core, SCHEDULER))


@pytest.fixture
async def outsider(core: Core) -> Pusher:
    """A user whose scheduler, if any, is not in the core."""
    return Pusher(await stock_user(core))


async def test_a_push_to_oneself_is_dispatched_when_the_call_returns(ann: Pusher) -> None:
    await ann.serve("f")
    push = await ann.push(ann, "f", "m1")
    assert (await ann.record(push)).status == "finished"
    assert await ann.dispatches() == [("f", ["m1"])]
    dispatch = await ann.record((await ann.started("_internal:tasks:status:started"))[0])
    assert (dispatch.protocol_name, dispatch.require_agreement) == ("coflows_dispatch", False)
    assert [(p.user_id, p.role) for p in dispatch.participants] == [(ann.user_id, "local")]
    assert json.loads(dispatch.protocol_param) == {
        "flow_id": "f",
        "message_ids": ["push_tasks:m1:msg"],
    }
    assert dispatch.parent_task == push


async def test_a_push_to_another_brings_message_and_dispatch_at_once(ann, ben) -> None:
    await ben.serve("f")
    push = await ann.push(ben, "f", "m1")
    assert (await ann.record(push)).status == (await ben.record(push)).status == "finished"
    assert await ben.read("push_tasks:m1:msg") == ann.message("m1")
    assert await ben.dispatches() == [("f", ["m1"])]
    assert await ann.dispatches() == []


async def test_a_serial_instance_has_one_message_in_flight(ann: Pusher) -> None:
    await ann.serve("f")
    await ann.serve("g")
    for message in ("m1", "m2", "m3"):
        await ann.push(ann, "f", message)
    await ann.push(ann, "g", "n1")
    assert await ann.dispatches() == [("f", ["m1"]), ("g", ["n1"])]
    await ann.finish_first()
    assert await ann.dispatches() == [("g", ["n1"]), ("f", ["m2"])]
    await ann.finish_first()
    await ann.finish_first()
    assert await ann.dispatches() == [("f", ["m3"])]
    await ann.finish_first()
    assert await ann.dispatches() == []


async def test_a_parallel_instance_gets_all_at_its_own_dispatch_point(ann: Pusher) -> None:
    await ann.serve("f", parallel=True, point="gpu_dispatch")
    for message in ("m1", "m2"):
        await ann.push(ann, "f", message)
    assert await ann.dispatches("gpu_dispatch") == [("f", ["m1"]), ("f", ["m2"])]


async def test_routes_are_read_at_each_push(ann: Pusher) -> None:
    await ann.serve("f", parallel=True)
    await ann.push(ann, "f", "m1")
    await ann.serve("f", parallel=True, point="other_dispatch")
    await ann.push(ann, "f", "m2")
    override = keys.mount_field("ep_f", "local", "f", "dispatch_point_override")
    await blocking(ann.client.create_entry, override, "third_dispatch")
    await ann.push(ann, "f", "m3")
    for point, message in (
        ("coflows_dispatch", "m1"),
        ("other_dispatch", "m2"),
        ("third_dispatch", "m3"),
    ):
        assert await ann.dispatches(point) == [("f", [message])]


async def test_an_unknown_flow_is_dispatched_at_the_default_point(ann: Pusher) -> None:
    await ann.push(ann, "nobody", "m1")
    assert await ann.dispatches() == [("nobody", ["m1"])]


async def test_a_reply_is_stored_and_not_dispatched(ann: Pusher, ben: Pusher) -> None:
    question = FlowMessage(data={}, reply_data={"mode": "storage", "to": ann.user_id})
    await blocking(ben.client.update_entry, "push_tasks:m1:msg", question.serialize())
    await ann.push(ben, "storage", "m1", "response")
    assert await ben.read("push_tasks:m1:response") == ann.message("m1")
    assert await ben.dispatches() == []


async def test_a_reply_that_was_not_asked_of_its_sender_is_refused(ann, ben, outsider) -> None:
    await ann.push(ben, "storage", "m1", "response")
    assert await ben.read("push_tasks:m1:response") is None
    question = FlowMessage(data={}, reply_data={"mode": "storage", "to": outsider.user_id})
    await blocking(ben.client.update_entry, "push_tasks:m2:msg", question.serialize())
    push = await ann.push(ben, "storage", "m2", "response")
    assert await ben.read("push_tasks:m2:response") is None
    assert (await ben.record(push)).status == "finished"


@pytest.mark.parametrize(
    "key", ["flows:x:init", "_internal:known_users:evil:core_addr", "push_tasks:a:b:msg", "k"]
)
async def test_only_message_keys_are_written_at_the_senders_wish(ann, ben, key) -> None:
    await blocking(ann.client.update_entry, key, b"evil")
    push = await ann.task(ben, encode_push("f", key))
    assert await ben.read(key) is None
    assert await ben.dispatches() == []
    assert (await ben.record(push)).status == "finished"


@pytest.mark.parametrize("param", [b"", b"[]", b'{"flow_id": 1}', b"\xff", b"[" * 100_000])
async def test_bad_parameters_upset_nobody(ann: Pusher, ben: Pusher, param: bytes) -> None:
    await ann.task(ben, param)
    participants = [sdk.Participant(user_id=ann.user_id, role="local")]
    odd = await blocking(ann.client.run_task, "my_dispatch", param, participants, False)
    await blocking(ann.client.finish_task, odd)
    await ann.push(ben, "f", "m1")
    assert await ben.dispatches() == [("f", ["m1"])]


async def test_the_same_message_is_dispatched_once(ann: Pusher, ben: Pusher) -> None:
    await ann.push(ben, "f", "m1")
    await ann.push(ben, "f", "m1")
    assert await ben.dispatches() == [("f", ["m1"])]
    await ben.finish_first()
    assert await ben.dispatches() == []


async def test_a_push_of_an_absent_message_ends(ann: Pusher, ben: Pusher) -> None:
    push = await ann.task(ben, encode_push("f", "push_tasks:none:msg"))
    assert (await ann.record(push)).status == (await ben.record(push)).status == "finished"
    assert await ben.dispatches() == []


async def test_a_sender_outside_the_core_is_served(outsider: Pusher, ben: Pusher) -> None:
    """He does what the stock scheduler does: waits to be told the way, then sends `msg`."""
    push = await outsider.push(ben, "f", "m1")
    sender = await blocking(
        outsider.client.__class__, outsider.client.core_addr, outsider.client.jwt
    )
    sender.set_task_id(push)
    sender.vt_p2p_ctx = VtP2pCtx()  # as operators have it
    assert (await ben.record(push)).status == "started"
    stored = Messages.of(ben.client, await blocking(ben.client.subscribe, "push_tasks:m1:msg", 0))
    sender.send_variable(
        "msg", outsider.message("m1"), [sdk.Participant(user_id=ben.user_id, role="receiver")]
    )
    assert (await (await stored).next()).payload == outsider.message("m1")
    assert await ben.dispatches() == [("f", ["m1"])]
    assert (await ben.record(push)).status == "finished"


async def test_a_receiver_outside_the_core_finds_the_variable(
    ann: Pusher, outsider: Pusher
) -> None:
    push = await ann.push(outsider, "f", "m1")
    assert (await ann.record(push)).status == "finished"
    assert (await outsider.record(push)).status == "started"
    receiver = outsider.client
    receiver.set_task_id(push)
    receiver.vt_p2p_ctx = VtP2pCtx()  # as operators have it
    sender = sdk.Participant(user_id=ann.user_id, role="initiator")
    assert await blocking(receiver.recv_variable, "msg", sender) == ann.message("m1")


async def test_starting_late_takes_up_what_waits(outsider: Pusher, ben: Pusher) -> None:
    await outsider.push(outsider, "f", "m1")
    assert await outsider.dispatches() == []
    await blocking(outsider.client.start_protocol_operator, SCHEDULER, outsider.user_id, False)
    assert await outsider.dispatches() == [("f", ["m1"])]


async def test_once_stopped_it_leaves_pushes_alone(ann: Pusher) -> None:
    await ann.push(ann, "f", "m1")
    await ann.push(ann, "f", "m2")
    group = await ann.read(f"_internal:protocol_operator_groups:{SCHEDULER}")
    instance = wire.ListOfString.FromString(group).list[0]
    await blocking(ann.client.stop_protocol_operator, instance)
    await ann.push(ann, "f", "m3")
    await ann.finish_first()
    assert await ann.dispatches() == []
    await blocking(ann.client.start_protocol_operator, SCHEDULER, ann.user_id, False)
    assert await ann.dispatches() == [("f", ["m2"])]
    await ann.finish_first()
    assert await ann.dispatches() == [("f", ["m3"])]


async def test_a_dispatch_worker_of_the_sdk_is_told(ann: Pusher) -> None:
    name = "_internal:protocols:coflows_dispatch:local:started:latest"
    messages = await Messages.of(ann.client, await blocking(ann.client.subscribe, name, 0))
    pushes = [ann.push(ann, f"f{number}", f"m{number}") for number in range(10)]
    await asyncio.gather(*pushes)
    told = {wire.Task.FromString((await messages.next()).payload).task_id for _ in range(10)}
    assert told == set(await ann.started("_internal:protocols:coflows_dispatch:local:started"))
