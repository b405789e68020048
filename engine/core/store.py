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
_RESERVE = 10 * 10**9
_LOG_LOOKED_AT_EVERY = 64
"""Commits between two looks at the size of the write-ahead log."""
_LOG_SIZE = 16 * 2**20
"""From this size on, in bytes, the log is moved into the file."""

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
        self._log = Path(f"{path}-wal")
        self._log_is_written = False
        self._checkpoint: asyncio.Future[None] | None = None
        self._after_commit: list[Callable[[], None]] = []
        self.before_commit: list[Callable[[], None]] = []
        """Called before each commit: write what is kept in memory for that."""
        self.before_savepoint: list[Callable[[], None]] = []
        """Called before each savepoint, for the same reason."""
        self.on_rollback: list[Callable[[], None]] = []
        """Called after a rollback to a savepoint: read again what is kept in memory."""
        self._connection = _open(path)
        self.execute = self._connection.execute
        """Run a statement that only reads and return its cursor."""
        self._clock = self._first_tick()
        self._reserved = self._clock
        self._owner_ids: dict[str, int] = {
            user_id: owner for owner, user_id in self.execute("SELECT id, user_id FROM owners")
        }
        self._owners = {owner: user_id for user_id, owner in self._owner_ids.items()}

    def tick(self) -> int:
        """Return now in nanoseconds, but greater than all before, also those of earlier runs."""
        now = time.time_ns()
        self._clock = now if now > self._clock else self._clock + 1
        if self._clock > self._reserved:
            self._reserved = self._clock + _RESERVE
            self.set_meta("reserved", self._reserved)
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

    def open(self) -> None:
        """Begin this iteration's transaction, if it has none yet."""
        if self._batch is None:
            self._begin()

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
        for action in self.before_savepoint:
            action()
        self.write("SAVEPOINT part")
        actions = len(self._after_commit)
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK TO part")
            del self._after_commit[actions:]
            for action in self.on_rollback:
                action()
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

    def _first_tick(self) -> int:
        """Return a timestamp that none in the file is later than.

        The time reserved by an earlier run matters only when the machine's clock was set back.
        """
        newest = max(
            self.execute(f"SELECT COALESCE(MAX({column}), 0) FROM {table}").fetchone()[0]  # noqa: S608
            for table, column in (
                *(("versions", "ts"), ("outbox", "id")),
                *(("tasks", "id"), ("lists", "changed"), ("parcels", "id")),
            )
        )
        reserved = self.meta("reserved") or 0
        return int(reserved if time.time_ns() < reserved - _RESERVE else newest)

    def _begin(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        loop = asyncio.get_running_loop()
        self._batch = loop.create_future()
        loop.call_soon(self._commit)

    def _commit(self) -> None:
        batch = self._batch
        assert batch is not None
        try:
            for action in self.before_commit:
                action()
            self._batch = None
            self.execute("COMMIT")
        except Exception as error:
            self._batch = None
            self._after_commit.clear()
            # What is in memory may now differ from the file: the core has to start afresh.
            log.critical("cannot commit to %s: %s", self._path, error)
            batch.set_exception(error)
            batch.exception()
            self._on_failure(error)
            return
        batch.set_result(None)
        actions, self._after_commit = self._after_commit, []
        for action in actions:
            action()
        self._commits += 1
        if self._log_is_written:
            self._end_checkpoint()
        elif self._commits % _LOG_LOOKED_AT_EVERY == 0 and self._checkpoint is None:
            self._begin_checkpoint()

    def _begin_checkpoint(self) -> None:
        """Move a large log into the file, in a thread: nearly all of the waiting for the disk."""
        if self._log.stat().st_size > _LOG_SIZE:
            loop = asyncio.get_running_loop()
            self._checkpoint = loop.run_in_executor(None, _checkpoint, self._path)
            self._checkpoint.add_done_callback(self._checkpointed)

    def _end_checkpoint(self) -> None:
        """Move what was logged meanwhile, and begin the log anew: under load it never would."""
        self._log_is_written = False
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _checkpointed(self, done: "asyncio.Future[None]") -> None:
        self._checkpoint = None
        if not done.cancelled() and (error := done.exception()) is not None:
            log.warning("checkpoint of %s failed, the next one will do: %s", self._path, error)
        else:
            self._log_is_written = True


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
        if version > schema.VERSION:
            raise UsageError(f"{path} was written by another version of the core ({version}).")
        if version < schema.VERSION:
            steps = "".join(schema.STEPS[version:])
            connection.executescript(f"BEGIN; {steps}PRAGMA user_version={schema.VERSION}; COMMIT;")
    except sqlite3.DatabaseError as error:
        connection.close()
        raise UsageError(f"{path} cannot be used: {error}.") from error
    except UsageError:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _checkpoint(path: Path) -> None:
    """Move what is in the write-ahead log now into the file, while others write on."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    finally:
        connection.close()
