"""Queues in Redis or Valkey streams (§5.4), over one connection on which everything is in order.

The id of an event is the id of its message in the stream, and ids increase: a message that is sent
again after a crash is turned away by the server as older than the newest. So each arrives once.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from engine.colink.resp import Connection, Server
from engine.core.queue.accounts import Account, username_of
from engine.core.queue.port import Routes
from engine.core.subscriptions import Event
from engine.model.errors import CoreUnavailableError, UsageError

log = logging.getLogger(__name__)
_START_TIMEOUT = 30.0
"""Seconds that a server may take to start and to read its data."""
_RETRY = 1.0
_TIDY_AFTER = 500
"""After so many messages a queue is rid of the consumers that hold nothing: about as many."""
_CHUNK = 200
_TIDY = """
local consumers = redis.call('XINFO', 'CONSUMERS', KEYS[1], KEYS[1])
if #consumers <= 32 then return 0 end
for _, consumer in ipairs(consumers) do
  if consumer[4] == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], KEYS[1], consumer[2])
  end
end
return #consumers
"""
"""Why a script: a consumer that gets a message right between two commands would lose it."""


class StreamServer(Protocol):
    """The server: the core's own Valkey, or one that somebody else runs."""

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


class Streams:
    """The `MessageQueue` in a server's streams."""

    def __init__(self, server: StreamServer) -> None:
        self._server = server
        self.lost = server.lost
        self.stop = server.stop

    def uri(self, account: Account) -> str:
        """Return the `mq_uri` for clients.

        The parameters are for redis-py 8: without them an endless read ends after five seconds, and
        answers in a shape that the SDK does not expect.
        """
        who = f"{account.username}:{account.password}"
        query = "protocol=2&socket_timeout=31536000"
        return f"{self._server.scheme}://{who}@{self._server.address}/?{query}"

    async def connect(self) -> "StreamLink":
        """Connect, once the server has started and read its data."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _START_TIMEOUT
        while True:
            # Again each time: it may have ended because its port was taken at the last moment.
            server = await self._server.running()
            try:
                line = await _Line.open(server)
                await line.call("PING")
            except CoreUnavailableError:
                if loop.time() > end:
                    raise
                await asyncio.sleep(0.005)
            else:
                assert isinstance(line, _Line)
                return StreamLink(line)


class _Line(Connection):
    """A connection that tells when it is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        self.ended.set()


class StreamLink:
    """A `Link`: each queue is a stream with a group of its own name."""

    def __init__(self, line: _Line) -> None:
        self.call = line.call
        """Run any command as the administrator; see `Connection.call`."""
        self._line = line
        self._queues: set[str] = set()
        self._unswept: Counter[str] = Counter()
        self._refused: set[int] = set()

    @property
    def ended(self) -> asyncio.Event:
        """See Link."""
        return self._line.ended

    async def restore(self, accounts: Sequence[Account], routes: Routes) -> list[str]:
        """See Link."""
        await asyncio.gather(*(self.add_account(account) for account in accounts))
        made = await asyncio.gather(*(self._made(queue) for queue in routes))
        usernames = {account.username for account in accounts}
        for queue in await self._streams():
            if queue not in routes and username_of(queue) in usernames:
                await self.call("DEL", queue)
        return [queue for queue, is_new in zip(routes, made, strict=True) if is_new]

    async def add_account(self, account: Account) -> None:
        """See Link."""
        await self.call("ACL", "SETUSER", account.username, "reset", *_rights(account))

    async def add_queue(self, queue: str, routing_key: str) -> None:
        """See Link. Routing keys are for RabbitMQ."""
        await self._made(queue)

    async def _made(self, queue: str) -> bool:
        """Make a queue; False when it is there."""
        self._queues.add(queue)
        try:
            await self.call("XGROUP", "CREATE", queue, queue, "0", "MKSTREAM")
        except UsageError as error:
            if "BUSYGROUP" not in error.message:
                raise
            return False
        return True

    async def remove_queue(self, queue: str) -> None:
        """See Link."""
        self._queues.discard(queue)
        self._unswept.pop(queue, None)
        await self.call("DEL", queue)

    def publish(self, events: Sequence[Event], delivered: Callable[[int], None]) -> None:
        """See Link."""
        commands = [
            ("XADD", queue, "NOMKSTREAM", f"{event_id}-0", "payload", message)
            for event_id, queue, message in events
        ]
        for event, added in zip(events, self._line.call_all(*commands), strict=True):
            added.add_done_callback(partial(self._added, event, delivered))
            self._unswept[event.queue] += 1
            if self._unswept[event.queue] >= _TIDY_AFTER:
                self._sweep(event.queue)

    def _added(
        self, event: Event, delivered: Callable[[int], None], done: "asyncio.Future[Any]"
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is None or "equal or smaller" in str(error):
            if error is not None and event.id in self._refused:
                # Later ones came in before it: late is better than never.
                again = self.call("XADD", event.queue, "NOMKSTREAM", "*", "payload", event.message)
                again.add_done_callback(partial(self._added, event, delivered))
            else:
                delivered(event.id)
            self._refused.discard(event.id)
        elif not isinstance(error, CoreUnavailableError):
            # Its disk or memory is full, most likely.
            log.error("an event was refused by the message queue, it is tried again: %s", error)
            self._refused.add(event.id)
            asyncio.get_running_loop().call_later(_RETRY, self.publish, [event], delivered)

    async def flush(self) -> None:
        """See Link."""
        await self.call("PING")

    async def tidy(self) -> None:
        """Remove consumers that hold no message: the SDK takes a new name for every read."""
        for queues in _chunks(sorted(self._queues)):
            for queue in queues:
                self._sweep(queue)
            await self.flush()

    async def lengths(self) -> Mapping[str, int]:
        """See Link. Readers delete what they have had."""
        found: dict[str, int] = {}
        for queues in _chunks(sorted(self._queues)):
            answers = self._line.call_all(*(("XLEN", queue) for queue in queues))
            found |= zip(queues, await asyncio.gather(*answers), strict=True)
        return found

    def _sweep(self, queue: str) -> None:
        # Somebody who waits under such a name is not disturbed: it is made again.
        self._unswept.pop(queue, None)
        self.call("EVAL", _TIDY, 1, queue).add_done_callback(_swept)

    async def close(self) -> None:
        """See Link."""
        self._line.close()

    async def _streams(self) -> list[str]:
        found: list[str] = []
        cursor = b"0"
        while True:
            cursor, names = await self.call("SCAN", cursor, "COUNT", 1000)
            found += [name.decode() for name in names]
            if cursor == b"0":
                return found


def _chunks(queues: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(queues), _CHUNK):
        yield queues[start : start + _CHUNK]


def acl_rule(account: Account) -> str:
    """Return an account as a line of Valkey's ACL file."""
    return " ".join(("user", account.username, *_rights(account)))


def _rights(account: Account) -> tuple[str, ...]:
    return ("on", f">{account.password}", f"~{account.username}:*", "+@stream")


def _swept(done: "asyncio.Future[Any]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        error = done.exception()
        if error is not None and not isinstance(error, CoreUnavailableError):
            log.debug("a queue was not rid of idle consumers: %s", error)
