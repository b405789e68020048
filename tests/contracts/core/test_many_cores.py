"""§6.5: users of two and three cores work together, each with a client of his own core."""

import time
from itertools import permutations

import pytest

from engine.colink import identity, keys, wire
from engine.core.retention import Retention
from tests.support.cores import Member, Places, participants
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import blocking, sdk


@pytest.fixture
async def two(places: Places) -> list[Member]:
    """Two users on two cores, who know each other and decide by themselves."""
    return await _acquainted(await places.members(2))


@pytest.fixture
async def three(places: Places) -> list[Member]:
    """Three users on three cores."""
    return await _acquainted(await places.members(3))


async def _acquainted(members: list[Member]) -> list[Member]:
    for member in members:
        await member.undecided()
        await member.knows(*(other for other in members if other is not member))
    return members


def _statuses(members: list[Member], task_id: str) -> list[str]:
    return [member.status(task_id) for member in members]


class TestTwoCores:
    async def test_they_agree(self, two: list[Member]) -> None:
        ann, bob = two
        task_id = await ann.run(bob)
        assert _statuses(two, task_id) == ["approved", "waiting"], "told before the call returns"
        await bob.confirm(task_id, approve=True)
        assert _statuses(two, task_id) == ["started", "started"], "so is the initiator"
        here, there = ann.copy(task_id), bob.copy(task_id)
        assert here is not None
        assert there is not None
        assert here.task.decisions == there.task.decisions
        for place, member in enumerate(two):
            decision = here.task.decisions[place]
            identity.verify_decision(here.task, decision, member.user_id, time.time())
            assert decision.core_public_key.hex() == member.core.host_id

    async def test_they_disagree(self, two: list[Member]) -> None:
        ann, bob = two
        task_id = await ann.run(bob)
        await bob.confirm(task_id, approve=False)
        assert _statuses(two, task_id) == ["rejected", "rejected"]

    async def test_without_agreement_nobody_is_told(self, two: list[Member]) -> None:
        ann, bob = two
        task_id = await ann.run(bob, agreement=False)
        assert _statuses(two, task_id) == ["started", "waiting"]
        await bob.confirm(task_id, approve=True)
        assert _statuses(two, task_id) == ["started", "started"]
        copy = ann.copy(task_id)
        assert copy is not None
        assert not copy.task.decisions[1].signature

    async def test_ignoring_is_silent(self, two: list[Member]) -> None:
        ann, bob = two
        task_id = await ann.run(bob)
        await blocking(bob.sdk.confirm_task, task_id, False, False, "")
        assert _statuses(two, task_id) == ["approved", "ignored"]

    async def test_a_policy_decides_on_tasks_of_other_cores(self, places: Places) -> None:
        ann, bob = await places.members(2)
        await ann.knows(bob)
        await bob.knows(ann)
        task_id = await ann.run(bob)
        await ann.reaches(task_id, "started")
        assert bob.status(task_id) == "started"

    async def test_two_users_of_one_core_and_one_of_another(self, places: Places) -> None:
        (ann,) = await places.members(1)
        cid, bob = await ann.place.member(), (await places.members(1))[0]
        for member in (ann, bob, cid):
            await member.undecided()
        await ann.knows(bob)
        await bob.knows(ann)
        task_id = await ann.run(bob, cid)
        await cid.confirm(task_id, approve=True)
        await bob.confirm(task_id, approve=True)
        for member in (ann, bob, cid):
            await member.reaches(task_id, "started")


class TestThreeCores:
    @pytest.mark.parametrize("order", [(1, 2), (2, 1)])
    async def test_it_starts_for_all_when_the_last_one_approves(self, three, order) -> None:
        task_id = await three[0].run(*three[1:])
        await three[order[0]].confirm(task_id, approve=True)
        assert three[order[0]].status(task_id) == "approved"
        assert three[0].status(task_id) == "approved"
        await three[order[1]].confirm(task_id, approve=True)
        for member in three:
            await member.reaches(task_id, "started")

    @pytest.mark.parametrize("order", [(1, 2), (2, 1)])
    @pytest.mark.parametrize("first", [True, False])
    async def test_one_rejection_rejects_for_all(self, three, order, first) -> None:
        """Whether it comes before or after an approval."""
        task_id = await three[0].run(*three[1:])
        await three[order[0]].confirm(task_id, approve=first)
        if first:
            await three[order[1]].confirm(task_id, approve=False)
        for member in three:
            await member.reaches(task_id, "rejected")

    async def test_who_ignored_learns_of_a_rejection(self, three: list[Member]) -> None:
        task_id = await three[0].run(*three[1:])
        await blocking(three[1].sdk.confirm_task, task_id, False, False, "")
        await three[2].confirm(task_id, approve=False)
        await three[1].reaches(task_id, "rejected")

    @pytest.mark.parametrize("replayed", list(permutations(range(3), 2)))
    async def test_replayed_decisions_change_nothing(self, three, replayed) -> None:
        """Whoever has a guest token may send again what was sent once (§12.1 #15, #16)."""
        task_id = await three[0].run(*three[1:])
        opening = wire.Task()
        opening.CopyFrom(three[1].copy(task_id).task)
        for member in three[1:]:
            await member.confirm(task_id, approve=True)
        for member in three:
            await member.reaches(task_id, "started")
            await blocking(member.sdk.finish_task, task_id)
        source, target = (three[place] for place in replayed)
        before = target.copy(task_id)
        async with target.stub() as stub:
            for task in (source.copy(task_id).task, opening):
                await stub.InterCoreSyncTask(task, metadata=bearer(await target.guest_token()))
        assert target.copy(task_id).timestamp == before.timestamp
        assert _statuses(three, task_id) == ["finished"] * 3


async def test_a_task_that_was_forgotten_does_not_begin_anew(two: list[Member]) -> None:
    ann, bob = two
    task_id = await ann.run(bob, agreement=False)
    opening = bob.copy(task_id).task
    await bob.confirm(task_id, approve=False)
    in_two_hours = time.time_ns() + 2 * 3600 * 10**9
    await Retention(bob.core.parts.store, hours=1, now=lambda: in_two_hours).sweep()
    assert bob.copy(task_id) is None
    async with bob.stub() as stub:
        call = stub.InterCoreSyncTask(opening, metadata=bearer(bob.jwt))
        assert await refused(call) is Code.INTERNAL
    assert bob.copy(task_id) is None


class TestWhoCannotBeReached:
    async def test_an_unknown_user_is_an_error_at_once(self, two: list[Member]) -> None:
        ann, bob = two
        stranger = sdk.Participant(user_id=identity.KeyPair.generate().user_id, role="receiver")
        with pytest.raises(Exception, match="INTERNAL"):
            await blocking(ann.sdk.run_task, "greet", "", [*participants(ann, bob), stranger], True)
        assert await blocking(ann.sdk.read_entry, keys.status_list("approved")) is None
        assert await blocking(bob.sdk.read_entry, keys.status_list("waiting")) is None

    async def test_a_token_that_the_core_refuses_is_an_error(self, two: list[Member]) -> None:
        ann, bob = two
        guest = bob.core.parts.tokens
        forged = type(guest)(b"another secret" * 3).mint("guest", bob.user_id, 2**31)
        await blocking(ann.sdk.update_entry, keys.known_user_token(bob.user_id), forged)
        with pytest.raises(Exception, match="UNAUTHENTICATED"):
            await ann.run(bob)
        (copy,) = ann.core.parts.tasks.in_status(ann.user_id, "rejected")
        assert "did not get the task" in copy.task.decisions[0].reason

    async def test_who_knows_no_initiator_cannot_agree(self, places: Places) -> None:
        ann, bob = await places.members(2)
        await bob.undecided()
        await ann.knows(bob)
        task_id = await ann.run(bob)
        with pytest.raises(Exception, match="cannot be reached"):
            await bob.confirm(task_id, approve=True)
        assert bob.status(task_id) == "waiting"
        await bob.knows(ann)
        await bob.confirm(task_id, approve=True)
        assert _statuses([ann, bob], task_id) == ["started", "started"]

    async def test_one_core_that_refuses_takes_the_task_back_from_all(self, three) -> None:
        ann, bob, cid = three
        forged = type(cid.core.parts.tokens)(b"x" * 32).mint("guest", cid.user_id, 2**31)
        await blocking(ann.sdk.update_entry, keys.known_user_token(cid.user_id), forged)
        with pytest.raises(Exception, match=cid.user_id):
            await ann.run(bob, cid)
        (copy,) = ann.core.parts.tasks.in_status(ann.user_id, "rejected")
        await bob.reaches(copy.task.task_id, "rejected")


class TestACoreThatIsDown:
    async def test_a_task_for_it_waits_and_arrives(self, two: list[Member]) -> None:
        ann, bob = two
        await bob.place.stop()
        task_id = await ann.run(bob)
        assert ann.status(task_id) == "approved"
        await bob.place.start()
        await bob.reaches(task_id, "waiting")
        await bob.confirm(task_id, approve=True)
        assert _statuses(two, task_id) == ["started", "started"]

    async def test_it_delays_only_what_needs_it(self, three: list[Member]) -> None:
        ann, bob, cid = three
        await cid.place.stop()
        both, one = await ann.run(bob, cid), await ann.run(bob)
        assert bob.status(both) == "waiting"
        await bob.confirm(one, approve=True)
        assert ann.status(one) == "started"
        await bob.confirm(both, approve=True)
        assert ann.status(both) == "approved"
        await cid.place.start()
        await cid.reaches(both, "waiting")
        await cid.confirm(both, approve=True)
        for member in three:
            await member.reaches(both, "started")

    async def test_a_decision_for_it_waits_and_arrives(self, two: list[Member]) -> None:
        ann, bob = two
        task_id = await ann.run(bob)
        await ann.place.stop()
        await bob.confirm(task_id, approve=True)
        assert bob.status(task_id) == "started"
        await ann.place.start()
        await ann.reaches(task_id, "started")

    async def test_an_outcome_for_it_waits_and_arrives(self, three: list[Member]) -> None:
        ann, bob, cid = three
        task_id = await ann.run(bob, cid)
        await bob.confirm(task_id, approve=True)
        await bob.place.stop()
        await cid.confirm(task_id, approve=True)
        await cid.reaches(task_id, "started")
        await bob.place.start()
        await bob.reaches(task_id, "started")

    async def test_what_waits_survives_our_own_restart(self, two: list[Member]) -> None:
        ann, bob = two
        await bob.place.stop()
        task_ids = [await ann.run(bob, agreement=False) for _ in range(5)]
        await ann.place.stop()
        await bob.place.start()
        await ann.place.start()
        for task_id in task_ids:
            await bob.reaches(task_id, "waiting")
        waiting = [
            copy.task.task_id for copy in bob.core.parts.tasks.in_status(bob.user_id, "waiting")
        ]
        assert sorted(waiting) == sorted(task_ids), "each once"

    async def test_what_expires_before_it_arrives_is_taken_back(self, two: list[Member]) -> None:
        ann, bob = two
        await bob.place.stop()
        task_id = await blocking(
            ann.sdk.run_task, "greet", "", participants(ann, bob), True, int(time.time()) + 1
        )
        await ann.reaches(task_id, "rejected")
        assert ann.core.parts.peers.outbox.pairs() == []
