"""From a checked value to the Manifest: defaults filled in, paths made absolute."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.flows.schemas import expanded
from engine.loading.document import Document
from engine.loading.faults import Place
from engine.loading.paths import Path as ValuePath
from engine.loading.paths import path_text
from engine.loading.source import absolute
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


def build(value: Value, document: Document, file: Path, name: str) -> Manifest:
    """Return the Manifest that the checked `value` declares."""
    folders = _Folders(document)
    users = {user: _user(spec, ("users", user), folders) for user, spec in value["users"].items()}
    return Manifest(
        name=name,
        file=str(absolute(file)),
        core=_core(value.get("core", "embedded"), folders),
        users=users,
        places=_places(users, document),
    )


class _Folders:
    """Relative paths begin at the folder of the file in which they are written."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def file(self, path: str, written: ValuePath) -> str:
        """Return as an absolute path the one that stands at `written`."""
        folder = absolute(Path(self._document.place(written)[0])).parent
        return os.path.normpath(folder / Path(path).expanduser())


def _places(users: Mapping[str, UserSpec], document: Document) -> dict[str, Place]:
    files: dict[str, str] = {}

    def place(path: ValuePath) -> Place:
        file, line, column = document.key_place(path)
        if file not in files:
            files[file] = str(absolute(Path(file)))
        return files[file], line, column

    paths: list[ValuePath] = [("name",)]
    for name, user in users.items():
        paths += [("users", name, "flows", endpoint) for endpoint in user.flows]
        paths += [("users", name, "mounts", mount) for mount in user.mounts]
    return {path_text(path): place(path) for path in paths}


def _core(spec: Any, folders: _Folders) -> CoreSpec:
    if isinstance(spec, str):
        return CoreSpec()
    files = {
        kind: folders.file(path, ("core", "tls", kind))
        for kind, path in spec.get("tls", {}).items()
    }
    return CoreSpec(spec["address"].rstrip("/"), TlsSpec(**files))


def _user(spec: Value, path: ValuePath, folders: _Folders) -> UserSpec:
    if "user_id" in spec:
        return UserSpec(user_id=spec["user_id"])
    return UserSpec(
        jwt=spec.get("jwt", ""),
        jwt_file=(
            folders.file(spec["jwt_file"], (*path, "jwt_file")) if "jwt_file" in spec else ""
        ),
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
