"""Planning mounts: the instances that shall exist. Pure."""

from collections.abc import Collection, Iterable
from typing import Any

from engine.reconcile import steps as ids
from engine.reconcile.flows import differences
from engine.reconcile.policy import MOUNT_FIELDS, Effect
from engine.reconcile.records import RELEASED, MountRecord, Resolver
from engine.reconcile.state import Desired, DesiredMount, Observed, ObservedMount
from engine.reconcile.steps import Problem, Step


def plan_mounts(
    desired: Desired,
    observed: Observed,
    resolver: Resolver,
    others: Collection[str],
    flow_steps: Iterable[Step],
) -> tuple[list[Step], list[Problem]]:
    """Return the steps for the manifest's mounts, and what must not be touched."""
    there = {(mount.user, mount.name): mount for mount in observed.mounts}
    wanted = {(mount.user, mount.name): mount for mount in desired.mounts}
    replaced = {step.id for step in flow_steps if step.action == "replace"}
    found: list[Step] = []
    problems: list[Problem] = []
    for key, mount in wanted.items():
        result = _mount(mount, there.get(key), resolver, others, replaced)
        if isinstance(result, Problem):
            problems.append(result)
        elif result is not None:
            found.append(result)
    for key, old in there.items():
        if key not in wanted and old.record.manifest == desired.manifest:
            cause = "no longer in the manifest"
            found.append(Step("delete", "mount", old.user, old.name, cause))
    return found, problems


def _mount(
    mount: DesiredMount,
    there: ObservedMount | None,
    resolver: Resolver,
    others: Collection[str],
    replaced: Collection[str],
) -> Step | Problem | None:
    reached = resolver.reached(mount)
    waits = _waits(mount, resolver)

    def step(action: Any, cause: str, changes: Iterable[str] = ()) -> Step:
        return Step(action, "mount", mount.user, mount.name, cause, waits, tuple(sorted(changes)))

    if there is None:
        return step("create", "not mounted yet")
    if there.record.manifest in others:
        return Problem(
            ids.step_id("mount", mount.user, mount.name),
            f"it belongs to the manifest {there.record.manifest}. Choose another name.",
        )
    going = sorted(
        f"{flow.user}/{flow.endpoint}"
        for flow in reached
        if ids.step_id("flow", flow.user, flow.endpoint) in replaced
    )
    if going:
        return step("replace", f"flow {', '.join(going)} is replaced")
    want = resolver.mount_record(mount, there.record.flow_id)
    changed = differences(there.record.values(), want.values())
    if changed:
        cause = "; ".join(f"{name}: {change}" for name, change in changed.items())
        return step(_action(changed, there.record, mount, resolver), cause, changed)
    if there.live is False:
        return step("replace", "its instance, or that of a subflow, is gone")
    if there.record.manifest == RELEASED:
        return step("update", "taken up again")
    if there.record.manifest != want.manifest:
        return step("update", f"taken over from {there.record.manifest}, which is not applied")
    return None


def _action(
    changed: Collection[str], record: MountRecord, mount: DesiredMount, resolver: Resolver
) -> str:
    """An instance that another user serves cannot be reconfigured, only got anew."""
    own = record.user_id == resolver.user_id(mount.user)
    replace = any(MOUNT_FIELDS[name] is Effect.REPLACE for name in changed)
    return "update" if own and not replace else "replace"


def _waits(mount: DesiredMount, resolver: Resolver) -> tuple[str, ...]:
    """Return all that has to be there before the instance can be got."""
    reached = resolver.reached(mount)
    users = {mount.user, mount.server, *(flow.user for flow in reached)}
    return (
        ids.CORE,
        *(ids.user_step(user) for user in users),
        *(ids.step_id("flow", flow.user, flow.endpoint) for flow in reached),
        *(ids.step_id("worker", user, "get_instance") for user in users),
    )
