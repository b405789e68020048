"""How many handlers may run at once: slots that are given out in the order they are asked for."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Slots:
    """A number of slots. `reserve` never waits, so that who takes tasks knows what is left."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._free = limit
        self._queue: deque[asyncio.Future[None]] = deque()
        self._some_free = asyncio.Event()
        self._some_free.set()

    def reserve(self) -> "Slot":
        """Return a slot, or a place in the queue for one."""
        return Slot(self)

    @property
    def free(self) -> int:
        """Return how many slots are free now."""
        return self._free

    async def available(self) -> int:
        """Return how many slots are free; wait while there is none."""
        await self._some_free.wait()
        return self._free

    def enter(self) -> "asyncio.Future[None]":
        """Queue for a slot; the future is done when it is ours. For Slot."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._free > 0:
            self._free -= 1
            place.set_result(None)
        else:
            self._queue.append(place)
        if self._free == 0:
            self._some_free.clear()
        return place

    def leave(self, place: "asyncio.Future[None]") -> None:
        """Give up a slot, or the place in the queue. For Slot."""
        if not place.done():
            place.cancel()
            return
        if place.cancelled():
            return
        while self._queue:
            following = self._queue.popleft()
            if not following.done():
                following.set_result(None)
                return
        self._free += 1
        self._some_free.set()


class Slot:
    """One task's slot."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._place: asyncio.Future[None] | None = slots.enter()

    async def granted(self) -> None:
        """Wait until the slot is ours."""
        if self._place is not None:
            await self._place

    def release(self) -> None:
        """Give the slot to others; harmless when it was given already."""
        if self._place is not None:
            self._slots.leave(self._place)
            self._place = None

    @asynccontextmanager
    async def released(self) -> AsyncGenerator[None, None]:
        """Let others have the slot meanwhile, and wait for one again at the end.

        An exception does not wait: who raises is about to end.
        """
        self.release()
        yield
        self._place = self._slots.enter()
        await self.granted()
