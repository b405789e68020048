"""Publishing: events from the outbox into Valkey streams, in order, over one connection.

The id of an event is the id of its message in the stream, and ids increase: a message that is sent
again after a crash is turned away by Valkey as older than the newest. So each arrives once.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from engine.colink.resp import Connection, Server
from engine.core.queue.accounts import Account, Accounts
from engine.core.store import Store
from engine.core.subscriptions import Event, Subscriptions
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.model.errors import CoreUnavailableError, EngineError, UsageError

log = logging.getLogger(__name__)
_WAIT = 15.0
"""Seconds that a subscriber waits for a message queue that is just restarting."""
_TIDY_EVERY = 0.05
_SWEEP_EVERY = 30.0
_CONSUMERS = 32
"""A group with more consumers than this is rid of those that hold nothing."""


class QueueServer(Protocol):
    """Where the queues are: the core's own Valkey, or one given by `--mq-uri`."""

    scheme: str
    """Of the URIs for clients: redis, or rediss for TLS."""

    @property
    def address(self) -> str:
        """Host and port as clients use them."""
        ...

    async def running(self) -> Server:
        """Make sure that it runs, and return how to connect to it."""
        ...

    async def lost(self) -> None:
        """Note that the connection to it ended."""
        ...

    async def stop(self) -> None:
        """Stop it, if it is ours."""
        ...


class _Line(Connection):
    """A connection that tells when it is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.ended.set()


class Publisher:
    """Keeps accounts, queues and messages in Valkey as the store says they are."""

    def __init__(
        self, store: Store, subscriptions: Subscriptions, accounts: Accounts, server: QueueServer
    ) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._accounts = accounts
        self._server = server
        self._line: _Line | None = None
        self._up = asyncio.Event()
        self._delivered: list[int] = []
        self._task: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self.on_connected: Callable[[], None] = lambda: None
        """Is called at each connection: the address may have changed."""

    async def start(self) -> None:
        """Start the server, connect, and keep it so. Raises what goes wrong at first."""
        self._subscriptions.on_events = self._publish
        await self._connect()
        self._task = asyncio.create_task(self._keep_connected())
        self._sweeper = asyncio.create_task(self._sweep_regularly())

    async def stop(self) -> None:
        """Disconnect and stop the server."""
        await cancel_and_wait([task for task in (self._task, self._sweeper) if task is not None])
        if self._line is not None:
            await self._flush(self._line)
            self._line.close()
            self._line = None
        self._tidy()
        await self._server.stop()

    async def add_account(self, account: Account) -> None:
        """Make an account known to Valkey."""
        await self._insist(*account.command())

    async def add_queue(self, queue: str) -> None:
        """Make a stream with its group, so that a client can read from it."""
        try:
            await self._insist(*_create_group(queue))
        except UsageError as error:
            if "BUSYGROUP" not in error.message:
                raise

    async def remove_queue(self, queue: str) -> None:
        """Drop a stream, now or at the next connect; who reads from it gets an error."""
        if self._line is not None:
            with contextlib.suppress(EngineError):
                await self._line.call("DEL", queue)

    async def _insist(self, *command: str) -> None:
        """Run a command, over a new connection if this one is lost meanwhile."""
        try:
            async with asyncio.timeout(_WAIT):
                while True:
                    await self._up.wait()
                    assert self._line is not None
                    try:
                        await self._line.call(*command)
                        return
                    except CoreUnavailableError:
                        await asyncio.sleep(0.01)
        except TimeoutError as error:
            raise CoreUnavailableError("The message queue does not come up.") from error

    # Connecting

    async def _keep_connected(self) -> None:
        backoff, failures = Backoff(first=0.05, limit=5.0), 0
        while True:
            if self._line is not None:
                await self._line.ended.wait()
                log.warning("the connection to the message queue was lost")
                self._up.clear()
                self._line = None
                await self._server.lost()
            try:
                await self._connect()
                failures = 0
            except (EngineError, OSError) as error:
                failures += 1
                log.warning("cannot connect to the message queue: %s", error)
                await asyncio.sleep(backoff.delay(failures))

    async def _connect(self) -> None:
        server = await self._server.running()
        line = await _open(server)
        try:
            await self._restore(line)
        except BaseException:
            line.close()
            raise
        # From here to the end nothing waits: what is committed later is published at once.
        while self._store.in_transaction:
            await self._store.committed()
        self._line = line
        self._publish(self._subscriptions.undelivered())
        self.on_connected()
        self._up.set()

    async def _restore(self, line: _Line) -> None:
        """Make again what Valkey forgot, and drop what nobody knows any more."""
        calls = [line.call(*account.command()) for _, account in self._accounts.items()]
        await asyncio.gather(*calls)
        known = set(self._subscriptions.queues())
        groups = [line.call(*_create_group(queue)) for queue in known]
        for result in await asyncio.gather(*groups, return_exceptions=True):
            if isinstance(result, BaseException) and "BUSYGROUP" not in str(result):
                raise result
        usernames = {account.username for _, account in self._accounts.items()}
        for queue in await _scan(line):
            if queue not in known and queue.partition(":")[0] in usernames:
                await line.call("DEL", queue)

    # Publishing

    def _publish(self, events: Sequence[Event]) -> None:
        line = self._line
        if line is None:
            return
        for event in events:
            added = line.call(
                *("XADD", event.queue, "NOMKSTREAM", f"{event.id}-0", "payload", event.message)
            )
            added.add_done_callback(partial(self._added, event.id))

    def _added(self, event_id: int, done: "asyncio.Future[Any]") -> None:
        if done.cancelled():
            return
        error = done.exception()
        if isinstance(error, CoreUnavailableError):
            return
        if error is not None and "equal or smaller" not in str(error):
            log.error("an event was not accepted by the message queue: %s", error)
        if not self._delivered:
            asyncio.get_running_loop().call_later(_TIDY_EVERY, self._tidy)
        self._delivered.append(event_id)

    def _tidy(self) -> None:
        ids, self._delivered = self._delivered, []
        if ids and not self._store.closed:
            self._subscriptions.delivered(ids)

    async def _flush(self, line: _Line) -> None:
        """Wait until everything sent so far is answered."""
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(_WAIT):
                await line.call("PING")

    # Consumers that nobody uses any more: the SDK takes a new name for every read.

    async def _sweep_regularly(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_EVERY)
            with contextlib.suppress(EngineError):
                await self.sweep()

    async def sweep(self) -> None:
        """Remove consumers that hold no message from groups that have many of them."""
        line = self._line
        if line is None:
            return
        for queue in self._subscriptions.queues():
            groups = _fields(await line.call("XINFO", "GROUPS", queue))
            if not groups or groups[0][b"consumers"] <= _CONSUMERS:
                continue
            for consumer in _fields(await line.call("XINFO", "CONSUMERS", queue, queue)):
                if consumer[b"pending"] == 0 and consumer[b"idle"] > _SWEEP_EVERY * 1000:
                    await line.call("XGROUP", "DELCONSUMER", queue, queue, consumer[b"name"])


def _create_group(queue: str) -> tuple[str, ...]:
    return ("XGROUP", "CREATE", queue, queue, "0", "MKSTREAM")


async def _open(server: Server) -> _Line:
    """Connect, once the server has started and read its data."""
    async with asyncio.timeout(_WAIT * 2):
        while True:
            try:
                line = await _Line.open(server)
                await line.call("PING")
            except CoreUnavailableError:
                await asyncio.sleep(0.005)
            else:
                assert isinstance(line, _Line)
                return line


async def _scan(line: _Line) -> list[str]:
    found: list[str] = []
    cursor = b"0"
    while True:
        cursor, names = await line.call("SCAN", cursor, "COUNT", 1000)
        found += [name.decode() for name in names]
        if cursor == b"0":
            return found


def _fields(items: list[list[Any]]) -> list[dict[Any, Any]]:
    return [dict(zip(item[::2], item[1::2], strict=True)) for item in items]
