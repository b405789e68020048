"""How everything is, and why: the status of a manifest from what is desired and observed. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from engine.model.errors import Fault
from engine.model.status import (
    Condition,
    FlowStatus,
    ManifestStatus,
    MountStatus,
    State,
    UserStatus,
    WorkerStatus,
)
from engine.reconcile.state import (
    Desired,
    DesiredFlow,
    DesiredMount,
    DesiredWorkers,
    Observed,
    ObservedWorker,
)
from engine.reconcile.steps import CORE, step_id, user_step

_EFFECT = ("flow", State.DEGRADED)


def conditions(
    desired: Desired,
    observed: Observed,
    *,
    failures: Mapping[str, str],
    faults: Sequence[Fault] = (),
    generation: int,
    observed_generation: int,
    previous: ManifestStatus | None,
    now: float,
    removing: bool = False,
) -> ManifestStatus:
    """Return the manifest's status.

    `failures` are the messages of failed steps by id, `faults` those of the file as it is now (the
    rest then tells of the last good generation). Conditions keep their `since` while unchanged.
    """
    look = _Look(desired, observed, failures, removing)
    users = {user.name: look.user(user.name, user.user_id) for user in desired.users}
    unready = [line for user in users.items() for line in _unready(*user)]
    told = [f"{resource}: {message}" for resource, message in failures.items()] or unready
    current = generation == observed_generation
    converged = not (faults or told or removing) and current and observed.core_ready
    if removing:
        reason, message = "Removing", "; ".join(told) or "being taken down"
    elif converged:
        reason, message = "Converged", ""
    elif told:
        reason, message = ("Failed" if failures else "NotReady"), "; ".join(told)
    else:
        reason, message = "Progressing", str(faults[0]) if faults else "not made so yet"
    found = (
        _condition(
            "ManifestValid",
            not faults,
            "Valid" if not faults else "Invalid",
            "\n".join(str(fault) for fault in faults),
        ),
        _condition("Converged", converged, reason, message),
    )
    return ManifestStatus(
        name=desired.manifest,
        file=desired.file,
        generation=generation,
        observed_generation=observed_generation,
        converged=converged,
        conditions=tuple(_since(condition, previous, now) for condition in found),
        users=users,
    )


class _Look:
    """One look at one manifest."""

    def __init__(
        self,
        desired: Desired,
        observed: Observed,
        failures: Mapping[str, str],
        removing: bool,
    ) -> None:
        self._desired = desired
        self._failures = failures
        self._removing = removing
        self._core_ready = observed.core_ready
        self._users = observed.users
        self._flows = {(flow.user, flow.endpoint): flow for flow in observed.flows}
        self._mounts = {(mount.user, mount.name): mount for mount in observed.mounts}
        self._workers: dict[tuple[str, str], list[ObservedWorker]] = {}
        for worker in observed.workers:
            if worker.manifest == desired.manifest:
                self._workers.setdefault((worker.user, worker.group), []).append(worker)

    def user(self, name: str, foreign_id: str | None) -> UserStatus:
        known = self._users.get(name)
        groups = [group for group in self._desired.workers if group.user == name]
        return UserStatus(
            user_id=foreign_id or (known.user_id if known else ""),
            workers=tuple(worker for group in groups for worker in self._group(group)),
            flows={
                flow.endpoint: self._flow(flow) for flow in self._desired.flows if flow.user == name
            },
            mounts={
                mount.name: self._mount(mount)
                for mount in self._desired.mounts
                if mount.user == name
            },
        )

    def _group(self, group: DesiredWorkers) -> Iterable[WorkerStatus]:
        running = sorted(self._workers.get((group.user, group.name), ()), key=lambda w: w.name)
        for worker in running:
            yield WorkerStatus(
                *(worker.name, worker.kind, worker.dispatch_point, worker.pid),
                *(worker.state, worker.restarts, worker.message),
            )
        if not running:
            message = self._failure("worker", group.user, group.name)
            state = State.FAILED if message else State.PENDING
            name = group.kind if group.kind == "get_instance" else f"{group.dispatch_point}-0"
            yield WorkerStatus(
                *(name, group.kind, group.dispatch_point, 0, state, 0, message or "not running")
            )

    def _flow(self, flow: DesiredFlow) -> FlowStatus:
        there = self._flows.get((flow.user, flow.endpoint))
        message = self._failure("flow", flow.user, flow.endpoint) or self._prerequisite(flow.user)
        state = State.FAILED if message else State.READY
        if not message and (there is None or not there.served):
            state, message = State.PENDING, "not served yet"
        elif not message:
            state, message = self._served_by(flow)
        if self._removing:
            state = State.TERMINATING
        return FlowStatus(
            flow_class_name=flow.flow_class_name,
            singleton=flow.singleton,
            parallel_dispatch=flow.parallel_dispatch,
            dispatch_point=flow.dispatch_point,
            state=state,
            message=message,
        )

    def _served_by(self, flow: DesiredFlow) -> tuple[State, str]:
        """A served flow works only if a worker runs at its dispatch point."""
        workers = self._workers.get((flow.user, f"dispatch:{flow.dispatch_point}"), [])
        if any(worker.state is State.READY for worker in workers):
            return State.READY, ""
        return State.DEGRADED, f"no worker is ready at {flow.dispatch_point}"

    def _mount(self, mount: DesiredMount) -> MountStatus:
        there = self._mounts.get((mount.user, mount.name))
        message = self._failure("mount", mount.user, mount.name) or self._prerequisite(mount.user)
        state = State.FAILED if message else State.READY
        if not message and there is None:
            state, message = State.PENDING, "not mounted yet"
        elif not message and there is not None and there.live is False:
            state, message = State.DEGRADED, "its instance, or that of a subflow, is gone"
        if self._removing:
            state = State.TERMINATING
        server = self._users.get(mount.server)
        return MountStatus(
            flow_id=there.record.flow_id if there else "",
            user_id=server.user_id if server else mount.server,
            flow_endpoint=mount.flow_endpoint,
            state=state,
            message=message,
        )

    def _failure(self, kind: str, user: str, name: str) -> str:
        return self._failures.get(step_id(kind, user, name), "")  # type: ignore[arg-type]

    def _prerequisite(self, user: str) -> str:
        """Return what is wrong with the core or the user, on which everything else depends."""
        failure = self._failures.get(CORE) or self._failures.get(user_step(user))
        if failure:
            return failure
        return "" if self._core_ready else "the core is not running"


def _unready(user: str, status: UserStatus) -> Iterable[str]:
    """Yield a line for each resource that is not ready, but for what only follows from another.

    A flow is degraded when its workers are not ready: those are told, with the cause.
    """
    for worker in status.workers:
        if worker.state is not State.READY:
            yield f"worker {user}/{worker.name} is {worker.state.value}: {worker.message}"
    for kind, found in (("flow", status.flows), ("mount", status.mounts)):
        for name, resource in found.items():
            if resource.state is not State.READY and (kind, resource.state) != _EFFECT:
                yield f"{kind} {user}/{name} is {resource.state.value}: {resource.message}"


def _condition(type_: str, holds: bool, reason: str, message: str) -> Condition:
    return Condition(type_, "True" if holds else "False", reason, message, 0.0)


def _since(condition: Condition, previous: ManifestStatus | None, now: float) -> Condition:
    """Date a condition: since it has had this status."""
    before = next(
        (old for old in (previous.conditions if previous else ()) if old.type == condition.type),
        None,
    )
    since = before.since if before and before.status == condition.status else now
    return Condition(condition.type, condition.status, condition.reason, condition.message, since)
