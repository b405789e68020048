"""What the publisher asks of a message queue: `streams` (Redis, Valkey) and `rabbitmq` do it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from engine.core.queue.accounts import Account
from engine.core.subscriptions import Event

Routes = Mapping[str, str]
"""The queues there are, each with its routing key (§5.3)."""


class Link(Protocol):
    """The connection to a message queue, until it is lost. What fails raises an EngineError."""

    @property
    def ended(self) -> asyncio.Event:
        """Is set when the connection is lost and another is needed."""
        ...

    async def restore(self, accounts: Sequence[Account], routes: Routes) -> list[str]:
        """Make what is missing of accounts and queues, and drop these accounts' other queues.

        Returns the queues that were missing: what waited in them is lost.
        """
        ...

    async def add_account(self, account: Account) -> None:
        """Make an account, or make it afresh."""
        ...

    async def add_queue(self, queue: str, routing_key: str) -> None:
        """Make a queue of an account that exists; nothing happens when it is there already."""
        ...

    async def remove_queue(self, queue: str) -> None:
        """Drop a queue with its messages; who reads from it gets an error."""
        ...

    def publish(self, events: Sequence[Event], delivered: Callable[[int], None]) -> None:
        """Put messages on their queues, in order, without waiting.

        `delivered` is told the id of each that outlives the death of the message queue's process.
        What it is not told of is published again over the next connection.
        """
        ...

    async def flush(self) -> None:
        """Wait until everything published so far is delivered."""
        ...

    async def tidy(self) -> None:
        """Give back what is not used any more; called now and then."""
        ...

    async def lengths(self) -> Mapping[str, int]:
        """Return how many messages wait in each queue; of a queue left out that is not known."""
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class MessageQueue(Protocol):
    """Where the queues are: the core's own Valkey, or what `--mq-uri` names."""

    def uri(self, account: Account) -> str:
        """Return the `mq_uri` for clients of an account."""
        ...

    async def connect(self) -> Link:
        """Make sure that it runs if it is ours, and connect. Raises EngineError or OSError."""
        ...

    async def lost(self) -> None:
        """Note that a connection ended."""
        ...

    async def stop(self) -> None:
        """Stop it, if it is ours."""
        ...
