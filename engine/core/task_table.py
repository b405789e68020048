"""The table of tasks: each participant's copy, read and written as rarely as possible.

A copy passes through several statuses in one transaction. Within it, copies are shared objects, and
rows are written once: before the commit, before a savepoint, and before the table is searched.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from engine.colink import keys, wire
from engine.core.lists import Lists
from engine.core.store import Store


@dataclass(slots=True)
class TaskCopy:
    """A participant's copy of a task, with its row: see `schema`."""

    owner: str
    owner_id: int
    task: wire.Task
    role: str
    row: int = 0
    timestamp: int = 0
    protocol_list: int = 0
    status_list: int = 0
    entered: int = 0
    stored: bool = False

    @property
    def status(self) -> str:
        """The status of the task for this participant; "" before it has one."""
        return str(self.task.status)

    def lists(self) -> tuple[str, str]:
        """Return the names of the two lists that a copy of this status stands in."""
        role = self.role if self.status == "started" else ""
        return (
            keys.protocol_list(self.task.protocol_name, self.status, role),
            keys.status_list(self.status),
        )


class TaskTable:
    """Copies by owner and task id."""

    def __init__(self, store: Store, lists: Lists) -> None:
        self._store = store
        self._lists = lists
        self._shared: dict[tuple[str, str], TaskCopy] = {}
        self._dirty: dict[tuple[str, str], TaskCopy] = {}
        store.before_commit.append(self._end)
        store.before_savepoint.append(self.write)
        store.on_rollback.append(self._drop)

    def get(self, owner: str, task_id: str) -> TaskCopy | None:
        """Return a user's copy of a task, the same object to all within a transaction."""
        copy = self._shared.get((owner, task_id))
        if copy is None:
            owner_id = self._store.known_owner_id(owner)
            row = self._store.execute(
                "SELECT role, record, id, ts, protocol_list, status_list, entered FROM tasks"
                " WHERE owner=? AND task_id=?",
                (owner_id, task_id),
            ).fetchone()
            if row is None:
                return None
            copy = TaskCopy(owner, owner_id, wire.Task.FromString(row[1]), row[0], *row[2:])
            copy.stored = True
            if self._store.in_transaction:
                self._shared[owner, task_id] = copy
        return copy

    def is_forgotten(self, owner: str, task_id: str) -> bool:
        """Tell whether there was such a task that ended, and was removed before it expired."""
        row = self._store.execute(
            "SELECT 1 FROM forgotten WHERE owner=? AND task_id=?",
            (self._store.known_owner_id(owner), task_id),
        ).fetchone()
        return row is not None

    def in_status(self, owner: str, status: str) -> Iterable[TaskCopy]:
        """Return a user's tasks that have `status` now, in the order in which they came to it."""
        found = self._lists.find(self._store.known_owner_id(owner), keys.status_list(status))
        if found is None:
            return []
        self.write()
        rows = self._store.execute(
            "SELECT task_id FROM tasks WHERE status_list=? ORDER BY entered", (found.id,)
        ).fetchall()
        copies = [self.get(owner, row[0]) for row in rows]
        return [copy for copy in copies if copy is not None]

    def put(self, copy: TaskCopy) -> None:
        """Keep a new or changed copy."""
        key = copy.owner, copy.task.task_id
        self._store.open()
        self._shared[key] = self._dirty[key] = copy

    def write(self) -> None:
        """Write what is kept, so that the table can be searched."""
        for copy in self._dirty.values():
            place = (copy.timestamp, copy.status, copy.task.SerializeToString())
            lists = (copy.protocol_list, copy.status_list, copy.entered)
            if copy.stored:
                self._store.write(
                    "UPDATE tasks SET ts=?, status=?, record=?, protocol_list=?, status_list=?,"
                    " entered=? WHERE id=?",
                    (*place, *lists, copy.row),
                )
            else:
                self._store.write(
                    "INSERT INTO tasks(ts, status, record, protocol_list, status_list, entered,"
                    " id, owner, task_id, role) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (*place, *lists, copy.row, copy.owner_id, copy.task.task_id, copy.role),
                )
                copy.stored = True
        self._dirty.clear()

    def _end(self) -> None:
        self.write()
        self._shared.clear()

    def _drop(self) -> None:
        self._dirty.clear()
        self._shared.clear()
