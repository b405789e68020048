"""Serving flows at endpoints: the entries that others look for (protocol sheet §9.1, §9.12)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.payloads import integer_bytes, json_bytes, json_value
from engine.flows.flow import INPUT_SCHEMA, OUTPUT_SCHEMA
from engine.model.errors import UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT, LOCAL, is_flow_endpoint
from engine.model.manifest import DEFAULT_MAILBOX_LIMIT, RetriesSpec

ANYBODY = "any"
_OPERATIONS = ("get_instance", "send")
SCHEMAS = (INPUT_SCHEMA, OUTPUT_SCHEMA)
_MOUNT_DEPTH = 6
"""Parts of the key of a mount's entry: flows, endpoint, mounts, client, flow id, field."""


@dataclass(frozen=True)
class EndpointRecord:
    """What the engine adds to an endpoint's entries; an endpoint served by hand has none of it.

    `subflows` says who serves a subflow: key to `user_id`, `flow_endpoint`, `config_overrides`.
    `get_instance` and `send` hold the ids of who may do so, or `any`; None stands for everybody.
    `schemas` has the endpoint's own `input_schema` and `output_schema`, where it has them.
    """

    config_overrides: Mapping[str, Any] = field(default_factory=dict)
    subflows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    get_instance: tuple[str, ...] | None = None
    send: tuple[str, ...] | None = None
    retries: RetriesSpec = field(default_factory=RetriesSpec)
    mailbox_limit: int = DEFAULT_MAILBOX_LIMIT
    schemas: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, payload: bytes | None) -> "EndpointRecord":
        """Return the record in an entry's payload; an empty one when there is none."""
        value = decoded(payload)
        if not isinstance(value, dict):
            return cls()
        allow = value.get("allow")
        operations = allow if isinstance(allow, dict) else dict.fromkeys(_OPERATIONS, allow)
        return cls(
            config_overrides=value.get("config_overrides") or {},
            subflows=value.get("subflows") or {},
            retries=RetriesSpec(**(value.get("retries") or {})),
            mailbox_limit=int(value.get("mailbox_limit") or DEFAULT_MAILBOX_LIMIT),
            **{
                operation: None if users is None else tuple(users)
                for operation in _OPERATIONS
                for users in (operations.get(operation),)
            },
            schemas={name: value[name] for name in SCHEMAS if value.get(name) is not None},
        )

    def may_get_instance(self, user_id: str) -> bool:
        """Tell whether somebody else, `user_id`, may get instances."""
        return _names(self.get_instance, user_id)

    def may_send(self, user_id: str) -> bool:
        """Tell whether somebody else, `user_id`, may send messages."""
        return _names(self.send, user_id)


def _names(users: tuple[str, ...] | None, user_id: str) -> bool:
    return users is None or ANYBODY in users or user_id in users


def decoded(payload: bytes | None) -> Any:
    """Return the JSON value of an entry; None when there is none or it is no JSON."""
    try:
        return None if payload is None else json_value(payload)
    except ValueError:
        return None


def entries(
    flow_endpoint: str,
    *,
    flow_class_name: str,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
) -> dict[str, bytes]:
    """Return the entries that serve a flow, in the order in which they are to be written.

    `init` comes last, so that whoever finds it set finds the rest, too. Raises UsageError for an
    endpoint that cannot be one.
    """
    if not is_flow_endpoint(flow_endpoint):
        raise UsageError(
            f"{flow_endpoint!r} cannot be a flow endpoint.",
            "Use a name without `:`, `@`, `/` and blanks.",
        )
    return {
        keys.flow(flow_endpoint, "flow_class_name"): json_bytes(flow_class_name),
        keys.flow(flow_endpoint, "default_dispatch_point"): dispatch_point.encode(),
        keys.flow(flow_endpoint, "singleton"): json_bytes(singleton),
        keys.flow(flow_endpoint, "parallel_dispatch"): integer_bytes(parallel_dispatch),
        keys.flow(flow_endpoint, "init"): json_bytes(1),
    }


async def serve(
    client: Client,
    flow_endpoint: str,
    flow_class_name: str,
    *,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
) -> bool:
    """Serve a flow class at an endpoint; False, and nothing changed, when one is served there."""
    wanted = entries(
        flow_endpoint,
        flow_class_name=flow_class_name,
        dispatch_point=dispatch_point,
        parallel_dispatch=parallel_dispatch,
        singleton=singleton,
    )
    if await is_served(client, flow_endpoint):
        return False
    await client.update_many(wanted)
    return True


async def is_served(client: Client, flow_endpoint: str) -> bool:
    """Tell whether a flow is served at the endpoint."""
    return bool(decoded(await client.read(keys.flow(flow_endpoint, "init"))) == 1)


async def unserve(client: Client, flow_endpoint: str) -> bool:
    """Refuse new instances from now on; those that live go on. False when it was not served."""
    if not await is_served(client, flow_endpoint):
        return False
    await client.update(keys.flow(flow_endpoint, "init"), json_bytes(0))
    return True


async def delete(client: Client, flow_endpoint: str) -> None:
    """Delete an endpoint with all its instances: in one step where the core can.

    The engine's record of it stays: it belongs to who wrote it.
    """
    found = await client.read_tree(f"{keys.FLOWS}:{flow_endpoint}")
    doomed = list(found)
    for flow_id in {part[4] for part in map(_mount_parts, found) if part}:
        doomed += [keys.instance_metadata(flow_id), keys.engine_instance(flow_id)]
    await client.delete_many([*doomed, keys.engine_singleton(flow_endpoint)])


async def delete_all(client: Client) -> None:
    """Delete every endpoint of the user."""
    served = await client.read_tree(keys.FLOWS)
    for flow_endpoint in sorted({key.split(":")[1] for key in served}):
        await delete(client, flow_endpoint)


def client_id(client_user_id: str, server_user_id: str) -> str:
    """Return how a mounting user is called in the server's keys: `local` is the server itself."""
    return LOCAL if client_user_id in {LOCAL, server_user_id} else client_user_id


def mounts_in(tree: Mapping[str, bytes]) -> dict[str, str]:
    """Return whose the live instances in `tree` (entries of an endpoint) are: flow id to client."""
    return {
        part[4]: part[3]
        for key, payload in sorted(tree.items())
        if (part := _mount_parts(key)) and part[5] == "init" and decoded(payload) == 1
    }


def _mount_parts(key: str) -> list[str]:
    parts = key.split(":")
    return parts if len(parts) == _MOUNT_DEPTH and parts[2] == "mounts" else []
