"""Whether a store is sound, and a copy of one that is in use; both also while a core runs on it.

Nothing is written to the store: it is opened for reading.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.message import DecodeError

from engine.colink import keys, wire
from engine.core import schema
from engine.core.server import STORE_FILE
from engine.kits.files import private_folder
from engine.model.errors import UsageError

_MOST = 20
"""Faults of one kind that are told one by one."""
_SECRETS = "init_state"
_COUNTED = ("owners", "keys", "versions", "tasks", "subscriptions", "outbox")
_INVARIANTS = (
    (
        "keys: {} of user {} says that its latest version is {}, which is not there",
        "SELECT k.name, k.owner, k.latest FROM keys k LEFT JOIN versions v ON v.ts=k.latest"
        " WHERE k.latest>0 AND v.key IS NOT k.id",
    ),
    (
        "keys: {} of user {} has a version {} that is newer than its latest",
        "SELECT k.name, k.owner, v.ts FROM keys k JOIN versions v ON v.key=k.id"
        " WHERE v.ts>ABS(k.latest)",
    ),
    (
        "keys: {} of user {} is not in its directory, but in {!r}",
        "SELECT name, owner, directory FROM keys WHERE directory<>directory_of(name)",
    ),
    (
        "directories: {} of user {} has no marker in its parent",
        "SELECT d.name, d.owner FROM"
        " (SELECT DISTINCT owner, SUBSTR(directory, 1, LENGTH(directory)-1) AS name"
        "  FROM keys WHERE directory<>'' UNION SELECT owner, SUBSTR(parent, 1, LENGTH(parent)-1)"
        "  FROM directories WHERE parent<>'') d"
        " WHERE NOT EXISTS (SELECT 1 FROM directories m WHERE m.owner=d.owner"
        " AND m.parent=directory_of(d.name) AND m.name=d.name)",
    ),
    (
        "versions: {} belongs to no key",
        "SELECT ts FROM versions WHERE key NOT IN (SELECT id FROM keys)",
    ),
    (
        "tasks: {} of user {} stands in a list that is not there, or another user's",
        "SELECT t.task_id, t.owner FROM tasks t LEFT JOIN lists p ON p.id=t.protocol_list"
        " LEFT JOIN lists s ON s.id=t.status_list"
        " WHERE p.owner IS NOT t.owner OR s.owner IS NOT t.owner",
    ),
    (
        "subscriptions: {} belongs to user {}, who has no account",
        "SELECT queue, owner FROM subscriptions WHERE owner NOT IN (SELECT owner FROM accounts)",
    ),
    (
        "outbox: event {} is for the queue {}, which is not there",
        "SELECT id, queue FROM outbox WHERE queue NOT IN (SELECT queue FROM subscriptions)",
    ),
    *(
        (
            f"{table}: something belongs to the user {{}}, who is not there",
            f"SELECT DISTINCT owner FROM {table} WHERE owner NOT IN (SELECT id FROM owners)",  # noqa: S608
        )
        for table in ("users", "keys", "directories", "lists", "tasks", "accounts", "mailbox")
    ),
)


def check(home: Path) -> tuple[list[str], dict[str, int]]:
    """Return the faults of the store in `home`, none when it is sound, and its tables' sizes.

    Raises UsageError when there is no store, or one of another version.
    """
    with _opened(home) as connection:
        faults = [
            f"the file: {text}"
            for (text,) in connection.execute(f"PRAGMA integrity_check({_MOST})")
            if text != "ok"
        ]
        if not faults:
            for text, statement in _INVARIANTS:
                rows = connection.execute(statement).fetchmany(_MOST)
                faults += [text.format(*row) for row in rows]
            faults += list(_task_faults(connection))
        sizes = {
            table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]  # noqa: S608
            for table in (_COUNTED if not faults else ())
        }
    return faults, sizes


def back_up(home: Path, target: Path) -> None:
    """Copy store and secrets of the core in `home` to the new folder `target`, a home again.

    What waits in queues is not copied: where it is missing, the core tells subscribers again what
    the store has. Raises UsageError when `target` has a store already or cannot be written.
    """
    copy = target / STORE_FILE
    if copy.exists():
        raise UsageError(f"{copy} is there already.", "Name another folder.")
    try:
        private_folder(target)
        with _opened(home) as source, contextlib.closing(sqlite3.connect(copy)) as destination:
            copy.chmod(0o600)
            source.backup(destination)
            # Otherwise who opens it for reading has to be able to write beside it.
            destination.execute("PRAGMA journal_mode=DELETE")
        if (home / _SECRETS).exists():
            private_folder(target / _SECRETS)
            for secret in (home / _SECRETS).iterdir():
                shutil.copy2(secret, target / _SECRETS)
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}.") from error


@contextlib.contextmanager
def _opened(home: Path) -> Iterator[sqlite3.Connection]:
    """Open the store for reading, all of it as of one moment."""
    path = (home / STORE_FILE).absolute()
    if not path.exists():
        raise UsageError(f"There is no core's storage in {home}.", "Name its folder with --home.")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)
    with contextlib.closing(connection):
        connection.create_function("directory_of", 1, _directory, deterministic=True)
        try:
            connection.execute("BEGIN")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != schema.VERSION:
                raise UsageError(f"{path} was written by another version of the core ({version}).")
            yield connection
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{path} cannot be read: {error}.") from error


def _task_faults(connection: sqlite3.Connection) -> Iterator[str]:
    """Tell tasks whose record says something else than their row and their lists."""
    rows = connection.execute(
        "SELECT t.task_id, t.owner, t.status, t.role, t.record, p.name, s.name FROM tasks t"
        " JOIN lists p ON p.id=t.protocol_list JOIN lists s ON s.id=t.status_list"
    )
    told = 0
    for task_id, owner, status, role, record, protocol_list, status_list in rows:
        wrong = ""
        try:
            task = wire.Task.FromString(record)
        except DecodeError:
            wrong = "has a record that cannot be read"
        else:
            expected = keys.protocol_list(
                task.protocol_name, status, role if status == "started" else ""
            )
            if (task.task_id, task.status) != (task_id, status):
                wrong = f"has the record of {task.task_id} as {task.status}, and is {status}"
            elif (protocol_list, status_list) != (expected, keys.status_list(status)):
                wrong = f"is {status}, but stands in {protocol_list} and {status_list}"
        if wrong and told < _MOST:
            told += 1
            yield f"tasks: {task_id} of user {owner} {wrong}"


def _directory(name: str) -> str:
    head, colon, _ = name.rpartition(":")
    return head + colon
