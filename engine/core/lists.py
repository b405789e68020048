"""The lists of §6.4 that tasks stand in: what each one's `:latest` says, and when it changed.

All of them are in memory, since a task changes several at each step; what changed is written once,
right before the commit.
"""

from dataclasses import dataclass

from engine.core.store import Store


@dataclass(slots=True)
class TaskList:
    """A list. `latest` is when the newest task came into it, `changed` when it last changed."""

    id: int
    owner_id: int
    name: str
    latest: int
    latest_task: str
    changed: int


class Lists:
    """The lists of all owners, by owner's number and name."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lists: dict[int, dict[str, TaskList]] = {}
        self._dirty: dict[int, TaskList] = {}
        store.before_commit.append(self._write)
        store.on_rollback.append(self._read)
        store.before_savepoint.append(self._write)
        self._read()

    def find(self, owner_id: int, name: str) -> TaskList | None:
        """Return a list; None for one that no task was ever in."""
        return self._lists.get(owner_id, {}).get(name)

    def of(self, owner_id: int) -> list[TaskList]:
        """Return all lists of an owner."""
        return list(self._lists.get(owner_id, {}).values())

    def enter(self, owner_id: int, name: str, task_id: str, timestamp: int) -> int:
        """Note a task as the newest in a list, and return the list's id."""
        lists = self._lists.setdefault(owner_id, {})
        found = lists.get(name)
        if found is None:
            found = TaskList(self._store.tick(), owner_id, name, timestamp, task_id, timestamp)
            lists[name] = found
        else:
            found.latest, found.latest_task, found.changed = timestamp, task_id, timestamp
        self._dirty[found.id] = found
        return found.id

    def leave(self, owner_id: int, name: str, timestamp: int) -> None:
        """Note that a task left a list."""
        found = self._lists[owner_id][name]
        found.changed = timestamp
        self._dirty[found.id] = found

    def _write(self) -> None:
        if self._dirty:
            self._store.write_many(
                "INSERT INTO lists(id, owner, name, latest, latest_task, changed)"
                " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(id) DO UPDATE SET"
                " latest=excluded.latest, latest_task=excluded.latest_task,"
                " changed=excluded.changed",
                [
                    (one.id, one.owner_id, one.name, one.latest, one.latest_task, one.changed)
                    for one in self._dirty.values()
                ],
            )
            self._dirty.clear()

    def _read(self) -> None:
        self._dirty.clear()
        self._lists.clear()
        rows = self._store.execute(
            "SELECT id, owner, name, latest, latest_task, changed FROM lists"
        )
        for row in rows:
            one = TaskList(*row)
            self._lists.setdefault(one.owner_id, {})[one.name] = one
