"""From a checked value to the Manifest: defaults filled in, paths made absolute."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.flows.schemas import expanded
from engine.loading.document import Document
from engine.loading.paths import path_text
from engine.model.ids import DEFAULT_DISPATCH_POINT, LOCAL
from engine.model.manifest import (
    DEFAULT_MAILBOX_LIMIT,
    AllowSpec,
    CoreSpec,
    FlowSpec,
    Manifest,
    MountSpec,
    RetriesSpec,
    SubflowSpec,
    TlsSpec,
    UserSpec,
    WorkersSpec,
)

Value = Mapping[str, Any]


def absolute(file: Path) -> Path:
    """Return `file` without dots in it, from the root on. Links are not followed."""
    return Path(os.path.normpath(file.absolute()))


def build(value: Value, document: Document, file: Path, name: str) -> Manifest:
    """Return the Manifest that the checked `value` declares."""
    folder = absolute(file).parent
    users = {user: _user(spec, folder) for user, spec in value["users"].items()}
    return Manifest(
        name=name,
        file=str(absolute(file)),
        core=_core(value.get("core", "embedded"), folder),
        users=users,
        places=_places(users, document),
    )


def _places(users: Mapping[str, UserSpec], document: Document) -> dict[str, tuple[int, int]]:
    paths: list[tuple[str | int, ...]] = [("name",)]
    for name, user in users.items():
        paths += [("users", name, "flows", endpoint) for endpoint in user.flows]
        paths += [("users", name, "mounts", mount) for mount in user.mounts]
    return {path_text(path): document.key_place(path) for path in paths}


def _core(spec: Any, folder: Path) -> CoreSpec:
    if isinstance(spec, str):
        return CoreSpec()
    files = {kind: _file(path, folder) for kind, path in spec.get("tls", {}).items()}
    return CoreSpec(spec["address"].rstrip("/"), TlsSpec(**files))


def _file(path: str, folder: Path) -> str:
    return os.path.normpath(folder / Path(path).expanduser())


def _user(spec: Value, folder: Path) -> UserSpec:
    if "user_id" in spec:
        return UserSpec(user_id=spec["user_id"])
    return UserSpec(
        jwt=spec.get("jwt", ""),
        jwt_file=_file(spec["jwt_file"], folder) if "jwt_file" in spec else "",
        workers=_workers(spec.get("workers", {})),
        flows={endpoint: _flow(flow) for endpoint, flow in spec.get("flows", {}).items()},
        mounts={name: _mount(mount) for name, mount in spec.get("mounts", {}).items()},
    )


def _workers(spec: Value) -> WorkersSpec:
    dispatch = spec.get("dispatch", 1)
    counts = dispatch if isinstance(dispatch, Mapping) else {DEFAULT_DISPATCH_POINT: dispatch}
    return WorkersSpec(
        dispatch={point: int(count) for point, count in counts.items()},
        get_instance=int(spec.get("get_instance", 1)),
    )


def _flow(spec: Value) -> FlowSpec:
    return FlowSpec(
        flow_class_name=spec["flow_class_name"],
        singleton=spec.get("singleton", False),
        parallel_dispatch=spec.get("parallel_dispatch", False),
        dispatch_point=spec.get("dispatch_point", DEFAULT_DISPATCH_POINT),
        config_overrides=spec.get("config_overrides", {}),
        subflows={key: _subflow(subflow) for key, subflow in spec.get("subflows", {}).items()},
        allow=_allow(spec.get("allow")),
        retries=RetriesSpec(**spec.get("retries", {})),
        mailbox_limit=int(spec.get("mailbox_limit", DEFAULT_MAILBOX_LIMIT)),
        input_schema=_schema(spec, "input_schema"),
        output_schema=_schema(spec, "output_schema"),
    )


def _schema(spec: Value, name: str) -> Value | None:
    return expanded(spec[name]) if name in spec else None


def _allow(spec: Any) -> AllowSpec:
    """Return who may do what: a list stands for both operations."""
    if isinstance(spec, Mapping):
        return AllowSpec(**{operation: tuple(users) for operation, users in spec.items()})
    both = None if spec is None else tuple(spec)
    return AllowSpec(both, both)


def _subflow(spec: Value) -> SubflowSpec:
    return SubflowSpec(
        user_id=spec.get("user_id"),
        flow_endpoint=spec.get("flow_endpoint"),
        config_overrides=spec.get("config_overrides", {}),
    )


def _mount(spec: Value) -> MountSpec:
    return MountSpec(
        flow_endpoint=spec["flow_endpoint"],
        user_id=spec.get("user_id", LOCAL),
        config_overrides=spec.get("config_overrides", {}),
        initial_state=spec.get("initial_state", {}),
    )
