"""What is forgotten after a while, and what is not, whatever its age."""

import time

import pytest

from engine.colink import keys, wire
from engine.colink.mailbox import encode_push
from engine.core.check import check
from engine.core.retention import Retention
from engine.core.server import Core
from tests.support.core import make_user

HOUR = 3600 * 10**9


class Sweeper:
    """Retention of a day, at a time that is `hours` from now."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def sweep(self, hours: float = 25, history_hours: float = 0) -> None:
        store = self._core.parts.store
        now = time.time_ns() + int(hours * HOUR)
        await store.committed()
        await Retention(store, 24, history_hours, lambda: now).sweep()
        await store.committed()
        assert check(self._core.settings.home)[0] == []


def _name_and_time(path: str) -> tuple[str, int]:
    name, _, timestamp = path.partition("::")[2].partition("@")
    return name, int(timestamp)


@pytest.fixture
def old(core: Core) -> Sweeper:
    return Sweeper(core)


async def test_transferred_messages_go_a_day_after_their_last_change(core: Core, old) -> None:
    entries, user_id = core.parts.entries, (await make_user(core)).user_id
    names = [
        *(keys.push_message("m"), "push_tasks:m:response", keys.get_instance_calls("r")),
        *(keys.variable(user_id, "t", "msg"), keys.task_po_mapping("t"), keys.task_output("t")),
    ]
    for name in names:
        entries.create(user_id, name, b"1")
    await old.sweep(23)
    assert all(entries.get(user_id, name) == b"1" for name in names)
    await old.sweep()
    assert all(entries.get(user_id, name) is None for name in names)
    assert entries.listing(user_id, "push_tasks:", history=True) == []
    entries.create(user_id, names[0], b"again")
    assert entries.get(user_id, names[0]) == b"again"


async def test_users_history_stays_unless_configured(core: Core, old) -> None:
    entries, user_id = core.parts.entries, (await make_user(core)).user_id
    paths = [entries.create(user_id, "a", b"1"), entries.update(user_id, "a", b"2")]
    paths.append(entries.create(user_id, "gone:b", b"3"))
    entries.delete(user_id, "gone:b")

    def values() -> list[bytes | None]:
        return [
            entries.find_version(
                user_id, path.split("::")[1].split("@")[0], int(path.split("@")[1])
            )
            for path in paths
        ]

    await old.sweep(10_000)
    assert values() == [b"1", b"2", b"3"]
    await old.sweep(9, history_hours=10)
    assert values() == [b"1", b"2", b"3"]
    await old.sweep(11, history_hours=10)
    assert values() == [None, b"2", None]
    assert entries.listing(user_id, "gone:", history=True) == []


async def test_locks_and_the_cores_own_entries_leave_no_history(core: Core, old) -> None:
    entries, user_id = core.parts.entries, (await make_user(core)).user_id
    entries.create(user_id, "_lock:a", b"1")
    entries.delete(user_id, "_lock:a")
    entries.create(user_id, "_internal:x", b"1")
    entries.update(user_id, "_internal:x", b"2")
    await old.sweep()
    assert entries.since(user_id, "_lock:a", 0) == []
    assert [version.payload for version in entries.since(user_id, "_internal:x", 0)] == [b"2"]


async def test_ended_tasks_go_and_others_stay(core: Core, old) -> None:
    user_id, tasks = (await make_user(core)).user_id, core.parts.tasks
    me = [wire.Participant(user_id=user_id, role="local")]
    ended, running = (
        tasks.create(user_id, wire.Task(protocol_name="p", participants=me)) for _ in range(2)
    )
    core.parts.entries.create(user_id, keys.task_po_mapping(running), b"x")
    tasks.finish(user_id, ended)
    await old.sweep(23)
    assert tasks.get(user_id, ended) is not None
    await old.sweep()
    assert tasks.get(user_id, ended) is None
    assert tasks.get(user_id, running) is not None
    assert core.parts.entries.get(user_id, keys.task_po_mapping(running)) == b"x"


async def test_a_task_stays_as_long_as_any_participant_has_it_before_him(core: Core, old) -> None:
    initiator, receiver = [(await make_user(core)).user_id for _ in range(2)]
    tasks = core.parts.tasks
    task = wire.Task(
        protocol_name="p",
        participants=[
            wire.Participant(user_id=initiator, role="initiator"),
            wire.Participant(user_id=receiver, role="receiver"),
        ],
        expiration_time=2**31,
    )
    task_id = tasks.create(initiator, task)
    tasks.finish(initiator, task_id)
    await old.sweep()
    assert tasks.get(initiator, task_id) is not None
    tasks.confirm(receiver, task_id, wire.Decision(is_rejected=True))
    await old.sweep()
    assert tasks.get(initiator, task_id) is tasks.get(receiver, task_id) is None


async def test_messages_that_wait_for_a_flow_stay(core: Core, old) -> None:
    user_id = (await make_user(core, ("coflows_scheduler",))).user_id
    parts, me = core.parts, []
    me = [wire.Participant(user_id=user_id, role="receiver")]
    for message in ("m1", "m2"):
        key = keys.push_message(message)
        parts.entries.create(user_id, key, b"{}")
        task = wire.Task(
            protocol_name="coflows_push", protocol_param=encode_push("f", key), participants=me
        )
        parts.tasks.create(user_id, task)
        parts.effects.run()
    await old.sweep()
    # One is with a worker, the other waits behind it.
    for message in ("m1", "m2"):
        assert parts.entries.get(user_id, keys.push_message(message)) == b"{}"
    for _ in range(2):
        (dispatch,) = parts.tasks.in_status(user_id, "started")
        parts.tasks.finish(user_id, dispatch.task.task_id)
        parts.effects.run()
    await old.sweep()
    for message in ("m1", "m2"):
        assert parts.entries.get(user_id, keys.push_message(message)) is None


async def test_a_thousand_of_each_are_forgotten_in_steps(core: Core, old) -> None:
    user_id, parts = (await make_user(core)).user_id, core.parts
    me = [wire.Participant(user_id=user_id, role="local")]
    for number in range(1000):
        parts.entries.create(user_id, keys.push_message(str(number)), b"{}")
        task_id = parts.tasks.create(user_id, wire.Task(protocol_name="p", participants=me))
        parts.tasks.finish(user_id, task_id)
    await old.sweep()
    assert check(core.settings.home)[1]["tasks"] == 0
    assert parts.entries.listing(user_id, "push_tasks:", history=True) == []
