"""Who listens to which key, and the outbox of events for them (§5).

An event is written in the transaction of the change it tells of, and handed to the publisher when
that is committed; the row goes when the message queue has it. So a change and its event are both
there or neither, whatever is killed.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.colink import wire
from engine.core.store import Store

_ROUTING_KEY_LENGTH = 200
"""In bytes. RabbitMQ takes 255 at most."""


class Event(NamedTuple):
    """A message for a queue. Ids increase with time and serve as the stream's message ids."""

    id: int
    queue: str
    message: bytes


class Subscriptions:
    """The routes from keys to queues. Publishing itself is done by `on_events`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._routes: dict[tuple[int, str], list[str]] = {}
        self._counts = Counter[int]()
        self._events: list[Event] = []
        self.on_events: Callable[[Sequence[Event]], None] = lambda events: None
        """Gets the events of each committed transaction."""
        self._mark = 0
        store.before_savepoint.append(self._set_mark)
        store.on_rollback.append(self._forget_undone)
        for queue, owner, name in store.execute("SELECT queue, owner, name FROM subscriptions"):
            self._routes.setdefault((owner, name), []).append(queue)
            self._counts[owner] += 1

    def count(self, owner_id: int) -> int:
        """Return how many queues an owner has."""
        return self._counts[owner_id]

    def add(self, owner_id: int, name: str, queue: str) -> None:
        """Route every later change of a key to `queue`."""
        self._store.write(
            "INSERT INTO subscriptions(queue, owner, name) VALUES(?, ?, ?)",
            (queue, owner_id, name),
        )
        self._routes.setdefault((owner_id, name), []).append(queue)
        self._counts[owner_id] += 1

    def remove(self, owner_id: int, queue: str) -> bool:
        """Forget a queue with what it was still to get; False when the owner has no such queue."""
        row = self._store.execute(
            "SELECT name FROM subscriptions WHERE queue=? AND owner=?", (queue, owner_id)
        ).fetchone()
        if row is None:
            return False
        self._store.write("DELETE FROM subscriptions WHERE queue=?", (queue,))
        self._store.write("DELETE FROM outbox WHERE queue=?", (queue,))
        route = self._routes[owner_id, row[0]]
        route.remove(queue)
        self._counts[owner_id] -= 1
        if not route:
            del self._routes[owner_id, row[0]]
        return True

    def routes(self) -> dict[str, str]:
        """Return all queues there are, each with its routing key."""
        rows = self._store.execute("SELECT queue, owner, name FROM subscriptions")
        return {
            queue: routing_key(self._store.owner(owner_id), name) for queue, owner_id, name in rows
        }

    def find(self, queue: str) -> tuple[int, str] | None:
        """Return owner and name of the key that a queue is for; None when there is no such one."""
        row: tuple[int, str] | None = self._store.execute(
            "SELECT owner, name FROM subscriptions WHERE queue=?", (queue,)
        ).fetchone()
        return row

    def listened(self, owner_id: int, name: str) -> bool:
        """Tell whether anybody listens to a key."""
        return (owner_id, name) in self._routes

    def emit(
        self, owner_id: int, name: str, change_type: str, timestamp: int, payload: bytes
    ) -> None:
        """Tell the listeners of a key of a change; `timestamp` is the one of its key path."""
        queues = self._routes.get((owner_id, name))
        if queues is not None:
            for queue in queues:
                self.send(queue, owner_id, name, change_type, timestamp, payload)

    def send(
        self,
        queue: str,
        owner_id: int,
        name: str,
        change_type: str,
        timestamp: int,
        payload: bytes,
    ) -> None:
        """Put a message on one queue."""
        message = wire.SubscriptionMessage(
            change_type=change_type,
            key_path=f"{self._store.owner(owner_id)}::{name}@{timestamp}",
            payload=payload,
        ).SerializeToString()
        event = Event(self._store.tick(), queue, message)
        self._store.write("INSERT INTO outbox(id, queue, message) VALUES(?, ?, ?)", event)
        if not self._events:
            self._store.after_commit(self._publish)
        self._events.append(event)

    def undelivered(self) -> list[Event]:
        """Return all events of the outbox in order. Only outside a transaction."""
        rows = self._store.execute("SELECT id, queue, message FROM outbox ORDER BY id")
        return [Event(*row) for row in rows]

    def delivered(self, ids: Sequence[int]) -> None:
        """Drop events that the message queue has."""
        self._store.write_many("DELETE FROM outbox WHERE id=?", [(event_id,) for event_id in ids])

    def _set_mark(self) -> None:
        self._mark = len(self._events)

    def _forget_undone(self) -> None:
        del self._events[self._mark :]

    def _publish(self) -> None:
        events, self._events = self._events, []
        self.on_events(events)


def routing_key(owner: str, name: str) -> str:
    """Return the routing key of an entry's events (§5.3)."""
    key = f"{owner}::{name}"
    if len(key.encode()) <= _ROUTING_KEY_LENGTH:
        return key
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"
