"""The planner: what has to be done so that what is observed becomes what is desired. Pure.

`plan` looks at core, users, workers, flows and mounts in turn. What a step waits for is computed
from the resources, not from neighbouring steps, so a wait passes through whatever is unchanged.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from engine.reconcile import steps as ids
from engine.reconcile.flows import mounts_by_flow, plan_flows
from engine.reconcile.mounts import plan_mounts
from engine.reconcile.records import RELEASED, Resolver
from engine.reconcile.state import Desired, DesiredMount, Observed
from engine.reconcile.steps import NOBODY, Action, Plan, Step
from engine.reconcile.workers import plan_workers

_KINDS = {"core": 0, "user": 1, "worker": 2, "flow": 3, "mount": 4}
_REMOVALS = {"mount": 0, "flow": 1, "worker": 2, "user": 3, "core": 4}


def plan(desired: Desired, observed: Observed, *, others: Collection[str] = ()) -> Plan:
    """Return the plan for one manifest. `others` are the names of the other live manifests.

    Of a user whose storage could not be read only the connection is planned: what seems not to be
    there may be there, with its state. The plan after that one has the rest.
    """
    resolver = Resolver(desired, observed.user_ids)
    found = [*_core(observed), *_users(desired, observed), *plan_workers(desired, observed)]
    seen = _seen(desired, observed, resolver)
    flows, flow_problems = plan_flows(seen, observed, resolver, others)
    mounts, mount_problems = plan_mounts(seen, observed, resolver, others, flows)
    problems = sorted([*flow_problems, *mount_problems], key=str)
    return Plan(desired.manifest, _ordered([*found, *flows, *mounts]), tuple(problems))


def plan_removal(manifest: str, observed: Observed, *, purge: bool) -> Plan:
    """Return the plan that takes down what `manifest` owns; with `purge` nothing of it is kept."""
    found: list[Step] = []
    action: Action = "delete" if purge else "release"
    owners = {manifest, RELEASED} if purge else {manifest}
    cause = "the manifest is purged" if purge else "the manifest is taken down"
    mounts = [m for m in observed.mounts if m.record.manifest in owners]
    flows = [f for f in observed.flows if f.record and f.record.manifest in owners]
    mount_ids = tuple(ids.step_id("mount", mount.user, mount.name) for mount in mounts)
    flow_ids = tuple(ids.step_id("flow", flow.user, flow.endpoint) for flow in flows)
    for mount in mounts:
        found.append(Step(action, "mount", mount.user, mount.name, cause))
    mounts_on = mounts_by_flow(mounts, observed)
    for flow in flows:
        waits = mounts_on.get((flow.user, flow.endpoint), ())
        found.append(Step(action, "flow", flow.user, flow.endpoint, cause, waits))
    groups = sorted({(w.user, w.group) for w in observed.workers if w.manifest == manifest})
    for user, group in groups:
        found.append(Step("delete", "worker", user, group, cause, (*mount_ids, *flow_ids)))
    unready = {name for name, user in observed.users.items() if not user.ready}
    unseen = sorted(unready | observed.unseen)
    if unseen and not observed.core_ready:
        found.append(Step("create", "core", NOBODY, "core", "to look at what is stored"))
    for name in unseen:
        found.append(Step("update", "user", NOBODY, name, "to look at what is stored", (ids.CORE,)))
    if purge and not unseen:
        all_ids = (*mount_ids, *flow_ids, *(ids.step_id("worker", u, g) for u, g in groups))
        for name, known in observed.users.items():
            if not set(known.manifests) - {manifest}:
                found.append(Step("delete", "user", NOBODY, name, cause, all_ids))
    return Plan(manifest, _ordered(found))


def _seen(desired: Desired, observed: Observed, resolver: Resolver) -> Desired:
    """Return the part of `desired` that can be compared with what is there."""

    def reaches_unseen(mount: DesiredMount) -> bool:
        users = {mount.user, mount.server, *(flow.user for flow in resolver.reached(mount))}
        return not users.isdisjoint(observed.unseen)

    if not observed.unseen:
        return desired
    return replace(
        desired,
        flows=tuple(flow for flow in desired.flows if flow.user not in observed.unseen),
        mounts=tuple(mount for mount in desired.mounts if not reaches_unseen(mount)),
    )


def _core(observed: Observed) -> Iterable[Step]:
    if not observed.core_ready:
        yield Step("create", "core", NOBODY, "core", "not running")


def _users(desired: Desired, observed: Observed) -> Iterable[Step]:
    for user in desired.users:
        if user.foreign:
            continue
        known = observed.users.get(user.name)
        if user.name in observed.unseen or (known is not None and not known.ready):
            cause = "not connected to the core"
            yield Step("update", "user", NOBODY, user.name, cause, (ids.CORE,))
        elif known is None:
            yield Step("create", "user", NOBODY, user.name, "no identity yet", (ids.CORE,))


def _ordered(found: Iterable[Step]) -> tuple[Step, ...]:
    """Return the steps in the order of the text form, their waits cut to what is in the plan."""
    by_id = {step.id: step for step in found}

    def position(step: Step) -> tuple[object, ...]:
        removes = step.action in {"delete", "release"}
        rank: Mapping[str, int] = _REMOVALS if removes else _KINDS
        return (not removes, rank[step.kind], step.user, step.name)

    return tuple(
        Step(
            step.action,
            step.kind,
            step.user,
            step.name,
            step.cause,
            tuple(sorted({wait for wait in step.waits_for if wait in by_id and wait != step.id})),
            step.changes,
        )
        for step in sorted(by_id.values(), key=position)
    )
