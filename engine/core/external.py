"""Operators that are not built in: packages, run as processes for users (§7.4)."""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from engine.colink import keys, wire
from engine.core.effects import Effects
from engine.core.entries import Entries
from engine.core.operator_processes import OperatorProcesses
from engine.core.packages import Package, Packages, operator_environment
from engine.core.pom import OperatorManager
from engine.core.refusals import Refusal
from engine.core.settings import Settings
from engine.kits.aio import cancel_and_wait

log = logging.getLogger(__name__)
_AT_ONCE = 4
_PID, _PUBLIC_ADDRESS = "pid", "vt_public_addr"


class ExternalOperators:
    """Starts and stops packages' operators. Those that ran when the core ended run again."""

    def __init__(
        self,
        settings: Settings,
        host_id: str,
        entries: Entries,
        effects: Effects,
        operators: OperatorManager,
        core_uri: Callable[[], str],
    ) -> None:
        self._host_id = host_id
        self._entries = entries
        self._effects = effects
        self._operators = operators
        self._core_uri = core_uri
        self._packages = Packages(
            settings.colink_home,
            settings.pom_protocol_inventory,
            allow_external=settings.pom_allow_external_source,
        )
        self._processes = OperatorProcesses(settings.home / "operators", self._started)
        # Of its own: long installations must not keep the storage's work waiting.
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="packages")
        self._owners: dict[str, str] = {}
        self._resuming: asyncio.Task[None] | None = None

    async def start(self, request: wire.StartProtocolOperatorRequest) -> str:
        """Start an operator that a checked request asks for, and return the instance's id.

        Refused with NOT_FOUND without a package, INTERNAL when it cannot be installed or started.
        """
        package = await self._prepare(
            request.protocol_name,
            source_type=request.source_type,
            source=request.source,
            fresh=request.upgrade,
        )
        user_id, name = request.user_id, request.protocol_name
        instance_id = self._operators.add(user_id, name)
        if request.vt_public_addr:
            key = keys.operator_instance(instance_id, _PUBLIC_ADDRESS)
            self._entries.update(user_id, key, request.vt_public_addr.encode())
        try:
            await self._run(instance_id, user_id, package)
        except Refusal:
            self._operators.remove(instance_id, user_id, name)
            raise
        return instance_id

    async def stop(self, instance_id: str) -> None:
        """End the process of an instance, if it has one."""
        await self._processes.stop(instance_id)
        self._owners.pop(instance_id, None)

    def resume(self) -> None:
        """Start again, in the background, what ran when the core ended."""
        self._resuming = asyncio.create_task(self._resume())

    async def stop_all(self) -> None:
        """End all processes; they are started again with the core."""
        if self._resuming is not None:
            await cancel_and_wait([self._resuming])
        await self._processes.stop_all()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _resume(self) -> None:
        for instance_id, user_id, name in self._operators.external_instances():
            try:
                package = await self._prepare(name)
                await self._run(instance_id, user_id, package)
            except Refusal as refusal:
                log.error("the operator %s of %s does not run: %s", name, user_id, refusal.message)

    async def _prepare(self, name: str, **more: Any) -> Package:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._threads, partial(self._packages.prepare, name, **more)
        )

    async def _run(self, instance_id: str, user_id: str, package: Package) -> None:
        token = self._entries.get(self._host_id, keys.user_jwt(user_id)) or b""
        environment = operator_environment(os.environ) | {
            "COLINK_CORE_ADDR": self._core_uri(),
            # Stock operators take it from nowhere else; it is seen by this system's user only.
            "COLINK_JWT": token.decode(),
        }
        address = self._entries.get(user_id, keys.operator_instance(instance_id, _PUBLIC_ADDRESS))
        if address:
            environment["COLINK_VT_PUBLIC_ADDR"] = address.decode()
        self._owners[instance_id] = user_id
        await self._processes.start(instance_id, package, environment)

    def _started(self, instance_id: str, pid: int) -> None:
        owner = self._owners[instance_id]
        self._entries.update(owner, keys.operator_instance(instance_id, _PID), str(pid).encode())
        self._effects.run()
