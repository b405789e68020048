"""What is forgotten after a while: transferred messages, ended tasks, and the history of either.

Only what nobody can still need: nothing that belongs to a task which some user of this core has
not ended, or to a message that waits for a flow. The latest version of any other entry is never
touched, and of a user's own entries no version at all, unless that is configured. The work is done
in small steps, each a transaction of its own between two calls.
"""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterable

from engine.colink import keys, wire
from engine.core.store import Store
from engine.kits.aio import cancel_and_wait

_EVERY = 600.0
_PAUSE = 0.05
_STEP = 300
_HOUR = 3600 * 10**9
_ENDED = ("finished", "rejected", "ignored")
_GOING_ON = ("waiting", "approved", "started")
_PASSING = re.compile(
    r"(?:push_tasks|get_instance_tasks):(?P<message>[^:]+):"
    r"|_remote_storage:private:[^:]*:_variable_transfer:(?P<variable>[^:]+):"
    r"|_internal:task_po_mapping:(?P<operator>[^:]+)$"
    r"|tasks:(?P<remote>[^:]+):(?:output|status)$"
)
"""Entries that serve one task or message; the group is its id."""
_PASSED_ON = re.compile(r"(?:push_tasks|get_instance_tasks):([^:\"\\]+):")
_OURS = ("_internal:", "_lock:", f"{keys.ENGINE_INSTANCES}:", f"{keys.ENGINE_MOUNTS}:")
"""Entries of the core, of locks and of the engine: nobody reads their old versions."""

Row = tuple[int, str, int, str, int]
"""Of the table keys: owner, name, id, directory, latest."""


class Retention:
    """Goes through the whole storage every ten minutes.

    What passes is kept for `hours` after its last change, users' history for `history_hours`; 0 is
    for ever. `now` tells the time in nanoseconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        hours: float,
        history_hours: float = 0.0,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._hours = hours
        self._history_hours = history_hours
        self._now = now
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work in the background."""
        if self._hours > 0 or self._history_hours > 0:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop after the step under way."""
        if self._task is not None:
            await cancel_and_wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.sweep()

    async def sweep(self) -> None:
        """Forget what is old enough now."""
        before, history_before = self._before(self._hours), self._before(self._history_hours)
        needed = await self._needed()
        entry = (0, "")
        while (next_entry := self._entries_step(entry, before, history_before, needed)) is not None:
            entry = next_entry
            await asyncio.sleep(_PAUSE)
        for list_id in self._status_lists(_ENDED):
            after = 0
            while (next_after := self._tasks_step(list_id, after, before, needed)) is not None:
                after = next_after
                await asyncio.sleep(_PAUSE)
        self._store.write("DELETE FROM forgotten WHERE expires<?", (self._now() // 10**9,))

    def _before(self, hours: float) -> int:
        return self._now() - int(hours * _HOUR) if hours > 0 else 0

    async def _needed(self) -> set[str]:
        """Return the ids of all tasks that are not ended, and of all messages they are about."""
        needed = {
            found[1]
            for (key,) in self._store.execute("SELECT message_key FROM mailbox")
            if (found := _PASSED_ON.match(key))
        }
        for list_id in self._status_lists(_GOING_ON):
            last = 0
            while rows := self._store.execute(
                "SELECT entered, task_id, record FROM tasks WHERE status_list=? AND entered>?"
                " ORDER BY entered LIMIT ?",
                (list_id, last, _STEP),
            ).fetchall():
                for last, task_id, record in rows:  # noqa: B007 - where the next step begins
                    parameter = wire.Task.FromString(record).protocol_param
                    messages = _PASSED_ON.findall(parameter.decode(errors="replace"))
                    needed.update((task_id, *messages))
                await asyncio.sleep(_PAUSE)
        return needed

    def _status_lists(self, statuses: Iterable[str]) -> list[int]:
        """Return the ids of all owners' lists of tasks in one of `statuses`."""
        names = [keys.status_list(status) for status in statuses]
        rows = self._store.execute(
            "SELECT id FROM lists WHERE name IN (SELECT value FROM json_each(?))",
            (json.dumps(names),),
        )
        return [row[0] for row in rows]

    def _entries_step(
        self, position: tuple[int, str], before: int, history_before: int, needed: set[str]
    ) -> tuple[int, str] | None:
        """Look at the next keys after `position` and return the last of them; None at the end."""
        rows: list[Row] = self._store.execute(
            "SELECT owner, name, id, directory, latest FROM keys WHERE (owner, name) > (?, ?)"
            " ORDER BY owner, name LIMIT ?",
            (*position, _STEP),
        ).fetchall()
        if not rows:
            return None
        old_versions: list[tuple[int, int]] = []
        gone: list[Row] = []
        for row in rows:
            _, name, key, _, latest = row
            task_or_message = _id_in(name)
            if task_or_message in needed:
                continue
            passes = bool(task_or_message)
            limit = before if passes or name.startswith(_OURS) else history_before
            old_versions.append((key, min(limit, abs(latest))))
            if (passes or latest < 0) and abs(latest) < limit:
                gone.append(row)
        with self._store.savepoint():
            self._store.write_many("DELETE FROM versions WHERE key=? AND ts<?", old_versions)
            self._forget(gone)
        return rows[-1][0], rows[-1][1]

    def _forget(self, gone: list[Row]) -> None:
        self._store.write_many("DELETE FROM versions WHERE key=?", [(row[2],) for row in gone])
        self._store.write_many(
            "DELETE FROM keys WHERE owner=? AND name=?", [(row[0], row[1]) for row in gone]
        )
        self._store.write_many(
            # Each message has a directory of its own, which would stay empty for ever.
            "DELETE FROM directories WHERE owner=?1 AND parent=?2 AND name=?3"
            " AND NOT EXISTS (SELECT 1 FROM keys INDEXED BY keys_by_directory"
            "  WHERE owner=?1 AND directory=?3 || ':')"
            " AND NOT EXISTS (SELECT 1 FROM directories WHERE owner=?1 AND parent=?3 || ':')",
            [
                (row[0], row[3][:-1].rpartition(":")[0] + ":", row[3][:-1])
                for row in gone
                if _id_in(row[1])
            ],
        )

    def _tasks_step(self, list_id: int, after: int, before: int, needed: set[str]) -> int | None:
        """Forget the next tasks of a list of ended ones, and return when the last came into it.

        One that another participant has not ended stays: his decision is still to be told.
        """
        rows = self._store.execute(
            "SELECT entered, id, task_id, owner, record FROM tasks"
            " WHERE status_list=? AND entered>? AND entered<?"
            " ORDER BY entered LIMIT ?",
            (list_id, after, before, _STEP),
        ).fetchall()
        if not rows:
            return None
        gone = [row for row in rows if row[2] not in needed]
        if gone:
            self._store.write_many("DELETE FROM tasks WHERE id=?", [(row[1],) for row in gone])
            self._remember(gone)
        return int(rows[-1][0])

    def _remember(self, gone: Iterable[tuple[int, int, str, int, bytes]]) -> None:
        """Keep the ids of tasks that another core could send again, until they have expired."""
        now = self._now() // 10**9
        ids = [(row[3], row[2], _expiry_of_others(row[4])) for row in gone]
        self._store.write_many(
            "INSERT OR REPLACE INTO forgotten(owner, task_id, expires) VALUES(?, ?, ?)",
            [row for row in ids if row[2] >= now],
        )


def _id_in(name: str) -> str:
    """Return the id of the task or message that an entry serves; "" for any other entry."""
    found = _PASSING.match(name)
    return next(filter(None, found.groups()), "") if found else ""


def _expiry_of_others(record: bytes) -> int:
    """Return when a task expires that somebody else may send again; 0 for who is alone in it."""
    task = wire.Task.FromString(record)
    return int(task.expiration_time) if len(task.participants) > 1 else 0
