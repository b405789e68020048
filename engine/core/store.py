"""The one SQLite file: transactions shared by all calls of a loop iteration, and the one clock.

Everything that changes the core's state runs on the event loop without awaiting in between, so that
each change is atomic by itself. The first write begins a transaction; it is committed when the
callbacks that are ready now have run. Replies and events leave only after `committed()`.
"""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.core import schema
from engine.model.errors import UsageError

log = logging.getLogger(__name__)
_CHECKPOINT_EVERY = 2_000
"""Commits between two checkpoints; the write-ahead log stays at a few megabytes."""

Values = Sequence[Any]


class Store:
    """A connection on the event loop's thread. Owners are small numbers here: see `owner_id`."""

    def __init__(self, path: Path, on_failure: Callable[[BaseException], None]) -> None:
        """Open or create the file. `on_failure` is told when a commit fails (disk full, I/O).

        Raises UsageError when it is not a file of ours.
        """
        self._path = path
        self._on_failure = on_failure
        self._batch: asyncio.Future[None] | None = None
        self.closed = False
        self._commits = 0
        self._checkpoint: asyncio.Future[None] | None = None
        self._after_commit: list[Callable[[], None]] = []
        self._connection = _open(path)
        self.execute = self._connection.execute
        """Run a statement that only reads and return its cursor."""
        row = self.execute("SELECT value FROM meta WHERE name='clock'").fetchone()
        self._clock = int(row[0]) if row else 0
        self._owner_ids: dict[str, int] = {
            user_id: owner for owner, user_id in self.execute("SELECT id, user_id FROM owners")
        }
        self._owners = {owner: user_id for user_id, owner in self._owner_ids.items()}

    def tick(self) -> int:
        """Return now in nanoseconds, but greater than all before, also those of earlier runs."""
        now = time.time_ns()
        self._clock = now if now > self._clock else self._clock + 1
        return self._clock

    def owner_id(self, user_id: str) -> int:
        """Return the number of a user (or the host); a new one gets the next."""
        owner = self._owner_ids.get(user_id)
        if owner is None:
            owner = len(self._owner_ids) + 1
            self.write("INSERT INTO owners(id, user_id) VALUES(?, ?)", (owner, user_id))
            self._owner_ids[user_id] = owner
            self._owners[owner] = user_id
        return owner

    def known_owner_id(self, user_id: str) -> int:
        """Return the number of a user, or 0, which no user has, for one without any entry."""
        return self._owner_ids.get(user_id, 0)

    def owner(self, owner_id: int) -> str:
        """Return the user id behind a number."""
        return self._owners[owner_id]

    @property
    def in_transaction(self) -> bool:
        """Tell whether something is written that is not committed yet."""
        return self._batch is not None

    def write(self, statement: str, values: Values = ()) -> sqlite3.Cursor:
        """Run a statement that writes, in this iteration's transaction."""
        if self._batch is None:
            self._begin()
        return self.execute(statement, values)

    def write_many(self, statement: str, rows: Iterable[Values]) -> None:
        """Run a statement once for each row."""
        if self._batch is None:
            self._begin()
        self._connection.executemany(statement, rows)

    async def committed(self) -> None:
        """Wait until everything written so far survives the death of this process."""
        if self._batch is not None:
            await asyncio.shield(self._batch)

    def after_commit(self, action: Callable[[], None]) -> None:
        """Run `action` once the open transaction is committed, or at once if there is none."""
        if self._batch is None:
            action()
        else:
            self._after_commit.append(action)

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Undo what the body wrote, and nothing else, when it raises."""
        self.write("SAVEPOINT part")
        actions = len(self._after_commit)
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO part")
            del self._after_commit[actions:]
            raise
        finally:
            self.execute("RELEASE part")

    def meta(self, name: str) -> Any:
        """Return a value kept with `set_meta`, or None."""
        row = self.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return row[0] if row else None

    def set_meta(self, name: str, value: str | int) -> None:
        """Keep a value of the core itself."""
        self.write("INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", (name, value))

    async def close(self) -> None:
        """Commit what is open and close the file."""
        await self.committed()
        if self._checkpoint is not None:
            await asyncio.wait([self._checkpoint])
        self.closed = True
        self._connection.close()

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        loop = asyncio.get_running_loop()
        self._batch = loop.create_future()
        loop.call_soon(self._commit)

    def _commit(self) -> None:
        batch, self._batch = self._batch, None
        actions, self._after_commit = self._after_commit, []
        assert batch is not None
        try:
            self.execute("UPDATE meta SET value=? WHERE name='clock'", (self._clock,))
            self.execute("COMMIT")
        except sqlite3.Error as error:
            # What is in memory may now differ from the file: the core has to start afresh.
            log.critical("cannot commit to %s: %s", self._path, error)
            batch.set_exception(error)
            batch.exception()
            self._on_failure(error)
            return
        batch.set_result(None)
        for action in actions:
            action()
        self._commits += 1
        if self._commits >= _CHECKPOINT_EVERY and self._checkpoint is None:
            self._commits = 0
            loop = asyncio.get_running_loop()
            self._checkpoint = loop.run_in_executor(None, _checkpoint, self._path)
            self._checkpoint.add_done_callback(self._checkpointed)

    def _checkpointed(self, done: "asyncio.Future[None]") -> None:
        self._checkpoint = None
        if not done.cancelled() and (error := done.exception()) is not None:
            log.warning("checkpoint of %s failed, the next one will do: %s", self._path, error)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        for pragma in (
            "synchronous=NORMAL",
            "wal_autocheckpoint=0",
            "cache_size=-65536",
            "temp_store=MEMORY",
        ):
            connection.execute(f"PRAGMA {pragma}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(
                f"BEGIN; {schema.SCHEMA} INSERT INTO meta VALUES('clock', 0);"
                f"PRAGMA user_version={schema.VERSION}; COMMIT;"
            )
        elif version != schema.VERSION:
            raise UsageError(f"{path} was written by another version of the core ({version}).")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(f"{path} cannot be used: {error}.") from error
    except UsageError:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _checkpoint(path: Path) -> None:
    """Move the write-ahead log into the file, in a thread: only this step waits for the disk."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()
