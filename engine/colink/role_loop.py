"""One handler's loop: from the shared queue of its `protocol:role` to finished tasks (§7.2)."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import DecodeError

from engine.colink import wire
from engine.colink.client import Client
from engine.colink.queue import DELETED, IN_STORAGE, Delivery, Queue
from engine.colink.shared_queue import shared_queue
from engine.colink.slots import Slot, Slots
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.model.errors import CoreUnavailableError, EngineError, NotFoundError

log = logging.getLogger(__name__)
T = TypeVar("T")
BACKOFF = Backoff(first=0.1, limit=2.0)
_SUSPICION = 0.6
"""Share of the lease after which suspects are looked at again: more than one renewal takes."""
_SOON = 0.2
"""Seconds until it is looked again whether there are slots for what else can be taken over."""
_TRIALS = 5
"""How often in a row a shared queue is found missing before another is made."""
_ATTEMPTS = 10
"""How often a handler is run that found the core or the queue gone, before its task is ended."""


@dataclass(frozen=True)
class TaskContext:
    """A started task, as its handler sees it. `participants` are (user id, role), in order."""

    client: Client
    task_id: str
    protocol_name: str
    role: str
    param: bytes
    participants: tuple[tuple[str, str], ...]
    parent_task: str
    slot: Slot = field(repr=False, compare=False)
    again: bool = False
    """True when it was handed out before, to somebody who did not finish it."""

    def slot_released(self) -> AbstractAsyncContextManager[None]:
        """Return a context in which another task may run: for a handler that waits for others."""
        return self.slot.released()


Handler = Callable[[TaskContext], Awaitable[None]]


async def patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Return `await call()`, tried again for as long as the core is unavailable."""
    failures = 0
    while True:
        try:
            return await call()
        except CoreUnavailableError as error:
            failures += 1
            log.info("trying again: %s", error)
            await asyncio.sleep(BACKOFF.delay(failures))


class RoleLoop:
    """Takes the tasks of one `protocol:role` and runs its handler on them.

    `connected` is set while the loop reads its queue. `stopping` is set by the owner to end it.
    """

    def __init__(
        self,
        client: Client,
        protocol_name: str,
        role: str,
        handler: Handler,
        *,
        slots: Slots,
        consumer: str,
        lease: float,
        stopping: asyncio.Event,
    ) -> None:
        self.connected = asyncio.Event()
        self._client = client
        self._protocol_name = protocol_name
        self._role = role
        self._handler = handler
        self._slots = slots
        self._consumer = consumer
        self._lease = lease
        self._stopping = stopping
        self._queue: Queue | None = None
        self._missing: Counter[str] = Counter()
        self._held: dict[str, Delivery] = {}
        self._works: set[asyncio.Task[None]] = set()
        self._exclusive: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def run(self) -> None:
        """Serve until `stopping` is set, then finish what runs. Survives the core and the queue."""
        failures = 0
        stop = asyncio.create_task(self._stopping.wait())
        try:
            while not self._stopping.is_set():
                try:
                    await self._serve(stop)
                except EngineError as error:
                    failures = 1 if self.connected.is_set() else failures + 1
                    self.connected.clear()
                    self._client.forget_queue_server()
                    self._note(error, failures)
                    await asyncio.wait((stop,), timeout=BACKOFF.delay(failures))
            await self._works_done()
        finally:
            await cancel_and_wait((stop, *self._works))

    def _note(self, error: EngineError, failures: int) -> None:
        level = logging.WARNING if failures == 1 else logging.DEBUG
        log.log(level, "%s:%s is interrupted: %s", self._protocol_name, self._role, error)

    async def _serve(self, stop: asyncio.Future[Any]) -> None:
        """Open the shared queue and read it until `stop`; raises EngineError when it is lost."""
        # Its server may need a moment after a restart, and a new queue repeats what is started.
        gone = next((name for name, times in self._missing.items() if times >= _TRIALS), "")
        name = await shared_queue(self._client, self._protocol_name, self._role, gone=gone)
        try:
            self._queue = await self._client.queue(name, self._slots.limit)
            await self._read(self._queue, stop)
        except NotFoundError:
            self._missing[name] += 1
            raise

    async def _read(self, queue: Queue, stop: asyncio.Future[Any]) -> None:
        self._start(await queue.recover(self._consumer))
        self._missing.clear()
        self.connected.set()
        keeper = asyncio.create_task(self._keep(queue))
        try:
            while not stop.done():
                free = self._slots.free or await _unless(stop, self._slots.available())
                if free:
                    self._start(await _unless(stop, queue.take(self._consumer, free)) or [])
            await queue.stop()
            # What was handed to us in the moment of stopping would else wait for its lease.
            self._start(await queue.recover(self._consumer))
            await self._works_done()
        finally:
            await cancel_and_wait([keeper])
            await queue.close()

    async def _works_done(self) -> None:
        while self._works:
            await asyncio.wait(self._works)

    async def _keep(self, queue: Queue) -> None:
        """Renew the leases of what runs; take over what dead consumers hold."""
        since_claim, more = self._lease, False
        while True:
            if more or since_claim >= self._lease * (_SUSPICION if queue.suspects else 1):
                since_claim = 0.0
                more = await self._claim(queue, more)
            pause = _SOON if more else self._lease / 3
            await asyncio.sleep(pause)
            since_claim += pause
            await self._renew(queue)

    async def _claim(self, queue: Queue, more: bool) -> bool:
        """Take over as much as there are slots for; tell whether there may be more (`more`: was).

        A worker with one slot would else take over one message of a dead one in each lease.
        """
        free = self._slots.free
        if not free or self._stopping.is_set():
            return more
        try:
            claimed = await queue.claim(self._consumer, self._lease, free)
        except EngineError as error:
            # The loop that reads notices a lost queue as well, and opens it anew.
            log.debug("claiming failed: %s", error)
            return False
        self._start(claimed)
        return len(claimed) >= free

    async def _renew(self, queue: Queue) -> None:
        try:
            lost = await queue.renew(self._consumer, list(self._held.values()))
        except EngineError as error:
            log.debug("renewing failed: %s", error)
            return
        for delivery in lost:
            if delivery.id in self._held:
                log.warning("%s was taken over by another process", delivery.key_path)

    def _start(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            if delivery.id in self._held:
                continue
            self._held[delivery.id] = delivery
            work = asyncio.create_task(self._work(delivery, self._slots.reserve()))
            self._works.add(work)
            work.add_done_callback(self._works.discard)

    async def _work(self, delivery: Delivery, slot: Slot) -> None:
        """Bring one delivery to its end: the task handled and finished, then acknowledged."""
        try:
            await slot.granted()
            await self._settle(delivery, slot)
            slot.release()
            if self._queue is not None:
                await self._queue.ack(delivery)
        except EngineError as error:
            # Still unacknowledged, it comes again when its lease is over.
            log.warning("%s is left for later: %s", delivery.key_path, error)
        except Exception:
            log.exception("%s is left for later", delivery.key_path)
        finally:
            slot.release()
            del self._held[delivery.id]

    async def _settle(self, delivery: Delivery, slot: Slot) -> None:
        announced = _announced(delivery)
        if announced is None:
            return
        lock = self._exclusive.setdefault(announced.task_id, asyncio.Lock())
        again = delivery.again or delivery.change_type == IN_STORAGE or lock.locked()
        async with lock:
            # A core may announce the whole record; a replayed one may be out of date.
            task: wire.Task | None = announced
            if again or announced.status != "started":
                task = await patiently(lambda: self._client.read_task(announced.task_id))
            if task is not None and task.status == "started":
                await self._handle(task, slot, delivery.again)

    async def _handle(self, task: wire.Task, slot: Slot, again: bool) -> None:
        context = TaskContext(
            client=self._client,
            task_id=task.task_id,
            protocol_name=self._protocol_name,
            role=self._role,
            param=task.protocol_param,
            participants=tuple((user.user_id, user.role) for user in task.participants),
            parent_task=task.parent_task,
            slot=slot,
            again=again,
        )
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                await self._handler(context)
                break
            except CoreUnavailableError as error:
                log.warning("task %s is interrupted: %s", task.task_id, error)
                await asyncio.sleep(BACKOFF.delay(attempt))
            except Exception:
                log.exception("the handler of %s failed", task.protocol_name)
                break
        await self._finish(task.task_id)

    async def _finish(self, task_id: str) -> None:
        try:
            await patiently(lambda: self._client.finish_task(task_id))
        except EngineError as error:
            # Not started any more: the reply to an earlier attempt was lost, or somebody else did.
            log.info("task %s was not finished by us: %s", task_id, error)


async def _unless(stop: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
    """Return what `work` returns, or None, with `work` cancelled, once `stop` is done."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            await cancel_and_wait([task])


def _announced(delivery: Delivery) -> wire.Task | None:
    """Return the task that a message announces, at least its id; None when it announces none."""
    if delivery.change_type == DELETED:
        return None
    try:
        task = wire.Task.FromString(delivery.payload)
    except DecodeError:
        return None
    return task if task.task_id else None
