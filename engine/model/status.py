"""What `engine status` tells, as frozen data; `to_json` gives the shape of DESIGN §8."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """How a resource is."""

    PENDING = "Pending"
    READY = "Ready"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    TERMINATING = "Terminating"


@dataclass(frozen=True)
class Condition:
    """One statement on a manifest: `status` "True" or "False", why, since when (Unix seconds)."""

    type: str
    status: str
    reason: str
    message: str
    since: float


@dataclass(frozen=True)
class WorkerStatus:
    """A worker. `kind`: `dispatch`, `get_instance` or `scheduler`; `pid` is 0 when none runs."""

    name: str
    kind: str
    dispatch_point: str
    pid: int
    state: State
    restarts: int
    message: str = ""


@dataclass(frozen=True)
class FlowStatus:
    """A flow endpoint that a user serves."""

    flow_class_name: str
    singleton: bool
    parallel_dispatch: bool
    dispatch_point: str
    state: State
    message: str = ""


@dataclass(frozen=True)
class MountStatus:
    """A declared instance; `flow_id` is empty until it exists."""

    flow_id: str
    user_id: str
    flow_endpoint: str
    state: State
    message: str = ""


@dataclass(frozen=True)
class UserStatus:
    """A user of a manifest and what runs and is served for it."""

    user_id: str
    workers: tuple[WorkerStatus, ...] = ()
    flows: Mapping[str, FlowStatus] = field(default_factory=dict)
    mounts: Mapping[str, MountStatus] = field(default_factory=dict)


@dataclass(frozen=True)
class ManifestStatus:
    """One manifest: which generation was read, which one was made so, and what is not right."""

    name: str
    file: str
    generation: int
    observed_generation: int
    converged: bool
    conditions: tuple[Condition, ...] = ()
    users: Mapping[str, UserStatus] = field(default_factory=dict)


@dataclass(frozen=True)
class CoreStatus:
    """The embedded core, or the real one a manifest points at (`kind`: `embedded` or `remote`)."""

    kind: str
    address: str
    ready: bool
    message: str = ""


@dataclass(frozen=True)
class EngineStatus:
    """Everything: the core and all manifests."""

    core: CoreStatus
    manifests: tuple[ManifestStatus, ...] = ()


def to_json(status: Any) -> Any:
    """Return a status object as JSON data: dataclasses become objects, tuples lists."""
    if dataclasses.is_dataclass(status) and not isinstance(status, type):
        return {f.name: to_json(getattr(status, f.name)) for f in dataclasses.fields(status)}
    if isinstance(status, Mapping):
        return {key: to_json(value) for key, value in status.items()}
    if isinstance(status, tuple | list):
        return [to_json(value) for value in status]
    if isinstance(status, StrEnum):
        return status.value
    return status
