"""Planning served flows. Pure."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.kits.digest import canonical_json
from engine.model.secrets import WRAPPER, is_wrapper
from engine.reconcile import steps as ids
from engine.reconcile.policy import FLOW_FIELDS, Effect
from engine.reconcile.records import RELEASED, FlowRecord, Resolver
from engine.reconcile.state import Desired, DesiredFlow, Observed, ObservedFlow, ObservedMount
from engine.reconcile.steps import Problem, Step

_ENTRIES = ("flow_class_name", "singleton", "parallel_dispatch", "dispatch_point")
_SHOWN = 40
_LISTED = 3
"""Changes that a cause lists for each field."""


def plan_flows(
    desired: Desired, observed: Observed, resolver: Resolver, others: Collection[str]
) -> tuple[list[Step], list[Problem]]:
    """Return the steps for the manifest's endpoints, and what must not be touched."""
    there = {(flow.user, flow.endpoint): flow for flow in observed.flows}
    wanted = {(flow.user, flow.endpoint): flow for flow in desired.flows}
    found: list[Step] = []
    problems: list[Problem] = []
    for key, flow in wanted.items():
        result = _flow(flow, there.get(key), resolver.flow_record(flow), others)
        if isinstance(result, Problem):
            problems.append(result)
        elif result is not None:
            found.append(result)
    ours = [mount for mount in observed.mounts if mount.record.manifest == desired.manifest]
    mounts_on = mounts_by_flow(ours, observed)
    for key, old in there.items():
        if key not in wanted and old.record and old.record.manifest == desired.manifest:
            found.append(_delete(old, mounts_on.get(key, ())))
    return found, problems


def mounts_by_flow(
    mounts: Iterable[ObservedMount], observed: Observed
) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the ids of the steps on `mounts`, by user and endpoint of the flow they are of.

    A flow that goes waits for these alone: each instance lies below the endpoint it is of.
    """
    users = {user.user_id: name for name, user in observed.users.items()}
    found: dict[tuple[str, str], list[str]] = {}
    for mount in mounts:
        server = users.get(mount.record.user_id)
        if server is not None:
            step = ids.step_id("mount", mount.user, mount.name)
            found.setdefault((server, mount.record.flow_endpoint), []).append(step)
    return {flow: tuple(steps) for flow, steps in found.items()}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields that differ, each with `path: old → new` of what differs in it."""
    return {
        name: _listed(list(_changes(name, old.get(name), new.get(name))))
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    }


def _changes(path: str, old: Any, new: Any) -> Iterator[str]:
    """Yield `path: old → new` for each value that differs; mappings are gone into."""
    if not (_is_branch(old) and _is_branch(new)):
        yield f"{path}: {_shown(old)} → {_shown(new)}"
        return
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            yield from _changes(f"{path}.{key}", old.get(key), new.get(key))


def _is_branch(value: Any) -> bool:
    return isinstance(value, Mapping) and not is_wrapper(value)


def _listed(changes: Sequence[str]) -> str:
    more = len(changes) - _LISTED
    return "; ".join(changes[:_LISTED]) + (f"; and {more} more" if more > 0 else "")


def _flow(
    flow: DesiredFlow, there: ObservedFlow | None, want: FlowRecord, others: Collection[str]
) -> Step | Problem | None:
    # The record names the users of subflows by their ids, so these must be there first.
    users = {flow.user, *(subflow.user_id for subflow in flow.subflows.values())}
    waits = (ids.CORE, *(ids.user_step(user) for user in users))

    def step(action: Any, cause: str, changes: Iterable[str] = ()) -> Step:
        return Step(action, "flow", flow.user, flow.endpoint, cause, waits, tuple(sorted(changes)))

    if there is None or (there.record is None and not there.served):
        return step("create", "not served yet")
    if there.record is None:
        if _drift(there, want):
            return Problem(
                ids.step_id("flow", flow.user, flow.endpoint),
                "another flow is served there by hand. Unserve it, or choose another endpoint.",
            )
        return step("update", "adopted: it is served by hand in the same way")
    if there.record.manifest in others:
        return Problem(
            ids.step_id("flow", flow.user, flow.endpoint),
            f"it belongs to the manifest {there.record.manifest}. Remove it from one of the two.",
        )
    changed = differences(there.record.values(), want.values())
    if changed:
        replaced = any(FLOW_FIELDS[name] is Effect.REPLACE for name in changed)
        cause = "; ".join(changed.values())
        return step("replace" if replaced else "update", cause, changed)
    drift = _drift(there, there.record)
    if drift:
        return step("update", f"was changed outside: {', '.join(drift)}", drift)
    if there.record.manifest == RELEASED:
        return step("update", "served again")
    if not there.served:
        return step("update", "was changed outside: it is no longer served", ("init",))
    if there.record.manifest != want.manifest:
        return step("update", f"taken over from {there.record.manifest}, which is not applied")
    return None


def _drift(there: ObservedFlow, record: FlowRecord) -> list[str]:
    """Return the entries that do not say what the record says."""
    return [name for name in _ENTRIES if getattr(there, name) != getattr(record, name)]


def _delete(flow: ObservedFlow, waits: tuple[str, ...]) -> Step:
    instances = f"{flow.instances} instance{'' if flow.instances == 1 else 's'}"
    cause = "no longer in the manifest" + (f"; {instances} go" if flow.instances else "")
    return Step("delete", "flow", flow.user, flow.endpoint, cause, waits)


def _shown(value: Any) -> str:
    if value is None:
        return "(none)"
    if is_wrapper(value):
        value = value[WRAPPER]
    text = value if isinstance(value, str) else canonical_json(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
