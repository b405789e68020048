"""Message queues as the client side sees them; `streams` (Redis) and `amqp` implement this.

Two ways to read: a `Queue` is shared by the operators of a role, each message goes to one of them
and stays until it is acknowledged; a `Listener` reads a subscription that nobody else knows of.
"""

from dataclasses import dataclass
from typing import Protocol

from engine.kits.processes import process_mark
from engine.model.ids import new_id

DELETED = "delete"
IN_STORAGE = "in-storage"


@dataclass(frozen=True, slots=True)
class Delivery:
    """A SubscriptionMessage (§5.2) and its `id` in the queue.

    `again` tells that it may have been delivered before, to this consumer or another.
    """

    change_type: str
    key_path: str
    payload: bytes
    id: str = ""
    again: bool = False


def consumer_name(name: str) -> str:
    """Return a name for a consumer of this process, and of no other: `name`, an id, the mark."""
    return f"{name}~{new_id()[:8]}~{process_mark()}"


def process_of(consumer: str) -> str:
    """Return the mark of the process that a consumer is in; empty when its name has none."""
    return consumer.rpartition("~")[2] if "~" in consumer else ""


class Queue(Protocol):
    """A queue whose consumers compete. Consumers are named by the caller, see `consumer_name`.

    Every method raises CoreUnavailableError when the connection is lost, NotFoundError when the
    queue does not exist (any more).
    """

    name: str
    suspects: bool
    """Whether the last `claim` found messages that the next one may take over."""

    async def take(self, consumer: str, count: int = 1) -> list[Delivery]:
        """Wait for new messages and return one to `count` of them.

        A cancelled wait loses nothing: what comes meanwhile is returned by the next `take`.
        """
        ...

    async def recover(self, consumer: str) -> list[Delivery]:
        """Return what was given to `consumer` and is not acknowledged, as after a reconnect."""
        ...

    async def claim(self, consumer: str, min_idle: float, count: int = 10) -> list[Delivery]:
        """Take over at most `count` messages whose consumers are dead.

        Dead is a process of this machine that has ended, and a consumer that did not renew for
        `min_idle` seconds, neither at this call nor at the one before: after a machine slept,
        everybody looks dead once. Calls are to be further apart than renewals.
        """
        ...

    async def renew(self, consumer: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Keep others from claiming `deliveries`; return those that were claimed already."""
        ...

    async def ack(self, *deliveries: Delivery) -> None:
        """Remove messages from the queue: they are done."""
        ...

    async def stop(self) -> None:
        """Take nothing new; what was taken can still be renewed and acknowledged."""
        ...

    async def close(self) -> None:
        """Stop altogether; what is not acknowledged goes to other consumers in time."""
        ...


class Listener(Protocol):
    """A private reader of a subscription's queue; messages count as read when returned."""

    async def next(self) -> Delivery:
        """Wait for the next message; raises as the methods of Queue do."""
        ...

    async def close(self) -> None:
        """Stop reading."""
        ...


class Broker(Protocol):
    """A user's account at a message queue server, with the connections it needs."""

    async def queue(self, name: str, capacity: int) -> Queue:
        """Open a shared queue; at most `capacity` messages are held unacknowledged."""
        ...

    async def listen(self, name: str) -> Listener:
        """Open a private queue."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
