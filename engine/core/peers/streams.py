"""Reverse connections that other cores opened to this one: streams into which tasks are put (§6.6).

A stream leads to the user who opened it, and carries what one user of this core has for him. The
protocol knows no answer on a stream. So what was put in counts as arrived only once the stream has
stood a while longer than it takes to notice that the other side is gone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator

from engine.colink import wire
from engine.core.peers.address_book import Pair

CAPACITY = 64
"""Tasks that may wait in a stream, as upstream."""
PROVEN_AFTER = 45.0
"""Seconds: the server's keepalive notices a silent connection after 30."""
Send = Callable[[wire.Task], Awaitable[None]]


class StreamEndedError(Exception):
    """The other side closed the stream, or is gone."""


class Stream:
    """A stream that is held open. `written` is the greatest id of a parcel put into it."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.written = 0
        self._unproven: deque[tuple[float, int]] = deque()
        self._tasks: asyncio.Queue[tuple[wire.Task, asyncio.Future[None]]] = asyncio.Queue(CAPACITY)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def write(self, task: wire.Task) -> None:
        """Put a task in and wait until it is sent; StreamEndedError when that comes first."""
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        put = asyncio.create_task(self._put(task, sent))
        try:
            await asyncio.wait((put, self._ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            put.cancel()
        if not sent.done():
            raise StreamEndedError

    async def _put(self, task: wire.Task, sent: "asyncio.Future[None]") -> None:
        await self._tasks.put((task, sent))
        await sent

    async def serve(self, send: Send) -> None:
        """Send what is put in, until `end`."""
        while not self._ended.done():
            get = asyncio.create_task(self._tasks.get())
            try:
                await asyncio.wait((get, self._ended), return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not get.done():
                    get.cancel()
            if self._ended.done() or not get.done():
                return
            task, sent = get.result()
            await send(task)
            if not sent.done():
                sent.set_result(None)

    def end(self) -> None:
        """Let `serve` return and every `write` fail."""
        if not self._ended.done():
            self._ended.set_result(None)

    def note(self, parcel_id: int, now: float) -> None:
        """Remember that a parcel was put in at `now`, in seconds of any clock."""
        self.written = parcel_id
        self._unproven.append((now, parcel_id))

    def proven(self, now: float) -> list[int]:
        """Return, once each, the parcels that have certainly arrived."""
        ids = []
        while self._unproven and self._unproven[0][0] + PROVEN_AFTER < now:
            ids.append(self._unproven.popleft()[1])
        return ids


class Streams:
    """The streams there are, by the user here and the one to whom they lead; the newest counts."""

    def __init__(self) -> None:
        self._streams: dict[Pair, Stream] = {}
        self.on_change: Callable[[Pair], None] = lambda pair: None
        """Is told when a stream came or went."""

    def __iter__(self) -> Iterator[Stream]:
        return iter(list(self._streams.values()))

    def get(self, pair: Pair) -> Stream | None:
        """Return the stream that leads to a peer."""
        return self._streams.get(pair)

    def open(self, pair: Pair) -> Stream:
        """Register a new stream. An older one ends: its other side has dialled again."""
        old = self._streams.get(pair)
        if old is not None:
            old.end()
        stream = self._streams[pair] = Stream(pair)
        self.on_change(pair)
        return stream

    def close(self, stream: Stream) -> None:
        """Forget a stream that has ended."""
        stream.end()
        if self._streams.get(stream.pair) is stream:
            del self._streams[stream.pair]
            self.on_change(stream.pair)

    def close_all(self) -> None:
        """End all streams."""
        for stream in self:
            stream.end()
