"""The courier: delivers what is in the outbox, and tries again until it arrives or expires (§6.5).

Each pair of a user and a peer has its own worker, so a core that is down delays only what is for
its users. Parcels of one task go in order, those of different tasks side by side.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from engine.core.peers.address_book import Pair
from engine.core.peers.outbox import Outbox, Parcel
from engine.core.peers.streams import PROVEN_AFTER, Stream, StreamEndedError, Streams
from engine.core.peers.transport import LaterError, RefusedError, Transport
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff

log = logging.getLogger(__name__)
_BATCH = 32
_ANSWERED_ATTEMPTS = 8
"""How often a parcel is tried that the other core answers with INTERNAL: upstream says so both for
what will never work and for what does at the next attempt."""
_WRITTEN_ATTEMPTS = 3
"""How many streams a parcel is put into: upstream closes a stream over a task that it has already,
which must not go on for ever."""
_LOOK_AGAIN_AFTER = 3
"""Failures in a row after which the peer is looked for elsewhere."""
_BACKOFF = Backoff(first=0.2, limit=30.0)


class Courier:
    """The workers, which come and go with the parcels."""

    def __init__(self, outbox: Outbox, transport: Transport, streams: Streams) -> None:
        self._outbox = outbox
        self._transport = transport
        self._streams = streams
        self.on_undeliverable: Callable[[Parcel, str], None] = lambda parcel, reason: None
        """Is told of each parcel that will never arrive, and why."""
        self._works: dict[Pair, asyncio.Task[None]] = {}
        self._wakes: dict[Pair, asyncio.Event] = {}
        self._failing: set[Pair] = set()
        self._answered: Counter[int] = Counter()
        self._written: Counter[int] = Counter()
        self._attempts: dict[tuple[Pair, str], asyncio.Future[str]] = {}
        self._sweeping: asyncio.Task[None] | None = None
        self._stopped = False

    def start(self) -> None:
        """Take up what was not delivered when the core ended."""
        for pair in self._outbox.pairs():
            self.wake(pair)
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        """End all workers; what they had not delivered stays in the outbox."""
        self._stopped = True
        works = list(self._works.values())
        await cancel_and_wait([*works, *([self._sweeping] if self._sweeping else [])])

    def wake(self, pair: Pair) -> None:
        """Look at a pair's parcels now, whatever it waits for."""
        if self._stopped:
            return
        self._wakes.setdefault(pair, asyncio.Event()).set()
        if pair not in self._works:
            work = self._works[pair] = asyncio.create_task(self._work(pair))
            work.add_done_callback(lambda done: self._ended(pair, done))

    def attempt(self, pair: Pair, task_id: str) -> "asyncio.Future[str]":
        """Return what the first attempt to deliver a task's parcel comes to.

        "" when it was delivered or is to be tried again, else why it was refused.
        """
        future = self._attempts[pair, task_id] = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: self._attempts.pop((pair, task_id), None))
        if pair in self._failing:
            future.set_result("")
        return future

    def _ended(self, pair: Pair, work: "asyncio.Task[None]") -> None:
        self._works.pop(pair, None)
        self._failing.discard(pair)
        wake = self._wakes.pop(pair, None)
        if not work.cancelled() and (error := work.exception()) is not None:
            log.error("the delivery from %s to %s failed", *pair, exc_info=error)
        elif wake is not None and wake.is_set():
            self.wake(pair)

    async def _work(self, pair: Pair) -> None:
        wake, failures = self._wakes[pair], 0
        while True:
            wake.clear()
            stream = self._streams.get(pair)
            after = stream.written if stream is not None else 0
            parcels = self._valid(self._outbox.next(pair, after, _BATCH))
            if parcels is None:
                continue
            if not parcels:
                return
            delivered = (
                await self._write(stream, parcels)
                if stream is not None
                else await self._deliver(parcels)
            )
            failures = 0 if delivered else failures + 1
            if failures:
                self._failing.add(pair)
                await self._pause(pair, wake, failures)
            else:
                self._failing.discard(pair)

    def _valid(self, parcels: Sequence[Parcel]) -> Sequence[Parcel] | None:
        """Return the parcels, or None after some that have expired were dropped."""
        now = time.time()
        expired = [parcel for parcel in parcels if parcel.expires < now]
        for parcel in expired:
            self._give_up(parcel, "it expired before it could be delivered")
        return None if expired else parcels

    async def _write(self, stream: Stream, parcels: Sequence[Parcel]) -> bool:
        """Put parcels into a stream in order; False when it ends meanwhile."""
        for parcel in parcels:
            try:
                await stream.write(parcel.task())
            except StreamEndedError:
                return False
            stream.note(parcel.id, time.monotonic())
            self._written[parcel.id] += 1
            if self._written[parcel.id] >= _WRITTEN_ATTEMPTS:
                self._done(parcel)
            self._tell(parcel, "")
        return True

    async def _deliver(self, parcels: Sequence[Parcel]) -> bool:
        """Deliver parcels by calls; False when some of them have to be tried again."""
        by_task: dict[str, list[Parcel]] = {}
        for parcel in parcels:
            by_task.setdefault(parcel.task_id, []).append(parcel)
        return all(await asyncio.gather(*map(self._deliver_in_order, by_task.values())))

    async def _deliver_in_order(self, parcels: Sequence[Parcel]) -> bool:
        for parcel in parcels:
            try:
                await self._transport.deliver(parcel)
            except RefusedError as error:
                self._give_up(parcel, str(error))
            except LaterError as error:
                if error.answered and self._is_last(parcel):
                    self._give_up(parcel, str(error))
                    continue
                log.info("a task for %s has to wait: %s", parcel.pair.peer_id, error)
                self._tell(parcel, "")
                return False
            except Exception:
                # A fault of ours must not end the worker: others' parcels are behind this one.
                log.exception("a task for %s could not be delivered", parcel.pair.peer_id)
                self._tell(parcel, "")
                return False
            else:
                self._done(parcel)
                self._tell(parcel, "")
        return True

    def _is_last(self, parcel: Parcel) -> bool:
        self._answered[parcel.id] += 1
        return self._answered[parcel.id] >= _ANSWERED_ATTEMPTS

    def _give_up(self, parcel: Parcel, reason: str) -> None:
        log.warning("%s does not get the task %s: %s", parcel.pair.peer_id, parcel.task_id, reason)
        self._done(parcel)
        self.on_undeliverable(parcel, reason)
        self._tell(parcel, reason)

    def _done(self, parcel: Parcel) -> None:
        self._remove([parcel.id])

    def _remove(self, ids: Sequence[int]) -> None:
        self._outbox.remove(ids)
        for parcel_id in ids:
            self._answered.pop(parcel_id, None)
            self._written.pop(parcel_id, None)

    def _tell(self, parcel: Parcel, result: str) -> None:
        future = self._attempts.get((parcel.pair, parcel.task_id))
        if future is not None and not future.done():
            future.set_result(result)

    async def _pause(self, pair: Pair, wake: asyncio.Event, failures: int) -> None:
        """Wait before the next attempt, but no longer than until the core answers again."""
        seconds, channel = _BACKOFF.delay(failures), self._transport.channel(pair)

        async def recovered() -> None:
            # A core that answers, but says no, is there already.
            await asyncio.sleep(min(seconds / 4, 2.0))
            if channel is not None and not channel.is_ready():
                await channel.ready()
            else:
                await asyncio.sleep(seconds)

        async def moved() -> None:
            if failures < _LOOK_AGAIN_AFTER or not await self._transport.look_again(pair):
                await asyncio.sleep(seconds)

        await _first(wake.wait(), recovered(), moved(), timeout=seconds)

    async def _sweep(self) -> None:
        """Drop what streams have certainly carried."""
        while True:
            await asyncio.sleep(PROVEN_AFTER / 4)
            for stream in self._streams:
                if ids := stream.proven(time.monotonic()):
                    self._remove(ids)


async def _first(*waits: Coroutine[Any, Any, object], timeout: float) -> None:
    """Wait until one of `waits` is over, at most `timeout` seconds."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(tasks)
