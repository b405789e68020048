"""What a manifest wants and what is found, as frozen data.

Users are called by *name* here when they are users of the manifest, and by their 66-digit hex id
when they are somebody else's: a name has no id before its first apply, and a plan must read the
same before and after. `records.py` turns names into ids, in one place, for planner and executor.

`Observed` is lossless: it tells what was found, in any order, and chooses nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from engine.model.manifest import DEFAULT_MAILBOX_LIMIT, RetriesSpec
from engine.model.status import State
from engine.reconcile.records import Allow, FlowRecord, MountRecord, Subflow

JsonObject = Mapping[str, Any]
WorkerKind = Literal["dispatch", "get_instance"]


def worker_group_name(kind: WorkerKind, dispatch_point: str) -> str:
    """Return what a user's group of workers is called in steps and status.

    `get_instance`, or `dispatch:` and the dispatch point, so that a dispatch point may have any
    name without being taken for another group.
    """
    return kind if kind == "get_instance" else f"dispatch:{dispatch_point}"


@dataclass(frozen=True)
class DesiredUser:
    """A user that the manifest names. `user_id` is set, as hex, only for somebody else's user."""

    name: str
    user_id: str | None = None

    @property
    def foreign(self) -> bool:
        """Tell whether the user is somebody else's: referred to, never touched."""
        return self.user_id is not None


@dataclass(frozen=True)
class DesiredWorkers:
    """The workers of one user at one dispatch point, or its get_instance workers.

    `count` is a number of processes for `dispatch`, of requests served at once for `get_instance`,
    whose `dispatch_point` is empty. `digest` changes when the code of a plugin that they need does.
    """

    user: str
    kind: WorkerKind
    dispatch_point: str
    count: int
    digest: str

    @property
    def name(self) -> str:
        """Return the name of the group, unique for its user."""
        return worker_group_name(self.kind, self.dispatch_point)


@dataclass(frozen=True)
class DesiredFlow:
    """A flow that `user` serves at `endpoint`, with every default filled in.

    `subflows` has an entry for each subflow that somebody serves, the class's own defaults
    included. `allow` has user names and hex ids, or is `("any",)`, for each operation.
    """

    user: str
    endpoint: str
    flow_class_name: str
    singleton: bool
    parallel_dispatch: bool
    dispatch_point: str
    config_overrides: JsonObject = field(default_factory=dict)
    subflows: Mapping[str, Subflow] = field(default_factory=dict)
    allow: Allow = field(default_factory=Allow)
    retries: RetriesSpec = field(default_factory=RetriesSpec)
    mailbox_limit: int = DEFAULT_MAILBOX_LIMIT
    input_schema: JsonObject | None = None
    output_schema: JsonObject | None = None


@dataclass(frozen=True)
class DesiredMount:
    """An instance that shall exist for `user`, of `flow_endpoint` served by `server`.

    `server` is a user's name or a hex id. `initial_state` is used when the instance is made, and
    never compared afterwards: an instance's state is its own.
    """

    user: str
    name: str
    server: str
    flow_endpoint: str
    config_overrides: JsonObject = field(default_factory=dict)
    initial_state: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class Desired:
    """What one manifest wants. `manifest` is its name, `file` where it was read (for status)."""

    manifest: str
    users: tuple[DesiredUser, ...] = ()
    workers: tuple[DesiredWorkers, ...] = ()
    flows: tuple[DesiredFlow, ...] = ()
    mounts: tuple[DesiredMount, ...] = ()
    file: str = ""


@dataclass(frozen=True)
class ObservedUser:
    """A user with an identity. `ready`: the core knows it, and calls can be made in its name.

    `manifests` names the live manifests that name this user, the planned one among them or not:
    purging one manifest must leave a user that another one still needs.
    """

    user_id: str
    ready: bool
    manifests: tuple[str, ...] = ()


@dataclass(frozen=True)
class ObservedWorker:
    """A worker that runs, or that a supervisor keeps trying to run, for `manifest`.

    `digest` is the one it was *started* with. `count` is how many requests a get_instance worker
    serves at once, always 1 for a dispatch worker. A worker that is draining has the state
    Terminating. `pid` and `restarts` are only passed on to status.
    """

    manifest: str
    user: str
    name: str
    kind: WorkerKind
    dispatch_point: str
    digest: str
    state: State
    message: str = ""
    count: int = 1
    pid: int = 0
    restarts: int = 0

    @property
    def group(self) -> str:
        """Return the name of the group that this worker belongs to."""
        return worker_group_name(self.kind, self.dispatch_point)


@dataclass(frozen=True)
class ObservedFlow:
    """What stands in a user's storage about one endpoint; `user` is a name.

    `served` is the `init` entry. The four fields after it are None when their entry is absent, so
    that an endpoint whose entries are gone but whose `record` stayed can be told. `record` is the
    engine's own entry beside them, None when there is none or it cannot be read. `instances` counts
    the live instances of the endpoint.
    """

    user: str
    endpoint: str
    served: bool
    flow_class_name: str | None = None
    singleton: bool | None = None
    parallel_dispatch: bool | None = None
    dispatch_point: str | None = None
    record: FlowRecord | None = None
    instances: int = 0


@dataclass(frozen=True)
class ObservedMount:
    """A declared instance that was made. `user` and `name` as in DesiredMount.

    `live` is False when the instance, or a sub-instance of it that can be looked at, is gone; None
    when it cannot be looked at, because its server is somebody else.
    """

    user: str
    name: str
    record: MountRecord
    live: bool | None = None


@dataclass(frozen=True)
class Observed:
    """All that was found: of every manifest, and what was served by hand, too.

    `users` has the identities on this machine by name; users that are foreign need not be in it.
    With `core_ready` False the core does not answer, and the rest is what could be seen without it.
    `unseen` names the users whose storage could not be read, though something may stand in it.
    """

    core_ready: bool
    users: Mapping[str, ObservedUser] = field(default_factory=dict)
    workers: tuple[ObservedWorker, ...] = ()
    flows: tuple[ObservedFlow, ...] = ()
    mounts: tuple[ObservedMount, ...] = ()
    unseen: frozenset[str] = frozenset()

    @property
    def user_ids(self) -> Mapping[str, str]:
        """Return the id of every user that has one, by name."""
        return {name: user.user_id for name, user in self.users.items()}
