"""What the engine stores about the things it made, and nothing else computes it.

The planner compares exactly what the executor stores: both get it from `Resolver`, which turns the
names of users into ids. A name that maps to another id later is therefore a change; a name without
an id yet stays a name, and differs from every id.

Stored as JSON: `engine:flows:<endpoint>` in the server's storage (`engine.serving` reads
everything below `manifest` from it) and `engine:mounts:<name>` in the client's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from engine.kits.digest import digest
from engine.model.manifest import DEFAULT_MAILBOX_LIMIT, RetriesSpec

if TYPE_CHECKING:  # state.py holds records; here its types are only named
    from engine.reconcile.state import Desired, DesiredFlow, DesiredMount

JsonObject = Mapping[str, Any]

ANYBODY = "any"
"""Stands in `allow` for every user."""
RELEASED = ""
"""The owner of a record that `engine down` left behind: whoever wants the thing may claim it."""


@dataclass(frozen=True)
class Subflow:
    """Who serves a subflow. `user_id` is a name or hex id in Desired, a hex id in a record."""

    user_id: str
    flow_endpoint: str
    config_overrides: JsonObject = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "user_id": self.user_id,
            "flow_endpoint": self.flow_endpoint,
            "config_overrides": dict(self.config_overrides),
        }


@dataclass(frozen=True)
class Allow:
    """Who may get instances, and who may send: sorted references to users, or `("any",)`."""

    get_instance: tuple[str, ...] = ()
    send: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {"get_instance": list(self.get_instance), "send": list(self.send)}

    @classmethod
    def from_json(cls, value: Any) -> Allow:
        """Return it from JSON data; a list, as in older records, stands for both."""
        if isinstance(value, Mapping):
            return cls(tuple(value["get_instance"]), tuple(value["send"]))
        return cls(tuple(value), tuple(value))


@dataclass(frozen=True)
class FlowRecord:
    """What the engine wrote for an endpoint, and for which manifest."""

    manifest: str
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

    def values(self) -> dict[str, Any]:
        """Return all fields but the owner as JSON data, by name: what is compared."""
        return {
            "flow_class_name": self.flow_class_name,
            "singleton": self.singleton,
            "parallel_dispatch": self.parallel_dispatch,
            "dispatch_point": self.dispatch_point,
            "config_overrides": dict(self.config_overrides),
            "subflows": {key: subflow.to_json() for key, subflow in self.subflows.items()},
            "allow": self.allow.to_json(),
            "retries": asdict(self.retries),
            "mailbox_limit": self.mailbox_limit,
            "input_schema": self.input_schema,
            "output_schema": self.output_schema,
        }

    @property
    def digest(self) -> str:
        """Return the digest of all fields but the owner."""
        return digest(self.values())

    def to_json(self) -> dict[str, Any]:
        """Return what is stored at `engine:flows:<endpoint>`."""
        values = self.values()
        return {"manifest": self.manifest, "digest": digest(values), **values}

    @classmethod
    def from_json(cls, value: Any) -> FlowRecord | None:
        """Return the record in the decoded JSON `value`, or None when it holds none."""
        try:
            return cls(
                manifest=str(value["manifest"]),
                flow_class_name=str(value["flow_class_name"]),
                singleton=bool(value["singleton"]),
                parallel_dispatch=bool(value["parallel_dispatch"]),
                dispatch_point=str(value["dispatch_point"]),
                config_overrides=dict(value["config_overrides"]),
                subflows={
                    key: Subflow(**subflow) for key, subflow in dict(value["subflows"]).items()
                },
                allow=Allow.from_json(value["allow"]),
                retries=RetriesSpec(**value.get("retries", {})),
                mailbox_limit=int(value.get("mailbox_limit", DEFAULT_MAILBOX_LIMIT)),
                input_schema=value.get("input_schema"),
                output_schema=value.get("output_schema"),
            )
        except (KeyError, TypeError, ValueError):
            return None


@dataclass(frozen=True)
class MountRecord:
    """Which instance the engine made for a mount, of what, and for which manifest.

    `user_id` is the server's hex id. `tree` has the class of every flow of the manifest that the
    instance reaches through its subflows, its own first, by `<user id>/<endpoint>`: an instance
    does not survive that one of them becomes another class.
    """

    manifest: str
    flow_id: str
    user_id: str
    flow_endpoint: str
    config_overrides: JsonObject = field(default_factory=dict)
    tree: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """Return what is compared, as JSON data: all but the owner and the instance's id."""
        return {
            "user_id": self.user_id,
            "flow_endpoint": self.flow_endpoint,
            "config_overrides": dict(self.config_overrides),
            "tree": dict(self.tree),
        }

    @property
    def digest(self) -> str:
        """Return the digest of what is compared."""
        return digest(self.values())

    def to_json(self) -> dict[str, Any]:
        """Return what is stored at `engine:mounts:<name>`."""
        values = self.values()
        return {
            "manifest": self.manifest,
            "flow_id": self.flow_id,
            "digest": digest(values),
            **values,
        }

    @classmethod
    def from_json(cls, value: Any) -> MountRecord | None:
        """Return the record in the decoded JSON `value`, or None when it holds none."""
        try:
            return cls(
                manifest=str(value["manifest"]),
                flow_id=str(value["flow_id"]),
                user_id=str(value["user_id"]),
                flow_endpoint=str(value["flow_endpoint"]),
                config_overrides=dict(value["config_overrides"]),
                tree={str(key): str(name) for key, name in dict(value["tree"]).items()},
            )
        except (KeyError, TypeError, ValueError):
            return None


class Resolver:
    """Turns what one manifest wants into records, given the ids of the users known by now.

    The planner makes one from what it observed, the executor one whenever an identity was made.
    """

    def __init__(self, desired: Desired, user_ids: Mapping[str, str]) -> None:
        own = {user.name for user in desired.users if not user.foreign}
        self._manifest = desired.manifest
        self._user_ids = {name: user_id for name, user_id in user_ids.items() if name in own}
        self._flows = {self.address(flow.user, flow.endpoint): flow for flow in desired.flows}

    def user_id(self, user: str) -> str:
        """Return the hex id of `user`, a name or hex id; the name itself while it has no id."""
        return self._user_ids.get(user, user)

    def address(self, user: str, endpoint: str) -> str:
        """Return how the flow that `user` (name or hex id) serves is called in a record's tree."""
        return f"{self.user_id(user)}/{endpoint}"

    def flow_record(self, flow: DesiredFlow) -> FlowRecord:
        """Return what is stored once `flow` is served as wanted."""
        return FlowRecord(
            manifest=self._manifest,
            flow_class_name=flow.flow_class_name,
            singleton=flow.singleton,
            parallel_dispatch=flow.parallel_dispatch,
            dispatch_point=flow.dispatch_point,
            config_overrides=flow.config_overrides,
            subflows={
                key: Subflow(
                    self.user_id(subflow.user_id), subflow.flow_endpoint, subflow.config_overrides
                )
                for key, subflow in flow.subflows.items()
            },
            allow=Allow(self._ids(flow.allow.get_instance), self._ids(flow.allow.send)),
            retries=flow.retries,
            mailbox_limit=flow.mailbox_limit,
            input_schema=flow.input_schema,
            output_schema=flow.output_schema,
        )

    def _ids(self, users: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(self.user_id(user) for user in users))

    def mount_record(self, mount: DesiredMount, flow_id: str) -> MountRecord:
        """Return what is stored once `mount` is made as wanted, as the instance `flow_id`."""
        return MountRecord(
            manifest=self._manifest,
            flow_id=flow_id,
            user_id=self.user_id(mount.server),
            flow_endpoint=mount.flow_endpoint,
            config_overrides=mount.config_overrides,
            tree={
                self.address(flow.user, flow.endpoint): flow.flow_class_name
                for flow in self.reached(mount)
            },
        )

    def reached(self, mount: DesiredMount) -> tuple[DesiredFlow, ...]:
        """Return the flows of the manifest that `mount` reaches: its own, then its subflows'.

        Flows of somebody else are left out, and so is what lies behind them: nobody can see it.
        """
        found: dict[str, DesiredFlow] = {}
        waiting = [self.address(mount.server, mount.flow_endpoint)]
        while waiting:
            address = waiting.pop()
            flow = self._flows.get(address)
            if flow is None or address in found:
                continue
            found[address] = flow
            waiting.extend(
                self.address(subflow.user_id, subflow.flow_endpoint)
                for _, subflow in sorted(flow.subflows.items(), reverse=True)
            )
        return tuple(found.values())
