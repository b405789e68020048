"""§6: tasks among users of one core, seen with the SDK."""

import time

import pytest

from engine.colink import identity, wire
from engine.core.server import Core
from tests.support.core import make_user
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import Messages, blocking, sdk, stock


@pytest.fixture
async def undecided(core: Core):
    """Three users whose waiting tasks nobody decides on."""
    users = []
    for _ in range(3):
        client = stock(core, (await make_user(core)).jwt)
        await blocking(client.policy_module_stop)
        users.append(client)
    return users


def _participants(*users, roles=("initiator", "receiver", "receiver")):
    return [
        sdk.Participant(user_id=user.get_user_id(), role=role)
        for user, role in zip(users, roles, strict=False)
    ]


async def _run(users, *, agreement: bool, protocol: str = "greet", **more) -> str:
    return await blocking(
        users[0].run_task, protocol, "hello", _participants(*users), agreement, *more.values()
    )


async def _task(user, task_id: str) -> wire.Task:
    payload = await blocking(user.read_entry, f"_internal:tasks:{task_id}")
    return wire.Task.FromString(payload)


async def _statuses(users, task_id: str) -> list[str]:
    return [(await _task(user, task_id)).status for user in users]


async def _listed(user, name: str) -> list[str]:
    payload = await blocking(user.read_entry, name)
    found = wire.CoLinkInternalTaskIDList.FromString(payload or b"")
    return [one.task_id for one in found.task_ids_with_key_paths]


async def test_alone_a_task_starts_at_once_and_can_be_finished(alice) -> None:
    task_id = await _run([alice], agreement=True)
    task = await _task(alice, task_id)
    assert (task.task_id, task.status, task.protocol_param) == (task_id, "started", b"hello")
    assert abs(task.expiration_time - time.time() - 86400) < 60
    await blocking(alice.finish_task, task_id)
    assert (await _task(alice, task_id)).status == "finished"
    await blocking(alice.wait_task, task_id)
    with pytest.raises(Exception, match="INTERNAL"):
        await blocking(alice.finish_task, task_id)


async def test_lists_and_latest_are_named_as_the_sheet_says(alice) -> None:
    user_id, protocols = alice.get_user_id(), "_internal:protocols:greet"
    first = await _run([alice], agreement=False)
    second = await _run([alice], agreement=False)
    started = f"{protocols}:initiator:started"
    for name in (started, "_internal:tasks:status:started"):
        payload = await blocking(alice.read_entry, name)
        entries = wire.CoLinkInternalTaskIDList.FromString(payload).task_ids_with_key_paths
        assert [one.task_id for one in entries] == [first, second]
        latest = await blocking(alice.read_entries, [sdk.StorageEntry(key_name=f"{name}:latest")])
        assert latest[0].key_path == entries[1].key_path
        assert latest[0].key_path.startswith(f"{user_id}::{name}:latest@")
        assert wire.Task.FromString(latest[0].payload) == wire.Task(task_id=second)
        # An older path of a task that is still in the list can be read too.
        assert wire.Task.FromString(await blocking(alice.read_entry, entries[0].key_path)) == (
            wire.Task(task_id=first)
        )
    await blocking(alice.finish_task, first)
    assert await _listed(alice, started) == [second]
    assert await _listed(alice, f"{protocols}:finished") == [first], "no role in it"
    await blocking(alice.finish_task, second)
    assert await _listed(alice, started) == []
    assert await blocking(alice.read_entry, f"{started}:latest"), "latest is never removed"
    assert await blocking(alice.read_entry, f"{protocols}:waiting") is None


@pytest.mark.ours
async def test_lists_and_records_are_listed_like_entries(alice) -> None:
    task_id = await _run([alice], agreement=False)
    user_id = alice.get_user_id()

    async def listed(prefix: str) -> list[str]:
        entries = await blocking(alice.read_keys, f"{user_id}::{prefix}", False)
        return [entry.key_path.removeprefix(f"{user_id}::") for entry in entries]

    assert "_internal:tasks@0" in await listed("_internal")
    tasks = await listed("_internal:tasks")
    assert tasks[-1] == "_internal:tasks:status@0"
    assert tasks[0].startswith(f"_internal:tasks:{task_id}@")
    started = await listed("_internal:protocols:greet:initiator")
    assert started[0] == "_internal:protocols:greet:initiator:started@0"
    assert started[1].startswith("_internal:protocols:greet:initiator:started@1")


async def test_an_event_comes_when_the_record_can_be_read(alice) -> None:
    queue = await blocking(
        alice.subscribe, "_internal:protocols:greet:initiator:started:latest", None
    )
    messages = await Messages.of(alice, queue)
    task_id = await _run([alice], agreement=False)
    message = await messages.next()
    assert message.change_type == "update"
    assert wire.Task.FromString(message.payload) == wire.Task(task_id=task_id)
    assert (await _task(alice, task_id)).status == "started"


@pytest.mark.ours
async def test_a_late_subscriber_is_told_of_tasks_that_are_still_started(alice) -> None:
    first = await _run([alice], agreement=False)
    second = await _run([alice], agreement=False)
    await blocking(alice.finish_task, first)
    name = "_internal:protocols:greet:initiator:started:latest"
    messages = await Messages.of(alice, await blocking(alice.subscribe, name, 0))
    message = await messages.next()
    assert (message.change_type, message.payload) == (
        "in-storage",
        wire.Task(task_id=second).SerializeToString(),
    )


async def test_two_agree(undecided) -> None:
    users = undecided[:2]
    task_id = await _run(users, agreement=True)
    assert await _statuses(users, task_id) == ["approved", "waiting"]
    assert await _listed(users[1], "_internal:protocols:greet:waiting") == [task_id]
    await blocking(users[1].confirm_task, task_id, True, False, "fine")
    assert await _statuses(users, task_id) == ["started", "started"]
    assert await _listed(users[1], "_internal:protocols:greet:waiting") == []
    task = await _task(users[0], task_id)
    assert task.decisions == (await _task(users[1], task_id)).decisions
    assert task.decisions[1].reason == "fine"
    for place, user in enumerate(users):
        identity.verify_decision(task, task.decisions[place], user.get_user_id(), time.time())
    await blocking(users[1].finish_task, task_id)
    assert await _statuses(users, task_id) == ["started", "finished"], "each ends it for himself"


async def test_two_disagree(undecided) -> None:
    users = undecided[:2]
    task_id = await _run(users, agreement=True)
    await blocking(users[1].confirm_task, task_id, False, True, "no")
    assert await _statuses(users, task_id) == ["rejected", "rejected"]
    with pytest.raises(Exception, match="INTERNAL"):
        await blocking(users[1].confirm_task, task_id, True, False, "")
    assert (await _task(users[0], task_id)).decisions[1].reason == "no"


async def test_ignoring_is_silent(undecided) -> None:
    users = undecided[:2]
    task_id = await _run(users, agreement=True)
    await blocking(users[1].confirm_task, task_id, False, False, "")
    assert await _statuses(users, task_id) == ["approved", "ignored"]


async def test_three_agree_when_the_last_one_does(undecided) -> None:
    task_id = await _run(undecided, agreement=True)
    await blocking(undecided[1].confirm_task, task_id, True, False, "")
    assert await _statuses(undecided, task_id) == ["approved", "approved", "waiting"]
    await blocking(undecided[2].confirm_task, task_id, True, False, "")
    assert await _statuses(undecided, task_id) == ["started"] * 3
    tasks = [await _task(user, task_id) for user in undecided]
    assert all(decision.is_approved for task in tasks for decision in task.decisions)


async def test_one_of_three_rejects_for_all(undecided) -> None:
    task_id = await _run(undecided, agreement=True)
    await blocking(undecided[2].confirm_task, task_id, False, True, "")
    assert await _statuses(undecided, task_id) == ["rejected"] * 3


async def test_who_ignored_learns_of_a_rejection(undecided) -> None:
    task_id = await _run(undecided, agreement=True)
    await blocking(undecided[1].confirm_task, task_id, False, False, "")
    await blocking(undecided[2].confirm_task, task_id, False, True, "")
    assert await _statuses(undecided, task_id) == ["rejected"] * 3


async def test_without_agreement_each_decides_for_himself(undecided) -> None:
    task_id = await _run(undecided, agreement=False)
    assert await _statuses(undecided, task_id) == ["started", "waiting", "waiting"]
    await blocking(undecided[1].confirm_task, task_id, True, False, "")
    await blocking(undecided[2].confirm_task, task_id, False, True, "")
    assert await _statuses(undecided, task_id) == ["started", "started", "rejected"]


async def test_decisions_that_cannot_be_taken(core: Core, stub, undecided) -> None:
    users = undecided[:2]
    task_id = await _run(users, agreement=True)
    receiver = bearer(users[1].jwt)
    none = wire.ConfirmTaskRequest(task_id=task_id)
    assert await refused(stub.ConfirmTask(none, metadata=receiver)) is Code.INVALID_ARGUMENT
    both = wire.Decision(is_approved=True, is_rejected=True)
    request = wire.ConfirmTaskRequest(task_id=task_id, decision=both)
    assert await refused(stub.ConfirmTask(request, metadata=receiver)) is Code.INVALID_ARGUMENT
    unknown = wire.ConfirmTaskRequest(task_id="none", decision=wire.Decision(is_approved=True))
    assert await refused(stub.ConfirmTask(unknown, metadata=receiver)) is Code.INTERNAL
    call = stub.FinishTask(wire.Task(task_id="none"), metadata=receiver)
    assert await refused(call) is Code.INTERNAL
    assert await refused(stub.FinishTask(wire.Task(task_id=task_id), metadata=receiver)) is (
        Code.INTERNAL
    )


async def test_expired_tasks_cannot_be_confirmed(undecided) -> None:
    users = undecided[:2]
    task_id = await _run(users, agreement=True, expiration_time=int(time.time()) - 5)
    with pytest.raises(Exception, match="INTERNAL"):
        await blocking(users[1].confirm_task, task_id, True, False, "")


@pytest.mark.ours  # upstream leaves them as they are
async def test_tasks_nobody_decided_on_end_when_they_expire(core: Core, undecided) -> None:
    now = int(time.time())
    expired = await _run(undecided, agreement=True, expiration_time=now - 100)
    alone = await _run(undecided[:1], agreement=True, expiration_time=now - 100)
    later = await _run(undecided, agreement=True, expiration_time=now + 100)
    await core.expiry.sweep(now)
    assert await _statuses(undecided, expired) == ["rejected", "ignored", "ignored"]
    assert await _statuses(undecided[:1], alone) == ["started"]
    assert await _statuses(undecided, later) == ["approved", "waiting", "waiting"]
    assert await _listed(undecided[1], "_internal:protocols:greet:waiting") == [later]


@pytest.mark.ours
async def test_tasks_that_make_no_sense_are_refused(core: Core, stub, alice, bob) -> None:
    caller = bearer(alice.jwt)
    for users in ([], [bob, alice], [alice, bob, bob]):
        task = wire.Task(protocol_name="p", participants=_participants(*users))
        assert await refused(stub.CreateTask(task, metadata=caller)) is Code.INVALID_ARGUMENT


@pytest.mark.ours
async def test_an_unknown_user_is_a_quick_clear_error_and_leaves_nothing(core, stub, alice) -> None:
    stranger = identity.KeyPair.generate().user_id
    task = wire.Task(
        protocol_name="p",
        participants=[
            *_participants(alice),
            wire.Participant(user_id=stranger, role="receiver"),
        ],
    )
    with pytest.raises(Exception, match=stranger):
        await stub.CreateTask(task, metadata=bearer(alice.jwt), timeout=20)
    assert await _listed(alice, "_internal:protocols:p:initiator:started") == []


async def test_the_server_chooses_the_id_and_the_first_decision(core: Core, stub, alice) -> None:
    task = wire.Task(
        task_id="mine",
        status="finished",
        protocol_name="p",
        participants=_participants(alice),
        decisions=[wire.Decision(is_rejected=True)] * 3,
        parent_task="parent",
    )
    reply = await stub.CreateTask(task, metadata=bearer(alice.jwt))
    assert reply == wire.Task(task_id=reply.task_id)
    stored = await _task(alice, reply.task_id)
    assert stored.task_id == reply.task_id != "mine"
    assert (stored.status, stored.parent_task) == ("started", "parent")
    assert [decision.is_approved for decision in stored.decisions] == [True]


class TestFromOtherCores:
    """§6.5: what another core sends to a user of this one."""

    @staticmethod
    def _foreign(core: Core, receiver: str, *others: wire.Participant, **more) -> wire.Task:
        """Return a task as another core's user would send it, its first decision signed."""
        other_core, sender = identity.KeyPair.generate(), identity.KeyPair.generate()
        consent = sender.sign_consent(other_core.public_key, int(time.time()) + 1000)
        task = wire.Task(
            task_id="00000000-0000-4000-8000-000000000001",
            protocol_name="greet",
            participants=[
                wire.Participant(user_id=sender.user_id, role="initiator"),
                wire.Participant(user_id=receiver, role="receiver"),
                *others,
            ],
            expiration_time=int(time.time()) + 1000,
            status="approved",
            **more,
        )
        decision = identity.sign_decision(other_core, task, consent, is_approved=True)
        task.decisions.extend([decision, *[wire.Decision()] * (1 + len(others))])
        return task

    async def test_a_new_task_waits_and_can_be_decided_on(self, core, stub) -> None:
        user = await make_user(core)
        client = stock(core, user.jwt)
        guest = bearer(await blocking(client.generate_token, "guest"))
        task = self._foreign(core, user.user_id)
        await stub.InterCoreSyncTask(task, metadata=guest)
        # The policy module accepts it; without agreement nobody has to be told.
        assert (await _task(client, task.task_id)).status == "started"

    async def test_a_forged_task_is_refused(self, core: Core, stub) -> None:
        user = await make_user(core)
        task = self._foreign(core, user.user_id)
        task.protocol_param = b"changed"
        call = stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        assert await refused(call) is Code.INVALID_ARGUMENT

    async def test_decisions_that_nobody_signed_count_for_nothing(self, core, stub) -> None:
        user = await make_user(core)
        client = stock(core, user.jwt)
        await blocking(client.policy_module_stop)
        task = self._foreign(core, user.user_id, require_agreement=True)
        task.decisions[1].is_approved = True
        await stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        stored = await _task(client, task.task_id)
        assert [decision.is_approved for decision in stored.decisions] == [True, False]

    async def test_a_forged_decision_of_another_is_refused(self, core: Core, stub) -> None:
        user, other = await make_user(core), await make_user(core)
        third = wire.Participant(user_id=other.user_id, role="receiver")
        task = self._foreign(core, user.user_id, third, require_agreement=True)
        task.decisions[2].CopyFrom(task.decisions[0])
        call = stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        assert await refused(call) is Code.INVALID_ARGUMENT

    @pytest.mark.ours
    async def test_a_task_for_somebody_else_is_refused(self, core: Core, stub) -> None:
        user, other = await make_user(core), await make_user(core)
        task = self._foreign(core, other.user_id)
        call = stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        assert await refused(call) is Code.INVALID_ARGUMENT

    async def test_decisions_are_taken_only_with_agreement(self, core: Core, stub) -> None:
        user = await make_user(core)
        task = self._foreign(core, user.user_id)
        await stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        call = stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        assert await refused(call) is Code.INVALID_ARGUMENT

    @pytest.mark.ours
    async def test_an_agreement_with_another_core_is_not_faked(self, core: Core, stub) -> None:
        user = await make_user(core)
        client = stock(core, user.jwt)
        await blocking(client.policy_module_stop)
        task = self._foreign(core, user.user_id, require_agreement=True)
        await stub.InterCoreSyncTask(task, metadata=bearer(user.jwt))
        with pytest.raises(Exception, match="cannot be reached"):
            await blocking(client.confirm_task, task.task_id, True, False, "")
        assert (await _task(client, task.task_id)).status == "waiting"

    async def test_forwarding_needs_a_connection_to_the_target(self, core, stub) -> None:
        user = await make_user(core)
        metadata = (*bearer(user.jwt), ("forwarding-target", "somebody"))
        call = stub.InterCoreSyncTask(wire.Task(), metadata=metadata)
        assert await refused(call) is Code.FAILED_PRECONDITION

    async def test_a_reverse_connection_begins_with_a_task(self, core, stub) -> None:
        user = await make_user(core)
        stream = stub.InterCoreSyncTaskWithReverseConnection(wire.Task(), metadata=bearer(user.jwt))
        assert await refused(stream.read()) is Code.INVALID_ARGUMENT

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"task_id": ""}, Code.INVALID_ARGUMENT),
            ({"task_id": "status:waiting"}, Code.INVALID_ARGUMENT),
            ({"expiration_time": 1}, Code.INTERNAL),
            ({"decisions": []}, Code.INVALID_ARGUMENT),
            ({"decisions": [wire.Decision()] * 2}, Code.INTERNAL),
            ({"participants": []}, Code.INVALID_ARGUMENT),
        ],
        ids=["no-id", "an-id-that-is-a-key", "expired", "undecided", "unsigned", "nobody"],
    )
    async def test_a_task_that_makes_no_sense_is_refused(self, core, stub, change, code) -> None:
        user = await make_user(core)
        task = self._foreign(core, user.user_id)
        for field, value in change.items():
            task.ClearField(field)
            task.MergeFrom(wire.Task(**{field: value}))
        for call in (stub.InterCoreSyncTask, stub.InterCoreSyncTaskWithReverseConnection):
            answer = call(task, metadata=bearer(user.jwt))
            reply = answer if call is stub.InterCoreSyncTask else answer.read()
            assert await refused(reply) is code
        assert core.parts.tasks.get(user.user_id, task.task_id) is None
