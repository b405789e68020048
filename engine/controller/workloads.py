"""The worker processes of all manifests: from wanted groups to processes, and back to what is seen.

Dispatch workers are processes of their own, since they run flow code. The get_instance operators of
all users, and the schedulers of users whose core has none, share one process.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.controller.sessions import Session
from engine.flows.catalog import DescribedCatalog
from engine.kits.digest import digest
from engine.model.home import Home
from engine.model.status import State
from engine.reconcile.state import DesiredWorkers, ObservedWorker
from engine.workers.orders import OperatorsOrders, OperatorUser, WorkerOrders
from engine.workers.supervisor import ProcessSpec, ProcessStatus, Supervisor

OPERATORS = "operators"
"""The name of the process that runs the operators."""
READY_TIMEOUT = 30.0
MOVED = "started for another core"
"""Stands in for the digest of a worker whose core has another address by now."""


@dataclass(frozen=True)
class _Group:
    """A group of workers as it was last asked for."""

    manifest: str
    wanted: DesiredWorkers
    session: Session
    environment: Mapping[str, str] = field(repr=False)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.manifest, self.wanted.user, self.wanted.name

    @property
    def address(self) -> str:
        return self.session.client.address


class Workloads:
    """Keeps the groups of workers that the executor asks for."""

    def __init__(self, home: Home, supervisor: Supervisor) -> None:
        self._home = home
        self._supervisor = supervisor
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._catalog: Mapping[str, Any] = {}

    async def keep(
        self,
        manifest: str,
        wanted: DesiredWorkers,
        session: Session,
        environment: Mapping[str, str],
        catalog: DescribedCatalog,
    ) -> None:
        """Make the group run as `wanted` and wait until all of it is ready.

        More workers are added, superfluous ones drained; those whose code or core changed are
        replaced one by one, the new one ready before the old one is drained. Raises EngineError
        with the worker's last words when one does not get ready.
        """
        group = _Group(manifest, wanted, session, environment)
        self._groups[group.key] = group
        self._catalog = catalog.description
        if wanted.kind == "get_instance":
            await self._keep_operators()
            await self._supervisor.wait_until(
                OPERATORS, lambda status: _serves(status, session), READY_TIMEOUT
            )
            return
        for index in range(wanted.count):
            await self._supervisor.ensure(self._dispatch_spec(group, index), READY_TIMEOUT)
        await self._drain_beyond(group, wanted.count)

    async def drop(self, manifest: str, user: str, group_name: str) -> None:
        """Drain the workers of a group and forget it."""
        group = self._groups.pop((manifest, user, group_name), None)
        if group is None:
            return
        if group.wanted.kind == "get_instance":
            await self._keep_operators()
        else:
            await self._drain_beyond(group, 0)

    def observed(self) -> tuple[ObservedWorker, ...]:
        """Return every worker that runs or is being restarted."""
        return tuple(
            worker for group in self._groups.values() for worker in self._observed_group(group)
        )

    def _observed_group(self, group: _Group) -> list[ObservedWorker]:
        if group.wanted.kind == "get_instance":
            status = self._supervisor.status(OPERATORS)
            return [self._worker(group, "get_instance", status)] if status else []
        workers = []
        for name in self._process_names(group):
            status = self._supervisor.status(name)
            if status is not None:
                workers.append(self._worker(group, name.rpartition("/")[2], status))
        return workers

    def _worker(self, group: _Group, name: str, status: ProcessStatus) -> ObservedWorker:
        wanted, state = group.wanted, status.state
        if wanted.kind == "get_instance":
            started_with = wanted.digest
            if state is State.READY and not _serves(status, group.session):
                state = State.PENDING
        else:
            spec = self._supervisor.spec(self._process_prefix(group) + name)
            started_with = str(spec.line.get("digest", "")) if spec else ""
            if spec and spec.line.get("address") != group.address:
                started_with = MOVED
        return ObservedWorker(
            manifest=group.manifest,
            user=wanted.user,
            name=name,
            kind=wanted.kind,
            dispatch_point=wanted.dispatch_point,
            digest=started_with,
            state=state,
            message=status.message,
            count=wanted.count if wanted.kind == "get_instance" else 1,
            pid=status.pid,
            restarts=status.restarts,
        )

    def _process_prefix(self, group: _Group) -> str:
        return f"{group.manifest}/{group.wanted.user}/"

    def _process_names(self, group: _Group) -> list[str]:
        """Return the names of the group's processes, lowest index first."""
        start = f"{self._process_prefix(group)}{group.wanted.dispatch_point}-"
        indices = [
            int(name.removeprefix(start))
            for name in self._supervisor.statuses()
            if name.startswith(start) and name.removeprefix(start).isdigit()
        ]
        return [f"{start}{index}" for index in sorted(indices)]

    async def _drain_beyond(self, group: _Group, count: int) -> None:
        for name in self._process_names(group)[count:]:
            await self._supervisor.remove(name)

    def _dispatch_spec(self, group: _Group, index: int) -> ProcessSpec:
        wanted, session = group.wanted, group.session
        worker = f"{wanted.dispatch_point}-{index}"
        orders = WorkerOrders(
            name=f"{wanted.user}/{worker}",
            address=group.address,
            jwt=session.token,
            tls=session.core.tls,
            dispatch_point=wanted.dispatch_point,
            environment=dict(group.environment),
            digest=wanted.digest,
        )
        return ProcessSpec(
            name=self._process_prefix(group) + worker,
            command=(sys.executable, "-u", "-m", "engine.workers.process"),
            log=self._home.worker_log(wanted.user, worker),
            digest=digest([wanted.digest, group.address, dict(group.environment)]),
            line=msgspec.to_builtins(orders),
        )

    async def _keep_operators(self) -> None:
        """Tell the operators' process whom to serve now; without anybody it is stopped."""
        users = tuple(
            OperatorUser(
                name=group.session.user_id,
                address=group.address,
                jwt=group.session.token,
                tls=group.session.core.tls,
                get_instance=group.wanted.count,
                scheduler=group.session.own_scheduler,
            )
            for group in self._groups.values()
            if group.wanted.kind == "get_instance"
        )
        if not users:
            await self._supervisor.remove(OPERATORS)
            return
        by_user = {(user.name, user.address): user for user in sorted(users, key=_requests)}
        orders = OperatorsOrders(users=tuple(by_user.values()), catalog=dict(self._catalog))
        spec = ProcessSpec(
            name=OPERATORS,
            command=(sys.executable, "-u", "-m", "engine.workers.process"),
            log=self._home.operators_log,
            line=msgspec.to_builtins(orders),
        )
        await self._supervisor.ensure(spec, READY_TIMEOUT)


def _requests(user: OperatorUser) -> int:
    return user.get_instance


def _serves(status: ProcessStatus, session: Session) -> bool:
    """Tell whether the operators' process serves the user of `session`."""
    return status.state is State.READY and session.user_id in status.told.get("users", ())
