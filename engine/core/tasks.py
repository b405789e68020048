"""Tasks among users: each participant's copy, its status, and the lists it stands in (§6).

All participants' copies that live on this core change in one transaction. Others are reached
through `Delivery`.
"""

import time
from collections.abc import Callable, Iterable

from engine.colink import keys, wire
from engine.core.delivery import Delivery
from engine.core.lists import Lists
from engine.core.refusals import conflict, malformed
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions
from engine.core.task_entries import TaskEntries
from engine.core.task_table import TaskCopy, TaskTable
from engine.core.transitions import (
    EXPIRED,
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


class Tasks:
    """The calls of §6. They are atomic and do not wait, but for what `Delivery` sends elsewhere."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        lists: Lists,
        table: TaskTable,
        presented: TaskEntries,
        users: Users,
        delivery: Delivery,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._lists = lists
        self._table = table
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

    def expire(self, owner: str, before: float) -> None:
        """End a user's tasks that expired before the Unix second `before` without being decided on.

        Nobody can decide any more, so nobody has to be told: each copy expires by itself.
        """
        for status, final in EXPIRED.items():
            for copy in self.in_status(owner, status):
                if copy.task.expiration_time < before:
                    self._move(copy, final)

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
        return self._table.get(owner, task_id)

    def in_status(self, owner: str, status: str) -> Iterable[TaskCopy]:
        """Return a user's tasks that have `status` now, in the order in which they came to it."""
        return self._table.in_status(owner, status)

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
        copy = TaskCopy(owner, self._store.owner_id(owner), wire.Task(), role_of(task, owner))
        copy.task.CopyFrom(task)
        copy.task.status = ""
        self._move(copy, status)

    def _move(self, copy: TaskCopy, status: str) -> None:
        """Keep a copy's record; when its status changes, move it between lists, and tell."""
        left = copy.lists() if copy.row else ()
        moved = status != copy.status
        copy.timestamp, copy.task.status = self._store.tick(), status
        copy.row = copy.row or copy.timestamp
        task_id, entered_lists = copy.task.task_id, copy.lists()
        if moved:
            copy.entered = self._store.tick()
            for name in left:
                self._lists.leave(copy.owner_id, name, copy.entered)
            copy.protocol_list, copy.status_list = (
                self._lists.enter(copy.owner_id, name, task_id, copy.entered)
                for name in entered_lists
            )
        self._table.put(copy)
        name = keys.task(task_id)
        if self._subscriptions.listened(copy.owner_id, name):
            record = copy.task.SerializeToString()
            self._subscriptions.emit(copy.owner_id, name, "update", copy.timestamp, record)
        if moved:
            self._tell_lists(copy, left, entered_lists)
            self.on_entered(copy)

    def _tell_lists(
        self, copy: TaskCopy, left: Iterable[str], entered_lists: Iterable[str]
    ) -> None:
        for name in left:
            self._tell_list(copy, name)
        latest = wire.Task(task_id=copy.task.task_id).SerializeToString()
        for name in entered_lists:
            self._subscriptions.emit(
                copy.owner_id, f"{name}:latest", "update", copy.entered, latest
            )
            self._tell_list(copy, name)

    def _tell_list(self, copy: TaskCopy, name: str) -> None:
        if self._subscriptions.listened(copy.owner_id, name):
            version = self._presented.find(copy.owner_id, name)
            if version is not None:
                self._subscriptions.emit(copy.owner_id, name, "update", *version)
