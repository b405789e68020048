"""Tasks among users: each participant's copy, its status, and the lists it stands in (§6).

All participants' copies that live on this core change in one transaction. Others are reached
through `Delivery`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from engine.colink import keys, wire
from engine.core.delivery import Delivery
from engine.core.refusals import conflict, malformed
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions
from engine.core.task_entries import TaskEntries
from engine.core.transitions import (
    check_confirm,
    check_request,
    confirmed_status,
    first_status,
    is_decided,
    places_of,
    role_of,
    status_after_sync,
)
from engine.core.users import Users
from engine.model.ids import new_id


@dataclass(slots=True)
class TaskCopy:
    """A participant's copy of a task. `row` is its row's id; 0 before it is stored."""

    owner: str
    task: wire.Task
    role: str
    row: int = 0

    @property
    def status(self) -> str:
        """The status of the task for this participant."""
        return str(self.task.status)


class Tasks:
    """The calls of §6. They are atomic and do not wait, but for what `Delivery` sends elsewhere."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        presented: TaskEntries,
        users: Users,
        delivery: Delivery,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._presented = presented
        self._users = users
        self._delivery = delivery
        self.on_entered: Callable[[TaskCopy], None] = lambda copy: None
        """Is told of each copy that came to a status, inside the transaction."""

    # Calls of users

    def create(self, caller: str, request: wire.Task) -> str:
        """Make a task, give it to all participants, and return its id."""
        check_request(request, caller)
        others = [participant.user_id for participant in request.participants[1:]]
        self._delivery.check(others)
        task = wire.Task()
        task.CopyFrom(request)
        task.task_id = new_id()
        del task.decisions[:]
        task.decisions.extend(wire.Decision() for _ in task.participants)
        task.decisions[0].CopyFrom(self._users.decide(caller, task, is_approved=True))
        self._insert(caller, task, first_status(task))
        for user_id in others:
            self._insert(user_id, task, "waiting")
        return str(task.task_id)

    def confirm(self, caller: str, task_id: str, decision: wire.Decision) -> None:
        """Record the caller's decision on a waiting task, and tell those whom it concerns."""
        copy = self._existing(caller, task_id)
        task = copy.task
        check_confirm(copy.status, task, decision, time.time())
        initiator = task.participants[0].user_id
        if task.require_agreement:
            self._delivery.check([initiator])
        signed = self._users.decide(
            caller,
            task,
            is_approved=decision.is_approved,
            is_rejected=decision.is_rejected,
            reason=decision.reason,
        )
        for place in places_of(task, caller):
            task.decisions[place].CopyFrom(signed)
        self._move(copy, confirmed_status(task, signed))
        if task.require_agreement and copy.status != "ignored":
            self._sync(initiator, task)

    def finish(self, caller: str, task_id: str) -> None:
        """End the caller's copy of a started task."""
        copy = self._existing(caller, task_id)
        if copy.status != "started":
            raise conflict(f"The task {task_id} is {copy.status}, not started.")
        self._move(copy, "finished")

    def receive(self, owner: str, task: wire.Task) -> None:
        """Take in what another core sends a user of this one: a new task, or decisions (§6.5)."""
        known = self.get(owner, task.task_id)
        if known is None:
            self._receive_new(owner, task)
            return
        if not known.task.require_agreement:
            raise malformed("Only tasks with agreement take decisions of others.")
        if time.time() > known.task.expiration_time:
            raise conflict(f"The task {task.task_id} has expired.")
        for place, decision in enumerate(task.decisions[: len(known.task.participants)]):
            user_id = known.task.participants[place].user_id
            if user_id != owner and is_decided(decision):
                self._users.check_decision(known.task, decision, user_id)
        self._sync(owner, task)

    # Reading

    def get(self, owner: str, task_id: str) -> TaskCopy | None:
        """Return a user's copy of a task."""
        row = self._store.execute(
            "SELECT id, role, record FROM tasks WHERE owner=? AND task_id=?",
            (self._store.known_owner_id(owner), task_id),
        ).fetchone()
        if row is None:
            return None
        return TaskCopy(owner, wire.Task.FromString(row[2]), row[1], row[0])

    def in_status(self, owner: str, status: str) -> Iterable[TaskCopy]:
        """Return a user's tasks that have `status` now, in the order in which they came to it."""
        rows = self._store.execute(
            "SELECT t.id, t.role, t.record FROM lists l JOIN tasks t ON t.status_list=l.id"
            " WHERE l.owner=? AND l.name=? ORDER BY t.entered",
            (self._store.known_owner_id(owner), keys.status_list(status)),
        ).fetchall()
        return [TaskCopy(owner, wire.Task.FromString(row[2]), row[1], row[0]) for row in rows]

    # Inside

    def _existing(self, owner: str, task_id: str) -> TaskCopy:
        copy = self.get(owner, task_id)
        if copy is None:
            raise conflict(f"There is no task {task_id!r}.")
        return copy

    def _receive_new(self, owner: str, task: wire.Task) -> None:
        if not places_of(task, owner) or task.participants[0].user_id == owner:
            raise malformed("The task is not one that this user is asked to take part in.")
        if len(task.decisions) != len(task.participants):
            raise malformed("A task has one decision for each participant.")
        self._users.check_decision(task, task.decisions[0], task.participants[0].user_id)
        if not task.decisions[0].is_approved:
            raise conflict("The initiator did not approve the task.")
        self._insert(owner, task, "waiting")

    def _sync(self, owner: str, task: wire.Task) -> None:
        """Take over the decisions in `task` at the copy of `owner`, here or elsewhere."""
        copy = self.get(owner, task.task_id)
        if copy is None:
            self._delivery.send(owner, task)
            return
        for place, decision in enumerate(task.decisions[: len(copy.task.participants)]):
            if copy.task.participants[place].user_id != owner and is_decided(decision):
                copy.task.decisions[place].CopyFrom(decision)
        before = copy.status
        self._move(copy, status_after_sync(before, copy.task))
        others = copy.task.participants[1:]
        if copy.task.participants[0].user_id == owner and before != copy.status and len(others) > 1:
            for participant in others:
                self._sync(participant.user_id, copy.task)

    def _insert(self, owner: str, task: wire.Task, status: str) -> None:
        copy = TaskCopy(owner, wire.Task(), role_of(task, owner))
        copy.task.CopyFrom(task)
        self._move(copy, status)

    def _move(self, copy: TaskCopy, status: str) -> None:
        """Store a copy's record; when its status changes, move it between lists, and tell."""
        store, owner_id = self._store, self._store.owner_id(copy.owner)
        before, copy.task.status = copy.status, status
        record, timestamp = copy.task.SerializeToString(), store.tick()
        if copy.row and status == before:
            store.write("UPDATE tasks SET ts=?, record=? WHERE id=?", (timestamp, record, copy.row))
            self._tell_record(owner_id, copy, timestamp, record)
            return
        left = _lists(copy, before) if copy.row else ()
        entered_lists = _lists(copy, status)
        entered = store.tick()
        ids = [self._enter(owner_id, name, entered, copy.task.task_id) for name in entered_lists]
        if copy.row:
            store.write(
                "UPDATE tasks SET ts=?, status=?, record=?, protocol_list=?, status_list=?,"
                " entered=? WHERE id=?",
                (timestamp, status, record, *ids, entered, copy.row),
            )
            store.write_many(
                "UPDATE lists SET changed=? WHERE owner=? AND name=?",
                [(entered, owner_id, name) for name in left],
            )
        else:
            copy.row = timestamp
            store.write(
                "INSERT INTO tasks(id, owner, task_id, ts, status, role, record, protocol_list,"
                " status_list, entered) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(copy.row, owner_id, copy.task.task_id, timestamp, status, copy.role),
                    *(record, *ids, entered),
                ),
            )
        self._tell_record(owner_id, copy, timestamp, record)
        self._tell_lists(owner_id, copy.task.task_id, entered, left, entered_lists)
        self.on_entered(copy)

    def _enter(self, owner_id: int, name: str, entered: int, task_id: str) -> int:
        """Note a task as the newest in a list, and return the list's id."""
        row = self._store.write(
            "INSERT INTO lists(id, owner, name, latest, latest_task, changed)"
            " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(owner, name) DO UPDATE SET"
            " latest=excluded.latest, latest_task=excluded.latest_task, changed=excluded.changed"
            " RETURNING id",
            (self._store.tick(), owner_id, name, entered, task_id, entered),
        ).fetchone()
        return int(row[0])

    def _tell_record(self, owner_id: int, copy: TaskCopy, timestamp: int, record: bytes) -> None:
        name = keys.task(copy.task.task_id)
        self._subscriptions.emit(owner_id, name, "update", timestamp, record)

    def _tell_lists(
        self,
        owner_id: int,
        task_id: str,
        entered: int,
        left: Iterable[str],
        entered_lists: Iterable[str],
    ) -> None:
        for name in left:
            self._tell_list(owner_id, name, entered)
        latest = wire.Task(task_id=task_id).SerializeToString()
        for name in entered_lists:
            self._subscriptions.emit(owner_id, f"{name}:latest", "update", entered, latest)
            self._tell_list(owner_id, name, entered)

    def _tell_list(self, owner_id: int, name: str, timestamp: int) -> None:
        if self._subscriptions.listened(owner_id, name):
            version = self._presented.find(owner_id, name)
            if version is not None:
                self._subscriptions.emit(owner_id, name, "update", timestamp, version.payload)


def _lists(copy: TaskCopy, status: str) -> tuple[str, str]:
    """Return the names of the two lists that a copy with `status` stands in."""
    role = copy.role if status == "started" else ""
    return keys.protocol_list(copy.task.protocol_name, status, role), keys.status_list(status)
