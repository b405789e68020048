"""The protocol operator: runs handlers on the tasks of a user, several kinds at once (§7).

Beyond the SDK's operators: a delivery is acknowledged only after its handler and FinishTask are
done, and while the handler works its lease is renewed, so that the tasks of a dead process, and no
others, are taken over. A lost core or queue is waited for. A handler that raises ends its task
only.
"""

import asyncio
from collections.abc import Mapping

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.queue import consumer_name
from engine.colink.role_loop import Handler, RoleLoop, TaskContext, patiently
from engine.colink.slots import Slots
from engine.kits.aio import cancel_and_wait

__all__ = ["LEASE", "Handler", "Operator", "TaskContext"]

LEASE = 10.0
"""Seconds without a sign of life after which another process takes over a task.

Of a process that ended on the same machine, tasks are taken over sooner.
"""


class Operator:
    """Runs `handlers`, by `protocol:role`, for the user of `client`.

    At most `concurrency` handlers run at once, of all roles together. `name` appears in the names
    of consumers, for people. A handler that raises CoreUnavailableError is run again a few times;
    any other exception is logged, and the task finished.
    """

    def __init__(
        self,
        client: Client,
        handlers: Mapping[str, Handler],
        *,
        concurrency: int = 1,
        name: str = "operator",
        lease: float = LEASE,
    ) -> None:
        self._client = client
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        slots = Slots(concurrency)
        self._protocol_names = {keys.split_handler(handled)[0] for handled in handlers}
        self._loops = [
            RoleLoop(
                client,
                *keys.split_handler(handled),
                handler,
                slots=slots,
                consumer=consumer_name(name),
                lease=lease,
                stopping=self._stopping,
            )
            for handled, handler in handlers.items()
        ]

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled, or drained. `ready` is set once all queues are read.

        Cancelling it cancels the handlers; their tasks are taken over by others.
        """
        self._running = True
        try:
            flags = {keys.protocol_is_initialized(name): b"\x01" for name in self._protocol_names}
            await patiently(lambda: self._client.update_many(flags))
            announcing = asyncio.create_task(self._announce(ready))
            try:
                async with asyncio.TaskGroup() as group:
                    for loop in self._loops:
                        group.create_task(loop.run())
            finally:
                await cancel_and_wait([announcing])
        finally:
            self._ended.set()

    async def drain(self) -> None:
        """Take nothing new, and wait until what runs is finished; `run` then returns."""
        self._stopping.set()
        if self._running:
            await self._ended.wait()

    async def _announce(self, ready: asyncio.Event | None) -> None:
        for loop in self._loops:
            await loop.connected.wait()
        if ready is not None:
            ready.set()
