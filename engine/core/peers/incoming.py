"""What other cores bring: tasks and decisions, for its users or to be passed on (§6.5, §6.6).

Whoever brings it, a task is believed only as far as its signatures go; `Tasks.receive` sees to it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from engine.colink import wire
from engine.core.effects import Effects
from engine.core.peers.address_book import Pair
from engine.core.peers.streams import StreamEndedError, Streams
from engine.core.refusals import Refusal, unreachable
from engine.core.store import Store
from engine.core.tasks import Tasks

log = logging.getLogger(__name__)
_PASSED_ON_WITHIN = 5.0


class Context(Protocol):
    """What is used of a gRPC call whose answer is a stream."""

    send_initial_metadata: Callable[[tuple[()]], Awaitable[None]]
    write: Callable[[wire.Task], Awaitable[None]]


class Incoming:
    """The receiving end of the two inter-core RPCs."""

    def __init__(self, store: Store, tasks: Tasks, effects: Effects, streams: Streams) -> None:
        self._store = store
        self._tasks = tasks
        self._effects = effects
        self._streams = streams

    async def forward(self, forwarder: str, target: str, task: wire.Task) -> None:
        """Pass a task on to who keeps a stream to `forwarder`, a user of this core.

        FAILED_PRECONDITION when there is no such stream, so also when that would be a second hop.
        """
        stream = self._streams.get(Pair(forwarder, target))
        if stream is None:
            raise unreachable(f"There is no reverse connection from {target} to {forwarder}.")
        try:
            async with asyncio.timeout(_PASSED_ON_WITHIN):
                await stream.write(task)
        except (StreamEndedError, TimeoutError) as error:
            raise unreachable(f"The reverse connection from {target} has ended.") from error

    async def hold(self, owner: str, task: wire.Task, context: Context) -> None:
        """Take in a task and keep its call open: what its initiator is to get goes into it.

        Ends with the call. What is refused is refused before anything was sent.
        """
        peer_id = self._tasks.receive_opening(owner, task)
        # First the stream: what follows from the task is to go this way already.
        stream = self._streams.open(Pair(owner, peer_id))
        try:
            self._effects.run()
            await self._store.committed()
            await context.send_initial_metadata(())
            await stream.serve(context.write)
        finally:
            self._streams.close(stream)

    def take_streamed(self, owner: str, task: wire.Task) -> None:
        """Take in a task from a stream that this core opened for a user.

        There is nobody to refuse it to: one bad task does not end the stream for those behind it.
        """
        try:
            self._tasks.receive(owner, task)
        except Refusal as refusal:
            log.info("a streamed task for %s is dropped: %s", owner, refusal.message)
        except Exception:
            log.exception("a streamed task for %s could not be taken in", owner)
        self._effects.run()
