"""Tasks and their lists, presented as the entries that §6.4 names.

Records show their present version only, and lists are put together when they are read, so that
nothing grows with the number of status changes. A `:latest` entry replays the tasks that are still
in that status, which are those that operators act on.
"""

from collections.abc import Iterable

from engine.colink import wire
from engine.core.entries import Version
from engine.core.lists import Lists
from engine.core.store import Store
from engine.core.task_table import TaskTable

STATUSES = ("waiting", "approved", "started", "rejected", "ignored", "finished")
_TASKS = "_internal:tasks:"
_STATUS = "_internal:tasks:status:"
_PROTOCOLS = "_internal:protocols:"
_LATEST = ":latest"
_KEPT_ENDINGS = tuple(f":{status}{end}" for status in STATUSES for end in ("", _LATEST))


class TaskEntries:
    """The `KeptNames` of the tables `tasks` and `lists`."""

    def __init__(self, store: Store, lists: Lists, table: TaskTable) -> None:
        self._store = store
        self._lists = lists
        self._table = table

    def is_kept(self, name: str) -> bool:
        """Tell whether a name is a task's record, a list, or a list's `:latest`."""
        if name.startswith(_TASKS):
            return True
        return name.startswith(_PROTOCOLS) and name.endswith(_KEPT_ENDINGS)

    def find(self, owner_id: int, name: str) -> Version | None:
        """Return the present version of such an entry."""
        if not self.is_kept(name):
            return None
        self._table.write()
        if name.startswith(_TASKS) and not name.startswith(_STATUS):
            row = self._store.execute(
                "SELECT ts, record FROM tasks WHERE owner=? AND task_id=?",
                (owner_id, name[len(_TASKS) :]),
            ).fetchone()
            return Version(*row) if row else None
        found = self._lists.find(owner_id, name.removesuffix(_LATEST))
        if found is None:
            return None
        if name.endswith(_LATEST):
            return Version(found.latest, _task_id_only(found.latest_task))
        return Version(found.changed, self._members(found.id, owner_id, name))

    def _members(self, list_id: int, owner_id: int, name: str) -> bytes:
        """Return the encoded list of the tasks in the list `name`, oldest first."""
        path = f"{self._store.owner(owner_id)}::{name}{_LATEST}@"
        rows = self._store.execute(_members(name), (list_id, 0))
        payload: bytes = wire.CoLinkInternalTaskIDList(
            task_ids_with_key_paths=[
                wire.CoLinkInternalTaskIDWithKeyPath(key_path=f"{path}{entered}", task_id=task_id)
                for entered, task_id in rows
            ]
        ).SerializeToString()
        return payload

    def since(self, owner_id: int, name: str, timestamp: int) -> list[Version]:
        """Return what a subscription from `timestamp` on replays."""
        if not name.endswith(_LATEST):
            version = self.find(owner_id, name)
            return [version] if version is not None and version.timestamp >= timestamp else []
        found = self._lists.find(owner_id, name.removesuffix(_LATEST))
        if found is None:
            return []
        self._table.write()
        rows = self._store.execute(_members(name), (found.id, timestamp))
        return [Version(entered, _task_id_only(task_id)) for entered, task_id in rows]

    def listing(self, owner_id: int, directory: str) -> Iterable[tuple[str, int]]:
        """Return what §4.2 lists of these names in a directory."""
        if directory == _TASKS:
            self._table.write()
            yield from self._store.execute(
                "SELECT ? || task_id, ts FROM tasks WHERE owner=?", (_TASKS, owner_id)
            )
        for one in self._lists.of(owner_id):
            latest = one.name + _LATEST
            for shown, timestamp in ((one.name, one.changed), (latest, one.latest)):
                if not shown.startswith(directory):
                    continue
                part, colon, _ = shown[len(directory) :].partition(":")
                yield directory + part, 0 if colon else timestamp


def _members(name: str) -> str:
    column = "status_list" if name.startswith(_STATUS) else "protocol_list"
    return (
        f"SELECT entered, task_id FROM tasks WHERE {column}=? AND entered>=?"  # noqa: S608
        " ORDER BY entered"
    )


def _task_id_only(task_id: str) -> bytes:
    payload: bytes = wire.Task(task_id=task_id).SerializeToString()
    return payload
