"""Tasks and their lists, presented as the entries that §6.4 names.

Records show their present version only, and lists are put together when they are read, so that
nothing grows with the number of status changes. A `:latest` entry replays the tasks that are still
in that status, which are those that operators act on.
"""

from collections.abc import Iterable

from engine.colink import wire
from engine.core.entries import Version
from engine.core.store import Store

STATUSES = ("waiting", "approved", "started", "rejected", "ignored", "finished")
_TASKS = "_internal:tasks:"
_STATUS = "_internal:tasks:status:"
_PROTOCOLS = "_internal:protocols:"
_LATEST = ":latest"
_KEPT_ENDINGS = tuple(f":{status}{end}" for status in STATUSES for end in ("", _LATEST))


class TaskEntries:
    """The `KeptNames` of the tables `tasks` and `lists`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def is_kept(self, name: str) -> bool:
        """Tell whether a name is a task's record, a list, or a list's `:latest`."""
        if name.startswith(_TASKS):
            return True
        return name.startswith(_PROTOCOLS) and name.endswith(_KEPT_ENDINGS)

    def find(self, owner_id: int, name: str) -> Version | None:
        """Return the present version of such an entry."""
        if not self.is_kept(name):
            return None
        if name.startswith(_TASKS) and not name.startswith(_STATUS):
            row = self._store.execute(
                "SELECT ts, record FROM tasks WHERE owner=? AND task_id=?",
                (owner_id, name[len(_TASKS) :]),
            ).fetchone()
            return Version(*row) if row else None
        row = self._store.execute(
            "SELECT id, latest, latest_task, changed FROM lists WHERE owner=? AND name=?",
            (owner_id, name.removesuffix(_LATEST)),
        ).fetchone()
        if row is None:
            return None
        list_id, latest, task_id, changed = row
        if name.endswith(_LATEST):
            return Version(latest, _task_id_only(task_id))
        return Version(changed, self.list_value(list_id, owner_id, name))

    def list_value(self, list_id: int, owner_id: int, name: str) -> bytes:
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
        row = self._store.execute(
            "SELECT id FROM lists WHERE owner=? AND name=?",
            (owner_id, name.removesuffix(_LATEST)),
        ).fetchone()
        if row is None or not self.is_kept(name):
            return []
        rows = self._store.execute(_members(name), (row[0], timestamp))
        return [Version(entered, _task_id_only(task_id)) for entered, task_id in rows]

    def listing(self, owner_id: int, directory: str) -> Iterable[tuple[str, int]]:
        """Return what §4.2 lists of these names in a directory."""
        if directory == _TASKS:
            yield from self._store.execute(
                "SELECT ? || task_id, ts FROM tasks WHERE owner=?", (_TASKS, owner_id)
            )
        rows = self._store.execute(
            "SELECT name, latest, changed FROM lists WHERE owner=?", (owner_id,)
        )
        for name, latest, changed in rows:
            for shown, timestamp in ((name, changed), (name + _LATEST, latest)):
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
