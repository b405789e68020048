"""Queues in Redis or Valkey streams (§5.4): a queue's stream and its group have one name."""

import asyncio
import logging
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from engine.colink import wire
from engine.colink.queue import Delivery, process_of
from engine.colink.resp import Connection, Server, parse_uri
from engine.kits.processes import is_gone

log = logging.getLogger(__name__)
_PENDING = 1000
_IDLE_CONNECTIONS = 8
_Entry = tuple[str, bytes]


class StreamBroker:
    """An account at a Redis server: one connection for quick commands, others for waiting ones."""

    def __init__(self, mq_uri: str) -> None:
        self._server: Server = parse_uri(mq_uri)
        self._control: Connection | None = None
        self._opening = asyncio.Lock()
        self._idle: list[Connection] = []
        self._lent: set[Connection] = set()

    async def queue(self, name: str, capacity: int) -> "StreamQueue":
        """Open a shared queue; `capacity` needs no telling here, each `take` says how many."""
        await self.control()
        return StreamQueue(self, name)

    async def listen(self, name: str) -> "StreamListener":
        """Open a private queue."""
        return StreamListener(self, await self.borrow(), name)

    async def control(self) -> Connection:
        """Return the connection shared by all commands that do not block."""
        if self._control is None or self._control.closed:
            async with self._opening:
                if self._control is None or self._control.closed:
                    self._control = await Connection.open(self._server)
        return self._control

    async def borrow(self) -> Connection:
        """Return a connection of one's own, for commands that block."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                break
        else:
            connection = await Connection.open(self._server)
        self._lent.add(connection)
        return connection

    def give_back(self, connection: Connection, *, clean: bool) -> None:
        """Return a borrowed connection; `clean` when no command is under way on it."""
        self._lent.discard(connection)
        if clean and not connection.closed and len(self._idle) < _IDLE_CONNECTIONS:
            self._idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        """Close all connections."""
        for connection in (*self._idle, *self._lent, self._control):
            if connection is not None:
                connection.close()
        self._idle.clear()
        self._lent.clear()


class StreamQueue:
    """A shared queue; see `engine.colink.queue.Queue`."""

    def __init__(self, broker: StreamBroker, name: str) -> None:
        self.name = name
        self._broker = broker
        self._reader: Connection | None = None
        self._taking: asyncio.Future[Any] | None = None
        self._stale: frozenset[bytes] = frozenset()
        self.suspects = False

    async def take(self, consumer: str, count: int = 1) -> list[Delivery]:
        """Wait for new messages and return one to `count` of them; see Queue."""
        while True:
            if self._taking is None:
                self._reader = self._reader or await self._broker.borrow()
                self._taking = self._reader.call(
                    *("XREADGROUP", "GROUP", self.name, consumer, "COUNT", count),
                    *("BLOCK", 0, "STREAMS", self.name, ">"),
                )
            # The read goes on when the caller is cancelled: what it brings is ours already.
            await asyncio.wait((self._taking,))
            taken, self._taking = self._taking, None
            try:
                reply = taken.result()
            except BaseException:
                self._drop_reader()
                raise
            deliveries = await self._decode(_first_stream(reply), again=False)
            if deliveries:
                return deliveries

    async def recover(self, consumer: str) -> list[Delivery]:
        """Return what was given to `consumer` and is not acknowledged; see Queue."""
        control = await self._broker.control()
        reply = await control.call(
            *("XREADGROUP", "GROUP", self.name, consumer, "COUNT", _PENDING),
            *("STREAMS", self.name, "0"),
        )
        return await self._decode(_first_stream(reply), again=True)

    async def claim(self, consumer: str, min_idle: float, count: int = 10) -> list[Delivery]:
        """Take over messages of consumers that are dead; see Queue."""
        control = await self._broker.control()
        pending = await control.call("XPENDING", self.name, self.name, "-", "+", _PENDING)
        others = [_Pending(*entry[:3]) for entry in pending if entry[1] != consumer.encode()]
        stale = frozenset(entry.id for entry in others if entry.idle >= min_idle * 1000)
        dead = _dead(others, stale & self._stale)[:count]
        self._stale = stale.difference(entry.id for entry in dead)
        self.suspects = bool(self._stale)
        deliveries: list[Delivery] = []
        for entry in dead:
            # Who renewed or claimed it since we looked is not disturbed.
            least = max(1, entry.idle - 1)
            reply = await control.call("XCLAIM", self.name, self.name, consumer, least, entry.id)
            deliveries += await self._decode(reply, again=True)
        return deliveries

    async def renew(self, consumer: str, deliveries: list[Delivery]) -> list[Delivery]:
        """Keep others from claiming `deliveries`; return those that were claimed already."""
        if not deliveries:
            return []
        control = await self._broker.control()
        pending = await control.call(
            *("XPENDING", self.name, self.name, "-", "+", _PENDING, consumer)
        )
        ours = {entry[0].decode() for entry in pending}
        kept = [delivery.id for delivery in deliveries if delivery.id in ours]
        if kept:
            await control.call("XCLAIM", self.name, self.name, consumer, 0, *kept, "JUSTID")
        return [delivery for delivery in deliveries if delivery.id not in ours]

    async def ack(self, *deliveries: Delivery) -> None:
        """Remove messages from the queue: they are done."""
        await self._remove([delivery.id for delivery in deliveries])

    async def stop(self) -> None:
        """Take nothing new; `recover` tells what was delivered in this very moment."""
        if self._taking is not None:
            # Nobody awaits it any more; its failure is no news.
            self._taking.add_done_callback(lambda taken: taken.cancelled() or taken.exception())
            self._taking = None
        self._drop_reader()

    async def close(self) -> None:
        """Stop altogether."""
        await self.stop()

    def _drop_reader(self) -> None:
        if self._reader is not None:
            self._broker.give_back(self._reader, clean=False)
            self._reader = None

    async def _remove(self, ids: list[str]) -> None:
        if not ids:
            return
        control = await self._broker.control()
        await asyncio.gather(
            *control.call_all(("XACK", self.name, self.name, *ids), ("XDEL", self.name, *ids))
        )

    async def _decode(self, raw: list[Any], *, again: bool) -> list[Delivery]:
        """Return the deliveries in a reply; entries that are none are removed from the queue."""
        entries = _entries(raw)
        deliveries = [_delivery(entry, again=again) for entry in entries if entry[1]]
        good = [delivery for delivery in deliveries if delivery is not None]
        broken = {entry[0] for entry in entries} - {delivery.id for delivery in good}
        if broken:
            log.warning("removing %d unreadable messages from queue %s", len(broken), self.name)
            await self._remove(sorted(broken))
        return good


class StreamListener:
    """A private queue, read without its group; see `engine.colink.queue.Listener`."""

    def __init__(self, broker: StreamBroker, connection: Connection, name: str) -> None:
        self._broker = broker
        self._connection = connection
        self._name = name
        self._last = "0"
        self._clean = True

    async def next(self) -> Delivery:
        """Wait for the next message."""
        while True:
            self._clean = False
            reply = await self._connection.call(
                "XREAD", "COUNT", 1, "BLOCK", 0, "STREAMS", self._name, self._last
            )
            self._clean = True
            for entry in _entries(_first_stream(reply)):
                self._last = entry[0]
                delivery = _delivery(entry, again=False)
                if delivery is not None:
                    return delivery

    async def close(self) -> None:
        """Stop reading."""
        self._broker.give_back(self._connection, clean=self._clean)


class _Pending(NamedTuple):
    """A message that `consumer` holds, delivered, claimed or renewed `idle` milliseconds ago."""

    id: bytes
    consumer: bytes
    idle: int


def _dead(others: list[_Pending], silent: frozenset[bytes]) -> list[_Pending]:
    """Return what may be taken over: the `silent` ones, and what processes held that ended."""
    gone = {
        consumer: is_gone(process_of(consumer.decode(errors="replace")))
        for consumer in {entry.consumer for entry in others}
    }
    return [entry for entry in others if gone[entry.consumer] or entry.id in silent]


def _first_stream(reply: Any) -> list[Any]:
    """Return the entries of the one stream that was asked for."""
    return reply[0][1] if reply else []


def _entries(raw: list[Any]) -> list[_Entry]:
    """Return id and payload of each entry; no payload for one that was deleted or has none."""
    entries = []
    for item in raw:
        if item is None:  # Redis 6 says so of a claimed entry that was deleted
            continue
        fields = item[1] or []
        payload = dict(zip(fields[::2], fields[1::2], strict=True)).get(b"payload", b"")
        entries.append((item[0].decode(), payload))
    return entries


def _delivery(entry: _Entry, *, again: bool) -> Delivery | None:
    try:
        message = wire.SubscriptionMessage.FromString(entry[1])
    except DecodeError:
        return None
    return Delivery(message.change_type, message.key_path, message.payload, entry[0], again)
