"""Users' calls that concern users of other cores (§6.1, §6.2, §6.5).

A call is answered once its change is durable here and every core that can be reached was told. Who
cannot be reached now is told later; one whom nobody knows is an error at once.
"""

import asyncio
from collections.abc import Sequence

from engine.colink import wire
from engine.core.effects import Effects
from engine.core.peers.address_book import Pair
from engine.core.peers.courier import Courier
from engine.core.peers.outbox import Parcel
from engine.core.peers.transport import Transport
from engine.core.refusals import conflict
from engine.core.store import Store
from engine.core.tasks import Tasks
from engine.core.transitions import check_request

GRACE = 3.0
"""Seconds that a call waits for cores that neither take a task nor refuse it."""


class Outgoing:
    """CreateTask and ConfirmTask. They wait only when somebody elsewhere takes part."""

    def __init__(
        self,
        store: Store,
        tasks: Tasks,
        effects: Effects,
        transport: Transport,
        courier: Courier,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._effects = effects
        self._transport = transport
        self._courier = courier

    async def create(self, caller: str, request: wire.Task) -> str:
        """Make a task, give it to all participants, and return its id."""
        check_request(request, caller)
        peers = self._tasks.elsewhere(request)
        if peers:
            await asyncio.gather(*(self._transport.check(Pair(caller, peer)) for peer in peers))
        task_id = self._tasks.create(caller, request)
        if peers:
            await self._told(caller, task_id, peers)
        return task_id

    async def confirm(self, caller: str, task_id: str, decision: wire.Decision) -> None:
        """Record the caller's decision on a waiting task, and tell those whom it concerns."""
        initiator = self._tasks.initiator_elsewhere(caller, task_id, decision)
        if initiator is not None:
            await self._transport.check(Pair(caller, initiator))
        self._tasks.confirm(caller, task_id, decision)
        if initiator is not None:
            await self._told(caller, task_id, [initiator])

    def undeliverable(self, parcel: Parcel, reason: str) -> None:
        """A task that its receiver never sees cannot be agreed on: its initiator takes it back."""
        if parcel.opening:
            user_id, peer_id = parcel.pair
            self._effects.add(
                lambda: self._tasks.withdraw(
                    user_id, parcel.task_id, f"{peer_id} did not get the task: {reason}"
                )
            )
            self._effects.run()

    async def _told(self, caller: str, task_id: str, peers: Sequence[str]) -> None:
        """Wait for the first attempt to tell each peer; INTERNAL when one of them refuses."""
        attempts = {peer: self._courier.attempt(Pair(caller, peer), task_id) for peer in peers}
        self._effects.run()
        await self._store.committed()
        try:
            await asyncio.wait(attempts.values(), timeout=GRACE)
            for peer, attempt in attempts.items():
                if attempt.done() and (reason := attempt.result()):
                    raise conflict(f"The core of {peer} does not take the task: {reason}")
        finally:
            for attempt in attempts.values():
                attempt.cancel()
