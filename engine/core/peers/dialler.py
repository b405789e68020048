"""Reverse connections that this core opens to others, in reverse mode (§6.6).

For who sits behind NAT: others cannot dial this core, so it keeps a stream to each of them, on
which they send what they have for its user. The first task for a peer opens the stream. When it
breaks, it is dialled again with a task that the peer knows already, which changes nothing for him.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from weakref import WeakValueDictionary

import grpc
import grpc.aio

from engine.colink import wire
from engine.colink.rpc import CoreChannel
from engine.core.peers.address_book import Address, AddressBook, Pair
from engine.core.peers.links import Links
from engine.core.store import Store
from engine.core.tasks import Tasks
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.model.errors import UsageError

log = logging.getLogger(__name__)
_ACCEPTED_WITHIN = 10.0
_REFUSED_WITHIN = 0.05
_STOOD = 10.0
_AGAIN = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
Receive = Callable[[str, wire.Task], None]
_Call = grpc.aio.UnaryStreamCall[wire.Task, wire.Task]


class Dialler:
    """The streams that stand, one for each user and peer."""

    def __init__(
        self, store: Store, links: Links, book: AddressBook, tasks: Tasks, receive: Receive
    ) -> None:
        """`receive` takes in a task for a user of this core; it raises nothing."""
        self._store = store
        self._links = links
        self._book = book
        self._tasks = tasks
        self._receive = receive
        self._backoff = Backoff(first=0.2, limit=30.0)
        self._following: dict[Pair, asyncio.Task[None]] = {}
        self._dialling: WeakValueDictionary[Pair, asyncio.Lock] = WeakValueDictionary()

    def start(self) -> None:
        """Dial again what stood, or should have, when the core ended."""
        rows = self._store.execute("SELECT sender, receiver FROM dialled").fetchall()
        for sender, receiver in rows:
            pair = Pair(self._store.owner(sender), receiver)
            if pair not in self._following:
                self._follow(pair, None)

    async def stop(self) -> None:
        """Close all streams."""
        await cancel_and_wait(list(self._following.values()))

    async def open(self, pair: Pair, address: Address, task: wire.Task) -> bool:
        """Bring a peer a new task by opening a stream to him; False when one stands already.

        Raises grpc.aio.AioRpcError as a plain call would.
        """
        async with self._dialling.setdefault(pair, asyncio.Lock()):
            self._remember(pair, task)
            if pair in self._following:
                return False
            self._follow(pair, await self._dial(address, task))
            return True

    async def _dial(self, address: Address, task: wire.Task) -> _Call:
        """Return a stream on which the task was accepted."""
        stub = self._links.to(address.core).stub
        call: _Call = stub.InterCoreSyncTaskWithReverseConnection(
            task, metadata=(("authorization", address.token),)
        )
        try:
            async with asyncio.timeout(_ACCEPTED_WITHIN):
                await call.initial_metadata()
        except BaseException as error:
            call.cancel()
            if isinstance(error, TimeoutError):
                raise _timed_out() from error
            raise
        # A refusal looks like an acceptance until its status is read, right behind.
        ended = asyncio.create_task(call.code())
        await asyncio.wait((ended,), timeout=_REFUSED_WITHIN)
        if ended.done() and ended.result() is not grpc.StatusCode.OK:
            raise grpc.aio.AioRpcError(
                *(ended.result(), await call.initial_metadata(), await call.trailing_metadata()),
                details=await call.details(),
            )
        ended.cancel()
        return call

    def _follow(self, pair: Pair, call: _Call | None) -> None:
        task = self._following[pair] = asyncio.create_task(self._keep(pair, call))
        task.add_done_callback(lambda _: self._following.pop(pair, None))

    async def _keep(self, pair: Pair, call: _Call | None) -> None:
        """Read a stream, and dial it again when it breaks, for as long as that makes sense."""
        failures = 1
        while True:
            if call is not None:
                began = time.monotonic()
                await self._read(pair, call)
                # One that ends at once, again and again, is not worth dialling again at once.
                failures = 1 if time.monotonic() - began > _STOOD else failures + 1
                call = None
            task, address = self._known_task(pair), self._book.find(pair)
            if task is None or address is None:
                return
            try:
                channel = self._links.to(address.core)
                await _wait(channel, self._backoff.delay(failures))
                call = await self._dial(address, task)
            except UsageError as error:
                log.info("the core of %s cannot be dialled: %s", pair.peer_id, error)
                return
            except grpc.aio.AioRpcError as error:
                failures += 1
                if error.code() not in _AGAIN:
                    log.info("%s takes no stream of %s: %s", pair.peer_id, pair.user_id, error)
                    return

    async def _read(self, pair: Pair, call: _Call) -> None:
        try:
            async for task in call:
                self._receive(pair.user_id, task)
        except grpc.aio.AioRpcError as error:
            log.info("the stream of %s to %s broke: %s", pair.user_id, pair.peer_id, error.code())
        except asyncio.CancelledError:
            # A channel that is closed looks the same as being cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        finally:
            call.cancel()

    def _remember(self, pair: Pair, task: wire.Task) -> None:
        """Keep which task to dial with again: the newest that may be told twice."""
        sender = self._store.owner_id(pair.user_id)
        known = self._known_task(pair)
        if known is None or task.require_agreement or not known.require_agreement:
            self._store.write(
                "INSERT OR REPLACE INTO dialled(sender, receiver, task_id) VALUES(?, ?, ?)",
                (sender, pair.peer_id, task.task_id),
            )

    def _known_task(self, pair: Pair) -> wire.Task | None:
        """Return the task to dial again with; None when there is none that has not expired."""
        values = (self._store.known_owner_id(pair.user_id), pair.peer_id)
        row = self._store.execute(
            "SELECT task_id FROM dialled WHERE sender=? AND receiver=?", values
        ).fetchone()
        if row is None:
            return None
        copy = self._tasks.get(pair.user_id, row[0])
        if copy is None or copy.task.expiration_time < time.time():
            self._store.write("DELETE FROM dialled WHERE sender=? AND receiver=?", values)
            return None
        task = wire.Task()
        task.CopyFrom(copy.task)
        return task


async def _wait(channel: CoreChannel, seconds: float) -> None:
    """Wait before the next attempt, but no longer than until the core answers again."""
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.sleep(seconds / 4)
                await channel.ready()


def _timed_out() -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        *(grpc.StatusCode.DEADLINE_EXCEEDED, grpc.aio.Metadata(), grpc.aio.Metadata()),
        details="the core does not say whether it takes the task",
    )
