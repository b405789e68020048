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
        own = there.record.user_id == resolver.user_id(mount.user)
        anew = _must_be_replaced(changed, there.record, want, own=own)
        if "tree" in changed:
            changed["tree"] = _other_tree(there.record, want)
        cause = "; ".join(changed.values())
        return step("replace" if anew else "update", cause, changed)
    if there.live is False:
        return step("replace", "its instance, or that of a subflow, is gone")
    if there.record.manifest == RELEASED:
        return step("update", "taken up again")
    if there.record.manifest != want.manifest:
        return step("update", f"taken over from {there.record.manifest}, which is not applied")
    return None


def _must_be_replaced(
    changed: Collection[str], record: MountRecord, want: MountRecord, *, own: bool
) -> bool:
    """An instance that another user serves cannot be given overrides, only got anew with them."""
    effects = {MOUNT_FIELDS[name] for name in changed if name != "tree"}
    if _other_classes(record, want):
        effects.add(MOUNT_FIELDS["tree"])
    return Effect.REPLACE in effects or (Effect.RECONFIGURE in effects and not own)


def _other_tree(record: MountRecord, want: MountRecord) -> str:
    changed = _other_classes(record, want)
    if changed:
        return f"{', '.join(changed)} is another class than before"
    return "its flow has other subflows"


def _other_classes(record: MountRecord, want: MountRecord) -> list[str]:
    """Return the endpoints in both trees whose class is another one.

    What is in one tree only is a subflow that was put in another's place: the instance goes on,
    and gets an instance of it when its flow is reconfigured.
    """
    return sorted(
        address.partition("/")[2]
        for address in record.tree.keys() & want.tree.keys()
        if record.tree[address] != want.tree[address]
    )


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
