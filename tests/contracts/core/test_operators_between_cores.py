"""§8: what built-in operators do for users of different cores."""

import asyncio
import json

import pytest

from engine.colink import keys, wire
from engine.colink.client import Connections
from engine.colink.mailbox import decode_dispatch, encode_push
from engine.model.message import FlowMessage
from engine.serving import endpoints
from tests.support import network
from tests.support.cores import Member, Places
from tests.support.stock import VtP2pCtx, blocking, sdk


@pytest.fixture(params=[False, True], ids=["direct", "reverse"])
async def two(places: Places, request) -> list[Member]:
    """Two users on two cores, who accept all tasks. In reverse mode only ann knows bob."""
    ann, bob = await places.members(2, inter_core_reverse_mode=request.param)
    await ann.knows(bob)
    if not request.param:
        await bob.knows(ann)
    return [ann, bob]


class TestRemoteStorage:
    async def test_an_entry_is_created_updated_read_and_deleted(self, two: list[Member]) -> None:
        ann, bob = two
        name = keys.remote_storage(ann.user_id, "note")
        await blocking(ann.sdk.remote_storage_create, [bob.user_id], "note", b"one", False)
        assert await bob.entry(name) == b"one"
        await blocking(ann.sdk.remote_storage_update, [bob.user_id], "note", b"two", False)
        arguments = (bob.user_id, "note", False, ann.user_id)
        assert await blocking(ann.sdk.remote_storage_read, *arguments) == b"two"
        await blocking(ann.sdk.remote_storage_delete, [bob.user_id], "note", False)
        with pytest.raises(Exception, match="status_code: 1"):
            await blocking(ann.sdk.remote_storage_read, *arguments)

    async def test_what_is_public_can_be_read_by_others(self, two: list[Member]) -> None:
        ann, bob = two
        cid = await ann.place.member()
        await cid.knows(bob)
        if not bob.core.settings.inter_core_reverse_mode:
            await bob.knows(cid)
        await blocking(ann.sdk.remote_storage_create, [bob.user_id], "note", b"one", True)
        await bob.entry(keys.remote_storage(ann.user_id, "note", public=True))
        arguments = (bob.user_id, "note", True, ann.user_id)
        assert await blocking(cid.sdk.remote_storage_read, *arguments) == b"one"

    async def test_a_read_waits_for_a_core_that_is_down(self, two: list[Member]) -> None:
        ann, bob = two
        await blocking(ann.sdk.remote_storage_create, [bob.user_id], "note", b"one", False)
        await bob.entry(keys.remote_storage(ann.user_id, "note"))
        await bob.place.stop()
        arguments = (bob.user_id, "note", False, ann.user_id)
        reading = asyncio.create_task(blocking(ann.sdk.remote_storage_read, *arguments))
        await asyncio.wait_for(_created(ann, "remote_storage.read"), 20)
        await bob.place.start()
        assert await reading == b"one"


async def _created(user: Member, protocol_name: str) -> None:
    created = asyncio.Event()
    user.core.parts.tasks.on_entered.append(
        lambda copy: copy.task.protocol_name == protocol_name and created.set()
    )
    await created.wait()


async def test_the_sdk_sends_a_variable_to_the_sdk(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    clients = []
    for member in two:
        client = member.sdk
        client.set_task_id(task_id)
        client.vt_p2p_ctx = VtP2pCtx()  # as operators have it
        clients.append(client)
    sender, receiver = (sdk.Participant(user_id=member.user_id, role="initiator") for member in two)
    for value in (b"value" * 10**6, b"back"):
        clients[0].send_variable(value[:4].decode(), value, [receiver])
        assert await blocking(clients[1].recv_variable, value[:4].decode(), sender) == value
        clients.reverse()
        sender, receiver = receiver, sender


def message_of(member: Member) -> bytes:
    """Return a message that a flow might send."""
    return FlowMessage(data={}, user_id=member.user_id).serialize()


class TestScheduler:
    @staticmethod
    async def _operated(*members: Member) -> None:
        for member in members:
            await blocking(
                member.sdk.start_protocol_operator, "coflows_scheduler", member.user_id, False
            )

    @staticmethod
    async def _push(sender: Member, receiver: Member) -> str:
        key = keys.push_message("m1")
        await blocking(sender.sdk.create_entry, key, message_of(sender))
        return await blocking(
            sender.sdk.run_task,
            *("coflows_push", encode_push("f", key)),
            [
                sdk.Participant(user_id=sender.user_id, role="initiator"),
                sdk.Participant(user_id=receiver.user_id, role="receiver"),
            ],
            True,
        )

    @staticmethod
    async def _dispatched(member: Member) -> tuple[str, tuple[str, ...]]:
        await member.entry(keys.push_message("m1"))
        (copy,) = [
            copy
            for copy in member.core.parts.tasks.in_status(member.user_id, "started")
            if copy.task.protocol_name == "coflows_dispatch"
        ]
        return decode_dispatch(copy.task.protocol_param)

    async def test_a_push_reaches_the_other_core(self, two: list[Member]) -> None:
        ann, bob = two
        await self._operated(ann, bob)
        task_id = await self._push(ann, bob)
        assert await self._dispatched(bob) == ("f", (keys.push_message("m1"),))
        await ann.reaches(task_id, "finished")
        await bob.reaches(task_id, "finished")

    async def test_a_sender_with_a_stock_scheduler_is_told_the_way(self, two) -> None:
        ann, bob = two
        await self._operated(bob)
        task_id = await self._push(ann, bob)
        await ann.reaches(task_id, "started")
        sender = ann.sdk
        sender.set_task_id(task_id)
        inbox = json.loads(await ann.entry(keys.variable(bob.user_id, task_id, "inbox")))
        assert inbox == {"addr": "", "vt_jwt": "", "tls_cert": []}
        receiver = sdk.Participant(user_id=bob.user_id, role="receiver")
        message = message_of(ann)
        await blocking(sender.send_variable_with_remote_storage, "msg", message, [receiver])
        assert await self._dispatched(bob) == ("f", (keys.push_message("m1"),))


async def test_a_flow_on_another_core_answers(two: list[Member]) -> None:
    known = network.catalog()
    async with Connections() as connections:
        ann, bob = (
            network.Member(connections.client(member.core.address, member.jwt), known)
            for member in two
        )
        await TestScheduler._operated(*two)
        await endpoints.serve(bob.client, "count", "test.Counter")
        async with network.working(ann.client, known), network.working(bob.client, known):
            instance = await ann.instance("count", bob.user_id)
            for count in (1, 2):
                answer = await ann.ask(instance, {})
                assert answer.data["count"] == count


async def test_records_are_those_of_the_sheet(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    for member in two:
        task = wire.Task.FromString(await member.entry(keys.task(task_id)))
        assert [decision.is_approved for decision in task.decisions] == [True, True]
