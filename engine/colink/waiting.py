"""Waiting for entries: subscriptions that survive restarts, and that are always ended (§5)."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine
from types import TracebackType
from typing import Any

from engine.colink import keys, wire
from engine.colink.connections import ConnectionPool
from engine.colink.payloads import parse_key_path
from engine.colink.queue import DELETED, Broker, Delivery, Listener, Queue
from engine.colink.rpc import Caller
from engine.kits.backoff import Backoff
from engine.model.errors import (
    AccessDeniedError,
    CoreUnavailableError,
    DeadlineExceededError,
    NotFoundError,
)

_BACKOFF = Backoff(first=0.05, limit=1.0)


class WaitingCalls:
    """The part of a client that subscribes to entries and waits for them."""

    address: str
    user_id: str
    _caller: Caller
    _pool: ConnectionPool

    async def subscribe(self, key: str, start_timestamp: int = 0) -> str:
        """Subscribe to a key name and return the name of the queue.

        The queue gets every write from now on, and before that the versions since
        `start_timestamp` (nanoseconds; 0: all there were).
        """
        request = wire.SubscribeRequest(key_name=key, start_timestamp=start_timestamp)
        reply = await self._caller.call("Subscribe", request, about=key)
        return str(reply.queue_name)

    async def unsubscribe(self, queue_name: str) -> None:
        """End a subscription and delete its queue; NotFoundError when there is none."""
        request = wire.MQQueueName(queue_name=queue_name)
        await self._caller.call("Unsubscribe", request, about=queue_name, internal=NotFoundError)

    async def queue(self, queue_name: str, capacity: int = 1) -> Queue:
        """Open a queue that others may read too; at most `capacity` messages are held at once."""
        return await (await self._broker()).queue(queue_name, capacity)

    def forget_queue_server(self) -> None:
        """Ask the core again where the queues are, at the next use: it may have changed."""
        self._pool.mq_uris.pop(self._account, None)

    def afterwards(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`, that nobody waits for, in the background; its EngineErrors are dropped."""
        self._pool.tidy(work)

    def expect(self, key: str) -> "Expectation":
        """Begin to watch for the entry `key`, without waiting for anything.

        Call it before the request that makes somebody write the entry: the subscription is then
        set up while the request is on its way.
        """
        return Expectation(self, key)

    async def wait_entry(self, key: str, timeout: float) -> bytes:
        """Return the value of an entry as soon as it has one, within `timeout` seconds.

        A value that is there already is returned at once; of a deleted entry the last one it had
        may be returned, as with the SDK. Raises DeadlineExceededError.
        """
        async with self.expect(key) as expectation:
            return await expectation.value(timeout)

    async def wait_task(self, task_id: str, timeout: float) -> None:
        """Wait until a task is finished, at most `timeout` seconds.

        Raises AccessDeniedError when it is rejected or ignored, DeadlineExceededError.
        """
        try:
            async with (
                asyncio.timeout(timeout),
                contextlib.aclosing(self.changes(keys.task(task_id))) as changes,
            ):
                async for delivery in changes:
                    if _is_finished(wire.Task.FromString(delivery.payload)):
                        return
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"Task {task_id} did not finish within {timeout:g} s."
            ) from error

    async def changes(self, key: str, start_timestamp: int = 0) -> AsyncGenerator[Delivery, None]:
        """Yield every value of an entry, oldest first, from `start_timestamp` (nanoseconds) on.

        Deletions are left out. Restarts of the core and of the queue are waited for; a version may
        then come twice. Use it within `contextlib.aclosing`, so that the subscription ends.
        """
        failures = 0
        while True:
            try:
                async with contextlib.aclosing(self._listen(key, start_timestamp)) as messages:
                    async for delivery in messages:
                        failures = 0
                        if delivery.change_type == DELETED:
                            continue
                        yield delivery
                        start_timestamp = parse_key_path(delivery.key_path).timestamp + 1
            except (CoreUnavailableError, NotFoundError):
                # The queue may be lost with its server: a new subscription replays what we missed.
                failures += 1
                self.forget_queue_server()
                await asyncio.sleep(_BACKOFF.delay(failures))

    async def _listen(self, key: str, start_timestamp: int) -> AsyncGenerator[Delivery, None]:
        """Yield the messages of one subscription until its queue is lost."""
        queue_name = await self._subscribe_surely(key, start_timestamp)
        listener: Listener | None = None
        try:
            listener = await (await self._broker()).listen(queue_name)
            while True:
                yield await listener.next()
        finally:
            self._pool.tidy(self._end(queue_name, listener))

    async def _end(self, queue_name: str, listener: Listener | None) -> None:
        if listener is not None:
            await listener.close()
        await self.unsubscribe(queue_name)

    async def _subscribe_surely(self, key: str, start_timestamp: int) -> str:
        """Subscribe; when the caller is cancelled meanwhile, the subscription is ended again."""
        subscribing = self._pool.spawn(self.subscribe(key, start_timestamp))
        try:
            return await asyncio.shield(subscribing)
        except asyncio.CancelledError:
            self._pool.tidy(self._undo(subscribing))
            raise

    async def _undo(self, subscribing: "asyncio.Task[str]") -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await self.unsubscribe(await subscribing)

    async def _broker(self) -> Broker:
        """Return the broker of this user's account; the core has one after the first Subscribe."""
        known = self._pool.mq_uris.get(self._account)
        if known is None:
            known = (await self._caller.call("RequestInfo", wire.Empty())).mq_uri
            if not known:
                raise CoreUnavailableError("The core has no message queue for this user.")
            self._pool.mq_uris[self._account] = known
        return self._pool.broker(known)

    @property
    def _account(self) -> tuple[str, str]:
        return self.address, self.user_id


class Expectation:
    """An entry that will be written; watched from the moment this was made until it is closed."""

    def __init__(self, client: WaitingCalls, key: str) -> None:
        self.key = key
        self._task = client._pool.spawn(self._first(client))

    async def __aenter__(self) -> "Expectation":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def value(self, timeout: float) -> bytes:
        """Return the entry's value once it has one; DeadlineExceededError after `timeout` seconds.

        May be called again after that, and by several at once.
        """
        await asyncio.wait((self._task,), timeout=timeout)
        if not self._task.done():
            raise DeadlineExceededError(f"There was no entry {self.key} within {timeout:g} s.")
        if self._task.cancelled():
            raise CoreUnavailableError(f"Nobody watches for the entry {self.key} any more.")
        return self._task.result()

    def close(self) -> None:
        """Stop watching; the subscription is ended in the background."""
        if not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled():
            self._task.exception()  # seen, even if nobody asked for the value

    async def _first(self, client: WaitingCalls) -> bytes:
        async with contextlib.aclosing(client.changes(self.key)) as changes:
            async for delivery in changes:
                return delivery.payload
        raise CoreUnavailableError(f"Nobody watches for the entry {self.key} any more.")


def _is_finished(task: wire.Task) -> bool:
    if task.status in ("rejected", "ignored"):
        reasons = "; ".join(decision.reason for decision in task.decisions if decision.reason)
        raise AccessDeniedError(
            f"Task {task.task_id} ({task.protocol_name}) was {task.status}"
            f"{': ' + reasons if reasons else ''}."
        )
    return bool(task.status == "finished")
