"""Publishing: events from the outbox to the message queue, in order, over a connection kept up.

An event leaves the outbox when the message queue has it for good, and not before. What was sent
but not confirmed when a connection broke is sent again over the next one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from engine.core.queue.accounts import Account, Accounts
from engine.core.queue.port import Link, MessageQueue
from engine.core.store import Store
from engine.core.subscriptions import Event, Subscriptions
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.model.errors import CoreUnavailableError, EngineError

log = logging.getLogger(__name__)
_WAIT = 15.0
"""Seconds that a subscriber waits for a message queue that is just restarting."""
_FORGET_EVERY = 0.05
_TIDY_EVERY = 30.0


class Publisher:
    """Keeps accounts, queues and messages in the message queue as the store says they are."""

    def __init__(
        self,
        store: Store,
        subscriptions: Subscriptions,
        accounts: Accounts,
        message_queue: MessageQueue,
        max_queue_messages: float = 0,
    ) -> None:
        """A queue in which more than `max_queue_messages` wait is ended; 0 is no limit."""
        self._store = store
        self._subscriptions = subscriptions
        self._accounts = accounts
        self._message_queue = message_queue
        self._max_queue_messages = max_queue_messages
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._delivered: list[int] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.on_queue_lost: Callable[[str], None] = lambda queue: None
        """Is told of each queue that the message queue had lost, once it is there again."""
        self.on_connected: Callable[[], None] = lambda: None
        """Is called at each connection: the address may have changed."""

    async def start(self) -> None:
        """Start the message queue, connect, and keep it so. Raises what goes wrong at first."""
        self._subscriptions.on_events = self._publish
        await self._connect()
        self._tasks = [
            asyncio.create_task(self._keep_connected()),
            asyncio.create_task(self._tidy_regularly()),
        ]

    async def stop(self) -> None:
        """Disconnect and stop the message queue."""
        await cancel_and_wait(self._tasks)
        if self._link is not None:
            with contextlib.suppress(EngineError, TimeoutError):
                async with asyncio.timeout(_WAIT):
                    await self._link.flush()
            await self._link.close()
            self._link = None
        self._forget_delivered()
        await self._message_queue.stop()

    async def add_account(self, account: Account) -> None:
        """Make an account known to the message queue."""
        await self._insist(lambda link: link.add_account(account))

    async def add_queue(self, queue: str, routing_key: str) -> None:
        """Make a queue, so that a client can read from it."""
        await self._insist(lambda link: link.add_queue(queue, routing_key))

    async def remove_queue(self, queue: str) -> None:
        """Drop a queue, now or at the next connect; who reads from it gets an error."""
        if self._link is not None:
            with contextlib.suppress(EngineError):
                await self._link.remove_queue(queue)

    async def tidy(self) -> None:
        """Let the message queue be rid of what is not used any more."""
        if self._link is not None:
            with contextlib.suppress(EngineError):
                await self._link.tidy()
                for queue, length in (await self._link.lengths()).items():
                    if 0 < self._max_queue_messages < length:
                        await self._end(queue, length)

    async def _end(self, queue: str, length: int) -> None:
        """End a subscription that nobody reads, before it fills the memory of all."""
        found = self._subscriptions.find(queue)
        if found is not None:
            owner_id, name = found
            owner = self._store.owner(owner_id)
            log.warning("%d changes of %s::%s wait in a queue: it is ended", length, owner, name)
            self._subscriptions.remove(owner_id, queue)
            await self._store.committed()
            await self.remove_queue(queue)

    async def _insist(self, action: Callable[[Link], Awaitable[None]]) -> None:
        """Do something, over a new connection if this one is lost meanwhile."""
        try:
            async with asyncio.timeout(_WAIT):
                while True:
                    await self._up.wait()
                    assert self._link is not None
                    try:
                        await action(self._link)
                        return
                    except CoreUnavailableError:
                        await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise CoreUnavailableError("The message queue does not come up.") from error

    # Connecting

    async def _keep_connected(self) -> None:
        backoff, failures = Backoff(first=0.05, limit=5.0), 0
        while True:
            if self._link is not None:
                await self._link.ended.wait()
                log.warning("the connection to the message queue was lost")
                self._up.clear()
                link, self._link = self._link, None
                await link.close()
                await self._message_queue.lost()
            try:
                await self._connect()
                failures = 0
            except (EngineError, OSError) as error:
                failures += 1
                log.warning("cannot connect to the message queue: %s", error)
                await asyncio.sleep(backoff.delay(failures))

    async def _connect(self) -> None:
        link = await self._message_queue.connect()
        try:
            lost = await link.restore(self._accounts.all(), self._subscriptions.routes())
        except BaseException:
            await link.close()
            raise
        # From here to the end nothing waits: what is committed later is published at once.
        while self._store.in_transaction:
            await self._store.committed()
        self._link = link
        self._publish(self._subscriptions.undelivered())
        for queue in lost:
            self.on_queue_lost(queue)
        self.on_connected()
        self._up.set()

    async def _tidy_regularly(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_EVERY)
            await self.tidy()

    # Publishing

    def _publish(self, events: Sequence[Event]) -> None:
        if self._link is not None and events:
            self._link.publish(events, self._note_delivered)

    def _note_delivered(self, event_id: int) -> None:
        if not self._delivered:
            asyncio.get_running_loop().call_later(_FORGET_EVERY, self._forget_delivered)
        self._delivered.append(event_id)

    def _forget_delivered(self) -> None:
        ids, self._delivered = self._delivered, []
        if ids and not self._store.closed:
            self._subscriptions.delivered(ids)
