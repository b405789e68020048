"""A world of plain values: what a plan makes of it, told step by step as the executor does it."""

from dataclasses import dataclass, field, replace

from engine.model.status import State
from engine.reconcile.records import RELEASED, Allow, FlowRecord, MountRecord, Resolver
from engine.reconcile.state import (
    Desired,
    DesiredFlow,
    DesiredMount,
    DesiredUser,
    DesiredWorkers,
    Observed,
    ObservedFlow,
    ObservedMount,
    ObservedUser,
    ObservedWorker,
)
from engine.reconcile.steps import Plan, Step

DIGEST = "code-1"


def id_of(name: str) -> str:
    """Return the hex id that a user called `name` gets."""
    return f"02{name.encode().hex():0>64}"[:66]


def flow(user: str, endpoint: str, **fields: object) -> DesiredFlow:
    """Return a wanted flow with plain defaults."""
    values: dict[str, object] = {
        "flow_class_name": "test.Echo",
        "singleton": False,
        "parallel_dispatch": False,
        "dispatch_point": "coflows_dispatch",
        "allow": Allow(("user0", "user1"), ("user0", "user1")),
    }
    return DesiredFlow(user, endpoint, **{**values, **fields})  # type: ignore[arg-type]


def workers(user: str, count: int = 1, digest: str = DIGEST) -> DesiredWorkers:
    """Return wanted workers at the default dispatch point."""
    return DesiredWorkers(user, "dispatch", "coflows_dispatch", count, digest)


def requests(user: str, count: int = 1) -> DesiredWorkers:
    """Return a wanted get_instance worker."""
    return DesiredWorkers(user, "get_instance", "", count, "")


def two_users(**fields: object) -> Desired:
    """Return what a manifest with the users user0 and user1 wants."""
    values: dict[str, object] = {"users": (DesiredUser("user0"), DesiredUser("user1"))}
    return Desired("demo", **{**values, **fields})  # type: ignore[arg-type]


@dataclass
class World:
    """What is there; `carry_out` changes it as a plan says."""

    core_ready: bool = False
    users: dict[str, ObservedUser] = field(default_factory=dict)
    workers: dict[tuple[str, str], list[ObservedWorker]] = field(default_factory=dict)
    flows: dict[tuple[str, str], ObservedFlow] = field(default_factory=dict)
    mounts: dict[tuple[str, str], ObservedMount] = field(default_factory=dict)
    made: int = 0

    def unconnected(self) -> Observed:
        """Return what a fresh engine sees: identities, but neither core, processes nor storage."""
        return Observed(
            core_ready=False,
            users={name: replace(user, ready=False) for name, user in self.users.items()},
            unseen=frozenset(self.users),
        )

    def observed(self, *, backwards: bool = False) -> Observed:
        """Return all that is there, in one order or the other."""
        turn = -1 if backwards else 1
        return Observed(
            core_ready=self.core_ready,
            users=dict(list(self.users.items())[::turn]),
            workers=tuple([w for group in self.workers.values() for w in group][::turn]),
            flows=tuple(list(self.flows.values())[::turn]),
            mounts=tuple(list(self.mounts.values())[::turn]),
        )

    def carry_out(self, plan: Plan, desired: Desired, only: set[str] | None = None) -> None:
        """Do the steps of `plan` in an order that their waits allow; with `only`, just those."""
        done: set[str] = set()
        left = [step for step in plan.steps if only is None or step.id in only]
        while left:
            ready = [step for step in left if done.issuperset(step.waits_for)]
            if not ready:
                assert only is not None, f"the waits go round in a circle: {left}"
                return
            for step in ready:
                self._do(step, desired)
                done.add(step.id)
            left = [step for step in left if step.id not in done]

    def _do(self, step: Step, desired: Desired) -> None:
        key = (step.user, step.name)
        resolver = Resolver(desired, {n: u.user_id for n, u in self.users.items()})
        match (step.kind, step.action):
            case ("core", _):
                self.core_ready = True
            case ("user", "delete"):
                del self.users[step.name]
            case ("user", _):
                self.users[step.name] = ObservedUser(
                    id_of(step.name), ready=True, manifests=(desired.manifest,)
                )
            case ("worker", "delete"):
                del self.workers[key]
            case ("worker", _):
                group = next(g for g in desired.workers if (g.user, g.name) == key)
                self.workers[key] = _running(desired.manifest, group)
            case ("flow", "delete"):
                del self.flows[key]
            case ("flow", "release"):
                there = self.flows[key]
                assert there.record is not None
                record = replace(there.record, manifest=RELEASED)
                self.flows[key] = replace(there, served=False, record=record)
            case ("flow", _):
                wanted = next(f for f in desired.flows if (f.user, f.endpoint) == key)
                self.flows[key] = served(wanted, resolver.flow_record(wanted))
            case ("mount", "delete"):
                del self.mounts[key]
            case ("mount", "release"):
                mount = self.mounts[key]
                self.mounts[key] = replace(mount, record=replace(mount.record, manifest=RELEASED))
            case ("mount", action):
                wanted_mount = next(m for m in desired.mounts if (m.user, m.name) == key)
                self.mounts[key] = self._mounted(wanted_mount, resolver, action)

    def _mounted(self, mount: DesiredMount, resolver: Resolver, action: str) -> ObservedMount:
        if action == "update":
            flow_id = self.mounts[mount.user, mount.name].record.flow_id
        else:
            self.made += 1
            flow_id = f"flow-{self.made}"
        record: MountRecord = resolver.mount_record(mount, flow_id)
        return ObservedMount(mount.user, mount.name, record, live=True)


def served(wanted: DesiredFlow, record: FlowRecord) -> ObservedFlow:
    """Return what stands in storage once `wanted` is served."""
    return ObservedFlow(
        user=wanted.user,
        endpoint=wanted.endpoint,
        served=True,
        flow_class_name=wanted.flow_class_name,
        singleton=wanted.singleton,
        parallel_dispatch=wanted.parallel_dispatch,
        dispatch_point=wanted.dispatch_point,
        record=record,
    )


def _running(manifest: str, group: DesiredWorkers) -> list[ObservedWorker]:
    processes = group.count if group.kind == "dispatch" else 1
    each = 1 if group.kind == "dispatch" else group.count
    return [
        ObservedWorker(
            manifest=manifest,
            user=group.user,
            name=f"{group.name}-{number}",
            kind=group.kind,
            dispatch_point=group.dispatch_point,
            digest=group.digest,
            state=State.READY,
            count=each,
            pid=1000 + number,
        )
        for number in range(processes)
    ]
