"""Tasks that nobody decided on in time: upstream leaves them as they are, for ever (§6.3, §12)."""

import asyncio
import time
from collections.abc import Callable, Iterable

from engine.core.effects import Effects
from engine.core.tasks import Tasks
from engine.kits.aio import cancel_and_wait

_EVERY = 300.0
_SLACK = 60.0
"""Seconds beyond a task's expiration: clocks of cores differ a little."""


class Expiry:
    """Ends expired tasks every five minutes, one user after the other."""

    def __init__(
        self, tasks: Tasks, effects: Effects, user_ids: Callable[[], Iterable[str]]
    ) -> None:
        self._tasks = tasks
        self._effects = effects
        self._user_ids = user_ids
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work in the background."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop after the user under way."""
        if self._task is not None:
            await cancel_and_wait([self._task])

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.sweep(time.time() - _SLACK)

    async def sweep(self, before: float) -> None:
        """End what has expired before the Unix second `before`."""
        for user_id in self._user_ids():
            self._tasks.expire(user_id, before)
            self._effects.run()
            await asyncio.sleep(0)
