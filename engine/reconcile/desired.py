"""From a manifest to what it wants, with every default filled in. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.kits.digest import digest
from engine.model.ids import LOCAL
from engine.model.manifest import FlowSpec, Manifest, UserSpec
from engine.reconcile.records import ANYBODY, Allow, Subflow
from engine.reconcile.state import (
    Desired,
    DesiredFlow,
    DesiredMount,
    DesiredUser,
    DesiredWorkers,
)

SubflowsOf = Callable[[str], Mapping[str, Mapping[str, Any]]]
"""Given a flow class's name, returns the `subflows_config` of its defaults."""
CodeDigest = Callable[[str], str]
"""Given a flow class's name, returns a digest of the plugin's code."""


def desired(manifest: Manifest, subflows_of: SubflowsOf, code_digest: CodeDigest) -> Desired:
    """Return what `manifest` wants; users of the manifest are named, others are hex ids."""
    own = {name: user for name, user in manifest.users.items() if not user.foreign}
    everybody = tuple(sorted(_reference(manifest, name) for name in manifest.users))
    workers: list[DesiredWorkers] = []
    flows: list[DesiredFlow] = []
    mounts: list[DesiredMount] = []
    digests: dict[str, str] = {}

    def code(class_name: str) -> str:
        plugin = class_name.partition(".")[0]
        if plugin not in digests:
            digests[plugin] = code_digest(class_name)
        return digests[plugin]

    for name, user in own.items():
        workers += _workers(name, user, code)
        for endpoint, flow in user.flows.items():
            flows.append(
                DesiredFlow(
                    user=name,
                    endpoint=endpoint,
                    flow_class_name=flow.flow_class_name,
                    singleton=flow.singleton,
                    parallel_dispatch=flow.parallel_dispatch,
                    dispatch_point=flow.dispatch_point,
                    config_overrides=flow.config_overrides,
                    subflows=_subflows(manifest, name, flow, subflows_of),
                    allow=Allow(
                        _allowed(manifest, flow.allow.get_instance, everybody),
                        _allowed(manifest, flow.allow.send, everybody),
                    ),
                    retries=flow.retries,
                    mailbox_limit=flow.mailbox_limit,
                    input_schema=flow.input_schema,
                    output_schema=flow.output_schema,
                )
            )
        for mount_name, mount in user.mounts.items():
            mounts.append(
                DesiredMount(
                    user=name,
                    name=mount_name,
                    server=_resolve(manifest, name, mount.user_id),
                    flow_endpoint=mount.flow_endpoint,
                    config_overrides=mount.config_overrides,
                    initial_state=mount.initial_state,
                )
            )
    return Desired(
        manifest=manifest.name,
        users=tuple(
            DesiredUser(name, user.user_id or None) for name, user in manifest.users.items()
        ),
        workers=tuple(workers),
        flows=tuple(flows),
        mounts=tuple(mounts),
        file=manifest.file,
    )


def _reference(manifest: Manifest, name: str) -> str:
    """Return how a user of the manifest is referred to: by name, or by id if he is foreign."""
    return manifest.users[name].user_id or name


def _resolve(manifest: Manifest, owner: str, user_id: str) -> str:
    if user_id == LOCAL:
        return owner
    return _reference(manifest, user_id) if user_id in manifest.users else user_id


def _workers(name: str, user: UserSpec, code: Callable[[str], str]) -> list[DesiredWorkers]:
    """Return a user's groups of workers; those of a dispatch point depend on its flows' code."""
    groups = []
    for point, count in user.workers.dispatch.items():
        needed = {
            flow.flow_class_name for flow in user.flows.values() if flow.dispatch_point == point
        }
        if count > 0:
            codes = sorted({code(class_name) for class_name in needed})
            groups.append(DesiredWorkers(name, "dispatch", point, count, digest(codes)))
    if user.workers.get_instance > 0:
        count = user.workers.get_instance
        groups.append(DesiredWorkers(name, "get_instance", "", count, ""))
    return groups


def _subflows(
    manifest: Manifest, owner: str, flow: FlowSpec, subflows_of: SubflowsOf
) -> dict[str, Subflow]:
    """Return who serves each subflow: what the manifest says, over what the class says."""
    found: dict[str, Subflow] = {}
    defaults = subflows_of(flow.flow_class_name)
    overrides = flow.config_overrides.get("subflows_config") or {}
    for key in {**defaults, **flow.subflows}:
        default = {**defaults.get(key, {}), **(overrides.get(key) or {})}
        said = flow.subflows.get(key)
        user_id = (said and said.user_id) or default.get("user_id") or LOCAL
        endpoint = (said and said.flow_endpoint) or default.get("flow_endpoint")
        if not isinstance(endpoint, str):
            continue
        found[key] = Subflow(
            _resolve(manifest, owner, str(user_id)), endpoint, said.config_overrides if said else {}
        )
    return found


def _allowed(
    manifest: Manifest, names: tuple[str, ...] | None, everybody: tuple[str, ...]
) -> tuple[str, ...]:
    if names is None:
        return everybody
    if ANYBODY in names:
        return (ANYBODY,)
    known = manifest.users
    return tuple(sorted(_reference(manifest, name) if name in known else name for name in names))
