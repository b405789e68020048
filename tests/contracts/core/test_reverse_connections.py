"""§6.6: cores that others cannot dial, and users who pass tasks on for others."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from engine.colink import keys, wire
from engine.core.peers.address_book import Pair
from engine.core.peers.streams import Stream
from tests.support.cores import Member, Places, participants
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import blocking


@pytest.fixture
async def two(places: Places) -> list[Member]:
    """ann sits behind NAT: her core dials that of bob, who does not know where she is."""
    (ann,) = await places.members(1, inter_core_reverse_mode=True)
    (bob,) = await places.members(1)
    for member in (ann, bob):
        await member.undecided()
    await ann.knows(bob)
    return [ann, bob]


def _stream(holder: Member, peer: Member) -> Stream | None:
    """Return the stream by which the holder's core reaches a peer."""
    return holder.core.parts.peers.streams.get(Pair(holder.user_id, peer.user_id))


async def _opened(holder: Member, peer: Member, old: Stream | None = None) -> Stream:
    """Wait for a stream other than `old` and return it."""
    streams, changed = holder.core.parts.peers.streams, asyncio.Event()
    told = streams.on_change

    def on_change(pair: Pair) -> None:
        told(pair)
        changed.set()

    streams.on_change = on_change
    async with asyncio.timeout(20):
        while (stream := _stream(holder, peer)) in (None, old):
            changed.clear()
            await changed.wait()
    assert stream is not None
    return stream


async def test_decisions_come_back_on_the_stream_of_the_task(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    assert _stream(bob, ann) is not None
    await bob.confirm(task_id, approve=True)
    await ann.reaches(task_id, "started")


async def test_new_tasks_come_on_it_too(two: list[Member]) -> None:
    ann, bob = two
    await ann.run(bob)
    task_id = await bob.run(ann)
    await ann.reaches(task_id, "waiting")
    await ann.confirm(task_id, approve=True)
    await bob.reaches(task_id, "started")


async def test_one_stream_serves_all_tasks_of_a_pair(two: list[Member]) -> None:
    ann, bob = two
    task_ids = await asyncio.gather(*(ann.run(bob) for _ in range(5)))
    stream = _stream(bob, ann)
    for task_id in task_ids:
        await bob.confirm(task_id, approve=True)
        await ann.reaches(task_id, "started")
    assert _stream(bob, ann) is stream


async def test_both_may_be_in_reverse_mode(places: Places) -> None:
    ann, bob = await places.members(2, inter_core_reverse_mode=True)
    await ann.knows(bob)
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    assert bob.status(task_id) == "started"


async def test_a_bad_task_does_not_end_the_stream(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    stream = _stream(bob, ann)
    assert stream is not None
    await stream.write(wire.Task(task_id="unknown"))
    await bob.confirm(task_id, approve=True)
    await ann.reaches(task_id, "started")
    assert _stream(bob, ann) is stream


async def test_a_task_that_is_refused_opens_no_stream(two: list[Member]) -> None:
    ann, bob = two
    forged = type(bob.core.parts.tokens)(b"x" * 32).mint("guest", bob.user_id, 2**31)
    await blocking(ann.sdk.update_entry, keys.known_user_token(bob.user_id), forged)
    with pytest.raises(Exception, match="UNAUTHENTICATED"):
        await ann.run(bob)
    assert _stream(bob, ann) is None


async def test_it_is_dialled_again_when_the_other_core_was_down(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    await bob.place.stop()
    await bob.place.start()
    await _opened(bob, ann)
    await bob.confirm(task_id, approve=True)
    await ann.reaches(task_id, "started")


async def test_it_is_dialled_again_after_our_own_restart(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob)
    await ann.place.stop()
    assert _stream(bob, ann) is None, "removed when it closed"
    # He decides while there is no way to her: that waits for the stream.
    bob.core.parts.tasks.confirm(bob.user_id, task_id, wire.Decision(is_approved=True))
    await ann.place.start()
    await ann.reaches(task_id, "started")


async def test_what_was_written_when_a_stream_broke_is_sent_again(two: list[Member]) -> None:
    """The protocol knows no answer on a stream: only one that stands a while proves arrival."""
    ann, bob = two
    task_id = await ann.run(bob)
    await bob.confirm(task_id, approve=True)
    await ann.reaches(task_id, "started")
    outbox, pair = bob.core.parts.peers.outbox, Pair(bob.user_id, ann.user_id)
    stream = _stream(bob, ann)
    assert stream is not None
    (parcel,) = outbox.next(pair, 0, 10)
    assert stream.written == parcel.id
    again = await _broken(bob, ann, stream, parcel.id)
    assert ann.status(task_id) == "started", "which changes nothing"
    assert outbox.next(pair, 0, 10) == [parcel]
    third = await _broken(bob, ann, again, parcel.id)
    assert outbox.next(pair, 0, 10) == [], "but not for ever"
    assert third.proven(time.monotonic()) == []
    assert third.proven(time.monotonic() + 3600) == [parcel.id]


async def _broken(holder: Member, peer: Member, stream: Stream, parcel_id: int) -> Stream:
    """Break a stream, and return the next one once the parcel was put into it too."""
    stream.end()
    again = await _opened(holder, peer, old=stream)
    async with asyncio.timeout(20):
        while again.written != parcel_id:
            await asyncio.sleep(0.01)
    return again


class TestForwarding:
    @pytest.fixture
    async def chain(self, places: Places) -> AsyncIterator[list[Member]]:
        """bob reaches ann through fay, to whom her core keeps a stream."""
        (ann,) = await places.members(1, inter_core_reverse_mode=True)
        fay, bob = await places.members(2)
        for member in (ann, fay, bob):
            await member.undecided()
        await ann.knows(fay, bob)
        await bob.knows(fay, ann)
        await blocking(bob.sdk.create_entry, keys.known_user_forwarder(ann.user_id), fay.user_id)
        yield [ann, fay, bob]

    async def test_a_task_passes_through_the_forwarder(self, chain: list[Member]) -> None:
        ann, fay, bob = chain
        await ann.run(fay)
        task_id = await bob.run(ann)
        await ann.reaches(task_id, "waiting")
        assert fay.status(task_id) == "", "it is none of hers"
        await ann.confirm(task_id, approve=True)
        assert bob.status(task_id) == "started"

    async def test_it_waits_for_the_stream_to_the_forwarder(self, chain: list[Member]) -> None:
        ann, fay, bob = chain
        task_id = await bob.run(ann)
        assert ann.status(task_id) == ""
        await ann.run(fay)
        await ann.reaches(task_id, "waiting")

    async def test_a_forwarder_of_this_core_needs_no_call(self, chain: list[Member]) -> None:
        ann, fay, _ = chain
        cid = await (await fay.place.member()).undecided()
        await cid.knows(ann)
        await blocking(cid.sdk.create_entry, keys.known_user_forwarder(ann.user_id), fay.user_id)
        await ann.run(fay)
        task_id = await cid.run(ann)
        await ann.reaches(task_id, "waiting")

    async def test_two_hops_are_refused(self, chain: list[Member]) -> None:
        ann, fay, bob = chain
        await blocking(bob.sdk.create_entry, keys.known_user_forwarder(fay.user_id), bob.user_id)
        async with bob.stub() as stub:
            task = wire.Task(
                protocol_name="greet", participants=participants(bob, ann), expiration_time=2**31
            )
            call = stub.CreateTask(task, metadata=bearer(bob.jwt))
            assert await refused(call) is Code.FAILED_PRECONDITION

    async def test_an_unknown_target_is_refused(self, chain: list[Member]) -> None:
        _, fay, bob = chain
        metadata: Any = (
            *bearer(await fay.guest_token()),
            ("forwarding-target", bob.user_id),
        )
        async with fay.stub() as stub:
            call = stub.InterCoreSyncTask(wire.Task(), metadata=metadata)
            assert await refused(call) is Code.FAILED_PRECONDITION


class TestGuests:
    """§2.2: a guest token is for the two inter-core calls and nothing else."""

    async def test_other_calls_are_denied(self, two: list[Member]) -> None:
        _, bob = two
        token = bearer(await bob.guest_token())
        entry = wire.StorageEntry(key_name="a")
        async with bob.stub() as stub:
            assert (await stub.RequestInfo(wire.Empty(), metadata=token)).mq_uri == ""
            calls: list[tuple[Any, Any]] = [
                (stub.GenerateToken, wire.GenerateTokenRequest(privilege="guest")),
                (stub.ImportUser, wire.UserConsent()),
                (stub.CreateEntry, entry),
                (stub.UpdateEntry, entry),
                (stub.DeleteEntry, entry),
                (stub.ReadEntries, wire.StorageEntries(entries=[entry])),
                (stub.ReadKeys, wire.ReadKeysRequest(prefix=bob.user_id)),
                (stub.CreateTask, wire.Task()),
                (stub.ConfirmTask, wire.ConfirmTaskRequest()),
                (stub.FinishTask, wire.Task()),
                (stub.Subscribe, wire.SubscribeRequest(key_name="a")),
                (stub.Unsubscribe, wire.MQQueueName()),
                (stub.StartProtocolOperator, wire.StartProtocolOperatorRequest()),
                (stub.StopProtocolOperator, wire.ProtocolOperatorInstanceId()),
            ]
            for method, request in calls:
                assert await refused(method(request, metadata=token)) is Code.PERMISSION_DENIED
            hosts = bearer(bob.core.host_token)
            sync = stub.InterCoreSyncTask(wire.Task(), metadata=hosts)
            assert await refused(sync) is grpc.StatusCode.PERMISSION_DENIED
