"""Tasks among users: each participant's copy, its status, and the lists it stands in (§6).

All participants' copies that live on this core change in one transaction. What those elsewhere are
to get goes into the outbox in the same transaction.
"""

import time
from collections.abc import Callable, Iterable

from engine.colink import keys, wire
from engine.core.lists import Lists
from engine.core.peers.address_book import Pair
from engine.core.peers.outbox import Outbox
from engine.core.refusals import conflict, malformed
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions
from engine.core.task_entries import TaskEntries
from engine.core.task_table import TaskCopy, TaskTable
from engine.core.transitions import (
    EXPIRED,
    check_confirm,
    check_invitation,
    check_request,
    confirmed_status,
    first_status,
    is_decided,
    news,
    places_of,
    role_of,
    same_but_for_decisions,
    status_after_sync,
)
from engine.core.users import Users
from engine.model.ids import new_id


class Tasks:
    """The calls of §6. They are atomic and do not wait."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        lists: Lists,
        table: TaskTable,
        presented: TaskEntries,
        users: Users,
        outbox: Outbox,
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._lists = lists
        self._table = table
        self._presented = presented
        self._users = users
        self._outbox = outbox
        self.on_entered: list[Callable[[TaskCopy], None]] = []
        """Are told of each copy that came to a status, inside the transaction."""

    # Calls of users

    def create(self, caller: str, request: wire.Task) -> str:
        """Make a task, give it to all participants, and return its id."""
        check_request(request, caller)
        task = wire.Task()
        task.CopyFrom(request)
        task.task_id = new_id()
        del task.decisions[:]
        task.decisions.extend(wire.Decision() for _ in task.participants)
        task.decisions[0].CopyFrom(self._users.decide(caller, task, is_approved=True))
        # Its own lists first: whatever others decide meets a task that stands in them.
        own = self._insert(caller, task, first_status(task))
        for participant in task.participants[1:]:
            if participant.user_id in self._users:
                self._insert(participant.user_id, task, "waiting")
            else:
                self._send(caller, participant.user_id, own.task, task, opening=True)
        return str(task.task_id)

    def confirm(self, caller: str, task_id: str, decision: wire.Decision) -> None:
        """Record the caller's decision on a waiting task, and tell those whom it concerns."""
        copy = self._existing(caller, task_id)
        task = copy.task
        check_confirm(copy.status, task, decision, time.time())
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
            decided = wire.Task(task_id=task_id, decisions=task.decisions)
            self._sync(caller, task.participants[0].user_id, decided, task)

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
            check_invitation(task, owner, time.time())
            if self._table.is_forgotten(owner, task.task_id):
                raise conflict(f"The task {task.task_id} has ended.")
            self._insert(owner, self._believed(owner, task), "waiting")
            return
        if not known.task.require_agreement:
            raise malformed("Only tasks with agreement take decisions of others.")
        if time.time() > known.task.expiration_time:
            raise conflict(f"The task {task.task_id} has expired.")
        for place, decision in news(known.task, task, owner):
            user_id = known.task.participants[place].user_id
            self._users.check_decision(known.task, decision, user_id)
        self._take_decisions(known, task)

    def receive_opening(self, owner: str, task: wire.Task) -> str:
        """Take in what opens a reverse connection, and return the initiator's id (§6.6).

        That is a new task, or, where a connection broke, one that is known already.
        """
        known = self.get(owner, task.task_id)
        if known is None or known.task.require_agreement:
            self.receive(owner, task)
        elif not same_but_for_decisions(known.task, task):
            raise malformed("There is another task with this id.")
        initiator = str(self._existing(owner, task.task_id).task.participants[0].user_id)
        if initiator == owner:
            raise malformed("The initiator has no connection to himself.")
        return initiator

    def withdraw(self, owner: str, task_id: str, reason: str) -> None:
        """Take back a task of `owner` that not everybody can agree on, and tell the others."""
        copy = self.get(owner, task_id)
        if copy is None or copy.status != "approved" or places_of(copy.task, owner)[:1] != [0]:
            return
        rejection = self._users.decide(owner, copy.task, is_rejected=True, reason=reason)
        copy.task.decisions[0].CopyFrom(rejection)
        self._move(copy, "rejected")
        self._tell_outcome(copy)

    # Reading

    def get(self, owner: str, task_id: str) -> TaskCopy | None:
        """Return a user's copy of a task."""
        return self._table.get(owner, task_id)

    def in_status(self, owner: str, status: str) -> Iterable[TaskCopy]:
        """Return a user's tasks that have `status` now, in the order in which they came to it."""
        return self._table.in_status(owner, status)

    def elsewhere(self, task: wire.Task) -> list[str]:
        """Return the participants of a new task who are not users of this core."""
        user_ids = [str(participant.user_id) for participant in task.participants]
        return [user_id for user_id in user_ids if user_id not in self._users]

    def initiator_elsewhere(self, caller: str, task_id: str, decision: wire.Decision) -> str | None:
        """Return who elsewhere is to be told of a decision, if anybody; refused as `confirm` is."""
        task = self._existing(caller, task_id).task
        check_confirm(task.status, task, decision, time.time())
        initiator = str(task.participants[0].user_id)
        told = task.require_agreement and (decision.is_approved or decision.is_rejected)
        return initiator if told and self.get(initiator, task_id) is None else None

    # Inside

    def _believed(self, owner: str, task: wire.Task) -> wire.Task:
        """Return a task as far as its signatures go; refused when one of them is wrong.

        What it says of the owner's own decision, or of one that nobody signed, counts for nothing.
        """
        believed = wire.Task()
        believed.CopyFrom(task)
        for place, decision in enumerate(believed.decisions):
            user_id = believed.participants[place].user_id
            if place == 0 or (is_decided(decision) and user_id != owner):
                self._users.check_decision(task, decision, user_id)
            else:
                decision.Clear()
        return believed

    def _existing(self, owner: str, task_id: str) -> TaskCopy:
        copy = self.get(owner, task_id)
        if copy is None:
            raise conflict(f"There is no task {task_id!r}.")
        return copy

    def _sync(self, sender: str, owner: str, decided: wire.Task, task: wire.Task) -> None:
        """Bring the decisions in `decided`, on `task`, to the copy of `owner`, wherever it is."""
        copy = self.get(owner, task.task_id)
        if copy is None:
            self._send(sender, owner, decided, task)
        else:
            self._take_decisions(copy, decided)

    def _take_decisions(self, copy: TaskCopy, task: wire.Task) -> None:
        """Take over others' decisions, and what follows from all that are known now."""
        taken = list(news(copy.task, task, copy.owner))
        for place, decision in taken:
            copy.task.decisions[place].CopyFrom(decision)
        before, after = copy.status, status_after_sync(copy.status, copy.task)
        if not taken and after == before:
            return
        self._move(copy, after)
        if copy.task.participants[0].user_id == copy.owner and before != copy.status:
            self._tell_outcome(copy)

    def _tell_outcome(self, copy: TaskCopy) -> None:
        """Tell all others how an initiator's task was decided; of two, the other knows (§6.5)."""
        others = copy.task.participants[1:]
        for participant in others if len(others) > 1 else ():
            self._sync(copy.owner, participant.user_id, copy.task, copy.task)

    def _send(
        self,
        sender: str,
        receiver: str,
        content: wire.Task,
        task: wire.Task,
        *,
        opening: bool = False,
    ) -> None:
        """Put into the outbox what a user's `task` has to tell somebody elsewhere."""
        self._outbox.add(Pair(sender, receiver), content, task.expiration_time, opening=opening)

    def _insert(self, owner: str, task: wire.Task, status: str) -> TaskCopy:
        copy = TaskCopy(owner, self._store.owner_id(owner), wire.Task(), role_of(task, owner))
        copy.task.CopyFrom(task)
        copy.task.status = ""
        self._move(copy, status)
        return copy

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
            for listener in self.on_entered:
                listener(copy)

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
