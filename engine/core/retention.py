"""What is forgotten after a while: old history, deleted entries, transferred messages, ended tasks.

The latest version of any other entry is never touched. The work is done in small steps, each a
transaction of its own between two calls.
"""

import asyncio
import json
import re
import time

from engine.colink import wire
from engine.colink.keys import status_list
from engine.core.store import Store
from engine.kits.aio import cancel_and_wait

_EVERY = 600.0
_PAUSE = 0.05
_STEP = 300
_TRANSFERRED = re.compile(
    r"(push_tasks|get_instance_tasks):|_remote_storage:private:[^:]*:_variable_"
)
_ENDED = ("finished", "rejected", "ignored")


class Retention:
    """Goes through the whole storage every ten minutes. `hours` 0 keeps everything for ever."""

    def __init__(self, store: Store, hours: float) -> None:
        self._store = store
        self._hours = hours
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work in the background."""
        if self._hours > 0:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop after the step under way."""
        if self._task is not None:
            await cancel_and_wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.sweep(time.time_ns() - int(self._hours * 3600 * 1e9))

    async def sweep(self, before: int) -> None:
        """Forget what is older than `before`, in nanoseconds since the epoch."""
        position = (0, "")
        while (following := self._entries_step(position, before)) is not None:
            position = following
            await asyncio.sleep(_PAUSE)
        while self._tasks_step(before):  # noqa: ASYNC110 - a step of work, not a state to await
            await asyncio.sleep(_PAUSE)

    def _entries_step(self, position: tuple[int, str], before: int) -> tuple[int, str] | None:
        """Look at the next keys after `position` and return the last of them; None at the end."""
        rows = self._store.execute(
            "SELECT owner, name, id, directory, latest FROM keys WHERE (owner, name) > (?, ?)"
            " ORDER BY owner, name LIMIT ?",
            (*position, _STEP),
        ).fetchall()
        if not rows:
            return None
        gone = [
            row
            for row in rows
            if (row[4] < 0 or _TRANSFERRED.match(row[1])) and abs(row[4]) < before
        ]
        with self._store.savepoint():
            self._store.write_many(
                "DELETE FROM versions WHERE key=? AND ts<?",
                [(row[2], min(before, abs(row[4]))) for row in rows],
            )
            self._store.write_many("DELETE FROM versions WHERE key=?", [(r[2],) for r in gone])
            self._store.write_many(
                "DELETE FROM keys WHERE owner=? AND name=?", [(r[0], r[1]) for r in gone]
            )
            self._store.write_many(
                # Each message has a directory of its own, which would stay empty for ever.
                "DELETE FROM directories WHERE owner=?1 AND parent=?2 AND name=?3 AND NOT EXISTS"
                " (SELECT 1 FROM keys WHERE owner=?1 AND directory=?3 || ':')",
                [
                    (row[0], row[3][:-1].rpartition(":")[0] + ":", row[3][:-1])
                    for row in gone
                    if _TRANSFERRED.match(row[1])
                ],
            )
        return rows[-1][0], rows[-1][1]

    def _tasks_step(self, before: int) -> bool:
        """Forget some ended tasks; False when there were none."""
        rows = self._store.execute(
            "SELECT t.id, t.owner, t.task_id, t.record FROM lists l JOIN tasks t"
            " ON t.status_list=l.id AND t.entered<?"
            " WHERE l.name IN (SELECT value FROM json_each(?)) LIMIT ?",
            (before, json.dumps([status_list(status) for status in _ENDED]), _STEP),
        ).fetchall()
        now = int(time.time())
        if rows:
            self._store.write_many("DELETE FROM tasks WHERE id=?", [(row[0],) for row in rows])
            expiries = [(*row[1:3], _expiry_of_others(row[3])) for row in rows]
            self._store.write_many(
                "INSERT OR REPLACE INTO forgotten(owner, task_id, expires) VALUES(?, ?, ?)",
                [row for row in expiries if row[2] >= now],
            )
        else:
            self._store.write("DELETE FROM forgotten WHERE expires<?", (now,))
        return bool(rows)


def _expiry_of_others(record: bytes) -> int:
    """Return when a task expires that somebody else may send again; 0 for who is alone in it."""
    task = wire.Task.FromString(record)
    return int(task.expiration_time) if len(task.participants) > 1 else 0
