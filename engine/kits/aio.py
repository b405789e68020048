"""Small pieces for asyncio: a loop for callers that are not async, and tidy task endings."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Portal:
    """An event loop in a daemon thread, through which plain code runs coroutines."""

    def __init__(self, name: str = "portal") -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run `coroutine` on the loop and return its result; wait at most `timeout` seconds.

        Raises TimeoutError, after cancelling the coroutine, when the time is up.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout)
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Start `coroutine` on the loop without waiting for it."""
        return asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(coroutine, self.loop), loop=self.loop
        )

    def close(self) -> None:
        """Cancel what still runs, stop the loop and end its thread."""
        if self.loop.is_closed():
            return

        async def cancel_all() -> None:
            current = asyncio.current_task()
            await cancel_and_wait(task for task in asyncio.all_tasks() if task is not current)

        self.run(cancel_all())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


async def cancel_and_wait(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel `tasks` and wait until each has ended; their exceptions are dropped.

    A cancellation of the caller meanwhile is his own, and is raised: so the tasks are waited for,
    never awaited, where theirs could not be told from his.
    """
    pending = list(tasks)
    for task in pending:
        task.cancel()
    if pending:
        await asyncio.wait(pending)
    for task in pending:
        if not task.cancelled():
            task.exception()  # seen, so that nobody complains that it was not


async def map_limited(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int
) -> list[R]:
    """Return `[await function(item) for item in items]`, at most `limit` of them at once.

    The first exception cancels the rest and is raised.
    """
    gate = asyncio.Semaphore(limit)

    async def one(item: T) -> R:
        async with gate:
            return await function(item)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]
