"""The outbox of tasks for users of other cores: rows of the file until their core has them (§6.5).

A row is written in the transaction of the change it tells of. So whatever is killed, a change of a
task and the word of it to others are both there or neither.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from engine.colink import wire
from engine.core.peers.address_book import Pair
from engine.core.store import Store

_COLUMNS = "id, sender, receiver, task_id, task, opening, expires"


class Parcel(NamedTuple):
    """A task, or decisions on one, on its way. Ids increase with time.

    `opening` tells that the receiver is to see the task for the first time; `expires` is the task's
    expiry in Unix seconds, after which nobody takes it any more.
    """

    id: int
    pair: Pair
    task_id: str
    content: bytes
    opening: bool
    expires: int

    def task(self) -> wire.Task:
        """Return what the receiver's core gets."""
        task: wire.Task = wire.Task.FromString(self.content)
        return task


class Outbox:
    """Parcels by sender and receiver, in the order in which they were put in."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.on_parcel: Callable[[Pair], None] = lambda pair: None
        """Is told, after the commit, whose parcels have become more."""

    def add(self, pair: Pair, task: wire.Task, expires: int, *, opening: bool = False) -> None:
        """Put in what a user's task has to tell a peer."""
        content = task.SerializeToString()
        self._store.write(
            f"INSERT INTO parcels({_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?)",
            (
                *(self._store.tick(), self._store.owner_id(pair.user_id), pair.peer_id),
                *(task.task_id, content, opening, expires),
            ),
        )
        self._store.after_commit(lambda: self.on_parcel(pair))

    def next(self, pair: Pair, after: int, limit: int) -> list[Parcel]:
        """Return the oldest parcels of a pair with ids greater than `after`."""
        rows = self._store.execute(
            f"SELECT {_COLUMNS} FROM parcels WHERE sender=? AND receiver=? AND id>?"  # noqa: S608
            " ORDER BY id LIMIT ?",
            (self._store.known_owner_id(pair.user_id), pair.peer_id, after, limit),
        )
        return [Parcel(row[0], pair, row[3], row[4], bool(row[5]), row[6]) for row in rows]

    def pairs(self) -> list[Pair]:
        """Return between whom there are parcels."""
        rows = self._store.execute("SELECT DISTINCT sender, receiver FROM parcels")
        return [Pair(self._store.owner(sender), receiver) for sender, receiver in rows]

    def remove(self, ids: Iterable[int]) -> None:
        """Drop parcels that have arrived, or never will."""
        self._store.write_many("DELETE FROM parcels WHERE id=?", [(one,) for one in ids])
