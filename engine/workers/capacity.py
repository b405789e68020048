"""What a run takes of its worker's capacity, and gives back while it only waits for others."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

Away = Callable[[], AbstractAsyncContextManager[None]]


class Share:
    """One run's share of the capacity, given up while at least one of its waits is under way.

    So a flow that waits for a subflow of the same worker does not keep it from running. `away`
    makes a context in which the share is given up.
    """

    def __init__(self, away: Away) -> None:
        self._away = away
        self._waits = 0
        self._lock = asyncio.Lock()
        self._current: AbstractAsyncContextManager[None] | None = None

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None, None]:
        """Give up the share meanwhile; a run may wait for several things at once."""
        async with self._lock:
            self._waits += 1
            if self._current is None:
                self._current = self._away()
                await self._current.__aenter__()
        try:
            yield
        finally:
            async with self._lock:
                self._waits -= 1
                if self._waits == 0 and self._current is not None:
                    current, self._current = self._current, None
                    await current.__aexit__(None, None, None)


@asynccontextmanager
async def place_given_up(places: asyncio.Semaphore) -> AsyncGenerator[None, None]:
    """Let somebody else have a place meanwhile, and wait for one again at the end."""
    places.release()
    try:
        yield
    finally:
        await places.acquire()
