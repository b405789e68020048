"""The operators of all users in one process: get_instance, and the scheduler where a core lacks it.

They run no flow code: what they need to know of flow classes (default configs) comes as data.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from engine.colink.client import Client, Connections
from engine.flows.catalog import DescribedCatalog
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.serving.audit import Audit
from engine.workers.get_instance import run_get_instance_worker
from engine.workers.orders import OperatorsOrders, OperatorUser
from engine.workers.scheduler import run_scheduler

log = logging.getLogger(__name__)


class Operators:
    """Runs what the newest orders say: starts, stops and restarts operators user by user.

    `tell` is called with `{"state": "ready", "users": [names]}` whenever that list changes, and
    with what `Audit` tells of refused attempts.
    """

    def __init__(self, connections: Connections, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self._connections = connections
        self._tell = tell
        self._audit = Audit(tell)
        self._running: dict[str, tuple[OperatorUser, asyncio.Task[None]]] = {}
        self._ready: set[str] = set()
        self._catalog = DescribedCatalog()
        self._stop = asyncio.Event()

    async def follow(self, orders: OperatorsOrders) -> None:
        """Make the running operators those of `orders`; unchanged users are not disturbed."""
        catalog = DescribedCatalog.from_json(orders.catalog)
        wanted = {user.name: user for user in orders.users}
        same_code = catalog.fingerprint == self._catalog.fingerprint
        self._catalog = catalog
        gone = [
            name
            for name, (user, _) in self._running.items()
            if not same_code or wanted.get(name) != user
        ]
        await cancel_and_wait(self._running.pop(name)[1] for name in gone)
        self._ready.difference_update(gone)
        for name, user in wanted.items():
            if name not in self._running:
                task = asyncio.create_task(self._keep(user), name=f"operators of {name}")
                self._running[name] = (user, task)
        self._announce()

    async def close(self) -> None:
        """Stop all operators."""
        await cancel_and_wait(task for _, task in self._running.values())
        self._running.clear()

    async def _keep(self, user: OperatorUser) -> None:
        """Run one user's operators; when they fail, say why, try again, disturb nobody."""
        failures, backoff = 0, Backoff()
        while True:
            try:
                await self._run(user)
            except Exception:
                failures += 1
                log.exception("the operators of %s failed", user.name)
            await asyncio.sleep(backoff.delay(max(1, failures)))

    async def _run(self, user: OperatorUser) -> None:
        client = self._connections.client(user.address, user.jwt, user.tls)
        async with asyncio.TaskGroup() as group:
            waits = []
            if user.get_instance:
                waits.append(self._start(group, self._get_instance, client, user))
            if user.scheduler:
                waits.append(self._start(group, self._schedule, client, user))
            for ready in waits:
                await ready.wait()
            self._ready.add(user.name)
            self._announce()

    def _start(
        self,
        group: asyncio.TaskGroup,
        run: Callable[[Client, OperatorUser, asyncio.Event], Any],
        client: Client,
        user: OperatorUser,
    ) -> asyncio.Event:
        ready = asyncio.Event()
        group.create_task(run(client, user, ready))
        return ready

    async def _get_instance(self, client: Client, user: OperatorUser, ready: asyncio.Event) -> None:
        await run_get_instance_worker(
            client,
            self._catalog,
            concurrency=user.get_instance,
            ready=ready,
            audit=self._audit,
        )

    async def _schedule(self, client: Client, user: OperatorUser, ready: asyncio.Event) -> None:
        await run_scheduler(client, ready=ready, audit=self._audit)

    def _announce(self) -> None:
        self._tell({"state": "ready", "users": sorted(self._ready)})
