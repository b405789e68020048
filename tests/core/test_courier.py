"""Delivery to cores that behave in ways of their own: stand-ins that answer what the test says."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest

from engine.colink import keys, wire
from engine.colink.identity import KeyPair
from engine.core.peers import courier, outgoing, transport
from engine.core.tokens import Tokens
from engine.kits.backoff import Backoff
from tests.support.cores import Member, Places, participants
from tests.support.stock import blocking, sdk

Code = grpc.StatusCode
Answer = Callable[[wire.Task, Any], Any]


@dataclass
class StandIn:
    """A core of another make, for one user."""

    address: str
    user_id: str = field(default_factory=lambda: KeyPair.generate().user_id)
    answers: list[Code | None] = field(default_factory=list)
    """What the next calls are answered with; None accepts, and so does every call after these."""
    accepted: asyncio.Queue[wire.Task] = field(default_factory=asyncio.Queue)
    hangs: bool = False
    calls: asyncio.Queue[wire.Task] = field(default_factory=asyncio.Queue)

    async def sync(self, task: wire.Task, context: Any) -> wire.Empty:
        self.calls.put_nowait(task)
        if self.hangs:
            await asyncio.Event().wait()
        code = self.answers.pop(0) if self.answers else None
        if code is not None:
            await context.abort(code, "so it was told")
        self.accepted.put_nowait(task)
        return wire.Empty()

    async def next(self) -> tuple[str, str]:
        """Return id and status of the next task that is accepted."""
        async with asyncio.timeout(20):
            task = await self.accepted.get()
        return task.task_id, task.status


@pytest.fixture
async def peer() -> AsyncIterator[StandIn]:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    stand_in = StandIn(f"http://127.0.0.1:{port}")
    servicer = wire.CoLinkServicer()
    vars(servicer)["InterCoreSyncTask"] = stand_in.sync
    wire.add_CoLinkServicer_to_server(servicer, server)
    await server.start()
    yield stand_in
    await server.stop(None)


@pytest.fixture
async def ann(places: Places, peer: StandIn, monkeypatch: pytest.MonkeyPatch) -> Member:
    """A user who knows the stand-in's, on a core that is quick to try again."""
    monkeypatch.setattr(courier, "_BACKOFF", Backoff(first=0.01, limit=0.02))
    (ann,) = await places.members(1)
    token = Tokens(b"of another core" * 3).mint("guest", peer.user_id, 2**31)
    await blocking(ann.sdk.import_guest_jwt, token)
    await blocking(ann.sdk.import_core_addr, peer.user_id, peer.address)
    return ann


async def _run(ann: Member, peer: StandIn, *, agreement: bool = True) -> str:
    other = sdk.Participant(user_id=peer.user_id, role="receiver")
    return await blocking(ann.sdk.run_task, "greet", "", [*participants(ann), other], agreement)


def _waiting(ann: Member) -> list[Any]:
    return ann.core.parts.peers.outbox.pairs()


async def test_a_task_comes_with_its_first_decision(ann: Member, peer: StandIn) -> None:
    task_id = await _run(ann, peer)
    task = peer.accepted.get_nowait()
    assert (task.task_id, task.status) == (task_id, "approved")
    assert [decision.is_approved for decision in task.decisions] == [True, False]
    assert _waiting(ann) == []


@pytest.mark.parametrize(
    "code", [Code.UNAVAILABLE, Code.INTERNAL, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED]
)
async def test_what_may_pass_is_tried_again(ann: Member, peer: StandIn, code: Code) -> None:
    peer.answers = [code, code]
    task_id = await _run(ann, peer)
    for _ in range(3):
        async with asyncio.timeout(20):
            assert (await peer.calls.get()).task_id == task_id
    assert ann.status(task_id) == "approved"


async def test_internal_is_not_tried_for_ever(ann: Member, peer: StandIn) -> None:
    peer.answers = [Code.INTERNAL] * 100
    task_id = await _run(ann, peer)
    await ann.reaches(task_id, "rejected")
    assert peer.calls.qsize() == 8
    assert _waiting(ann) == []


@pytest.mark.parametrize("code", [Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED])
async def test_a_refusal_ends_it(ann: Member, peer: StandIn, code: Code) -> None:
    peer.answers = [code]
    with pytest.raises(Exception, match="so it was told"):
        await _run(ann, peer)
    (copy,) = ann.core.parts.tasks.in_status(ann.user_id, "rejected")
    assert "so it was told" in copy.task.decisions[0].reason
    assert _waiting(ann) == []


async def test_what_concerns_one_task_comes_in_order(ann: Member, peer: StandIn) -> None:
    bob = await (await ann.place.member()).undecided()
    peer.answers = [Code.UNAVAILABLE] * 3
    other = sdk.Participant(user_id=peer.user_id, role="receiver")
    task_id = await blocking(ann.sdk.run_task, "greet", "", [*participants(ann, bob), other], True)
    await bob.confirm(task_id, approve=False)
    assert await peer.next() == (task_id, "approved")
    assert await peer.next() == (task_id, "rejected")


async def test_a_core_that_does_not_answer_holds_no_call_for_long(
    ann: Member, peer: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outgoing, "GRACE", 0.05)
    monkeypatch.setattr(transport, "DEADLINE", 0.5)
    peer.hangs = True
    task_id = await _run(ann, peer)
    assert ann.status(task_id) == "approved"
    peer.hangs = False
    assert await peer.next() == (task_id, "approved")


async def test_a_core_without_reverse_connections_is_told_by_calls(
    places: Places, peer: StandIn
) -> None:
    (ann,) = await places.members(1, inter_core_reverse_mode=True)
    token = Tokens(b"of another core" * 3).mint("guest", peer.user_id, 2**31)
    await blocking(ann.sdk.update_entry, keys.known_user_token(peer.user_id), token)
    await blocking(ann.sdk.update_entry, keys.known_user_address(peer.user_id), peer.address)
    task_id = await _run(ann, peer)
    assert await peer.next() == (task_id, "approved")
