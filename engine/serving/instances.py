"""Getting instances of served flows, from oneself and from others (protocol sheet §9.3, §9.4).

Getting an instance of a composite flow gets instances of its subflows first: those of the own user
here, recursively; those of all other users in one `coflows_get_instances` task, in which each of
them does the same for his part.
"""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import encode_get_instances
from engine.colink.payloads import json_bytes
from engine.flows.config import Config
from engine.flows.state import encode_state
from engine.model.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    EngineError,
    FlowInstanceException,
    NotFoundError,
)
from engine.model.ids import LOCAL, is_user_id, new_id
from engine.serving import configuration
from engine.serving.configuration import FlowClasses, failure
from engine.serving.endpoints import EndpointRecord, client_id, decoded

PROTOCOL = "coflows_get_instances"
CALLS_VARIABLE = "user_get_instance_calls"
RESULTS_VARIABLE = "get_instances_results"
FETCHED = "Fetched local flow instance."
TIMEOUT = 60.0

Call = tuple[str, str, Config]
"""What is asked of a user: under which key, which endpoint, with which overrides."""


@dataclass(frozen=True)
class Instance:
    """An instance of a flow: where it is. `user_id` is `local` for the asking user himself."""

    flow_id: str
    user_id: str
    flow_endpoint: str


@dataclass(frozen=True)
class Requester:
    """In whose name, with which classes and until when instances are got.

    `waiting` surrounds the time in which nothing is done here but waiting for other users.
    """

    client: Client
    catalog: FlowClasses
    deadline: float
    parent_task: str = ""
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext

    def seconds_left(self) -> float:
        """Return how long may still be waited."""
        return max(0.0, self.deadline - time.monotonic())


async def get_instance(
    client: Client,
    catalog: FlowClasses,
    flow_endpoint: str,
    user_id: str = LOCAL,
    config_overrides: Mapping[str, Any] | None = None,
    initial_state: Mapping[str, Any] | None = None,
    dispatch_point_override: str | None = None,
    timeout: float = TIMEOUT,
) -> Instance:
    """Return an instance of what `user_id` (hex id or `local`) serves at `flow_endpoint`.

    `initial_state` and `dispatch_point_override` count for own flows only: the protocol does not
    transmit them. Raises FlowInstanceException, saying whose endpoint failed and why, all the way
    down to the subflow that is the cause.
    """
    requester = Requester(client, catalog, time.monotonic() + timeout)
    overrides = dict(config_overrides or {})
    if user_id in {LOCAL, client.user_id}:
        flow_id = await get_local(
            requester, LOCAL, flow_endpoint, overrides, initial_state, dispatch_point_override
        )
        return Instance(flow_id, LOCAL, flow_endpoint)
    if not is_user_id(user_id):
        raise failure(flow_endpoint, user_id, "That is no user id.")
    results = await _get_remote(requester, {user_id: [("my_flow", flow_endpoint, overrides)]})
    flow_id = _flow_id(results.get("my_flow"), flow_endpoint, user_id)
    return Instance(flow_id, user_id, flow_endpoint)


async def get_local(
    requester: Requester,
    client_user_id: str,
    flow_endpoint: str,
    overrides: Mapping[str, Any],
    initial_state: Mapping[str, Any] | None = None,
    dispatch_point_override: str | None = None,
) -> str:
    """Return the id of an instance of an own flow, for the user `client_user_id` (§9.3).

    Raises FlowInstanceException.
    """
    client = requester.client
    served = _Served(flow_endpoint, await client.read_many(_served_keys(flow_endpoint)))
    remote = client_user_id not in {LOCAL, client.user_id}
    if not served.is_served:
        raise failure(flow_endpoint, client.user_id, f"Not serving at {flow_endpoint}.")
    if remote and not served.record.allows(client_user_id):
        raise failure(flow_endpoint, client.user_id, f"User {client_user_id} is not allowed to.")
    if served.singleton:
        found = await _find_singleton(client, served)
        if found is not None:
            return found
    try:
        config = configuration.complete_config(
            _defaults(requester, served), served.record, overrides, own=not remote
        )
        config = await _fetch_subflows(requester, client_user_id, config)
        state = encode_state(dict(initial_state)) if initial_state else None
    except FlowInstanceException as error:
        raise failure(flow_endpoint, client.user_id, error.reason) from error
    except EngineError as error:
        raise failure(flow_endpoint, client.user_id, error) from error
    flow_id = await _claim_singleton(client, flow_endpoint) if served.singleton else new_id()
    owner = client_id(client_user_id, client.user_id)
    await mount(
        client, owner, flow_endpoint, flow_id, config, state, dispatch_point_override, overrides
    )
    return flow_id


async def mount(
    client: Client,
    owner: str,
    flow_endpoint: str,
    flow_id: str,
    config: Mapping[str, Any],
    state: Any = None,
    dispatch_point_override: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Write the entries of an instance (§9.1). Doing it again for the same id changes nothing.

    `config` is the complete configuration, `state` what `encode_state` gave, `overrides` what the
    caller asked for, kept so that the configuration can be computed anew.
    """

    def entry(field: str) -> str:
        return keys.mount_field(flow_endpoint, owner, flow_id, field)

    entries = {
        entry("config_overrides"): json_bytes({**config, "flow_id": flow_id}),
        entry("state"): json_bytes({"engine": 1, "state": state, "done": [], "outbox": []}),
        keys.engine_instance(flow_id): json_bytes({"overrides": dict(overrides or {})}),
    }
    if dispatch_point_override is not None:
        entries[entry("dispatch_point_override")] = dispatch_point_override.encode()
    entries[keys.instance_metadata(flow_id)] = json_bytes(
        {"flow_endpoint": flow_endpoint, "user_id": owner}
    )
    entries[entry("init")] = json_bytes(1)
    if await client.read(keys.instance_metadata(flow_id)) is None:
        await client.update_many(entries)


async def reconfigure(
    client: Client, catalog: FlowClasses, flow_endpoint: str, timeout: float = TIMEOUT
) -> None:
    """Compute the configuration of all instances of an endpoint anew; ids and states stay.

    Subflows that are the same as before keep their instances. A flow sees its new configuration at
    its next message. Raises FlowInstanceException.
    """
    for flow_id, metadata in (await _instances(client)).items():
        if metadata.get("flow_endpoint") == flow_endpoint:
            await _reconfigure_one(client, catalog, flow_id, metadata, timeout)


async def set_overrides(
    client: Client,
    catalog: FlowClasses,
    flow_id: str,
    overrides: Mapping[str, Any],
    timeout: float = TIMEOUT,
) -> None:
    """Replace what was asked for when an own instance was made; id and state stay.

    Raises NotFoundError when there is no such instance, FlowInstanceException otherwise.
    """
    metadata = decoded(await client.read(keys.instance_metadata(flow_id)))
    if not isinstance(metadata, dict):
        raise NotFoundError(f"There is no instance {flow_id}.")
    await client.update(keys.engine_instance(flow_id), json_bytes({"overrides": dict(overrides)}))
    await _reconfigure_one(client, catalog, flow_id, metadata, timeout)


async def delete_instance(
    client: Client, flow_id: str, *, recursive: bool = False, keep_singleton: bool = False
) -> bool:
    """Delete an own instance; False when there is none.

    With `recursive`, instances of own subflows that are no singletons go too. A singleton is left
    alone if `keep_singleton`: others may hold it.
    """
    metadata = decoded(await client.read(keys.instance_metadata(flow_id)))
    if not isinstance(metadata, dict):
        return False
    endpoint = str(metadata.get("flow_endpoint"))
    singleton = decoded(await client.read(keys.flow(endpoint, "singleton"))) is True
    if singleton and keep_singleton:
        return False
    owner = client_id(str(metadata.get("user_id")), client.user_id)
    config_key = keys.mount_field(endpoint, owner, flow_id, "config_overrides")
    config = decoded(await client.read(config_key)) if recursive else None
    claim = keys.engine_singleton(endpoint)
    claimed = singleton and await client.read(claim) == flow_id.encode()
    await client.delete_many(
        [
            keys.instance_metadata(flow_id),
            keys.engine_instance(flow_id),
            *([claim] if claimed else []),
        ]
    )
    await client.delete_tree(keys.mount(endpoint, owner, flow_id))
    if isinstance(config, dict):
        for subflow in configuration.subflows_of(config).values():
            address = configuration.address_of(subflow, client.user_id)
            if address is not None and address[0] == LOCAL:
                await delete_instance(
                    client, str(subflow.get("flow_id")), recursive=True, keep_singleton=True
                )
    return True


async def answer_calls(requester: Requester, client_user_id: str, calls: Any) -> dict[str, Any]:
    """Return the results for what another user asked of us in a task (§9.4, receiver).

    Whatever is wrong with one call is told in its result and does not touch the others.
    """
    results: dict[str, Any] = {}
    for call in calls if isinstance(calls, list) else []:
        if not isinstance(call, list) or len(call) != 3 or not isinstance(call[0], str):
            continue
        key, endpoint, overrides = call
        try:
            flow_id = await get_local(requester, client_user_id, str(endpoint), overrides or {})
            results[key] = {"flow_id": flow_id, "successful": True, "message": FETCHED}
        except EngineError as error:
            results[key] = {"flow_id": "", "successful": False, "message": str(error)}
    return results


# --- one endpoint ---------------------------------------------------------------------------


class _Served:
    """What stands about an endpoint."""

    def __init__(self, flow_endpoint: str, entries: Mapping[str, bytes]) -> None:
        self.flow_endpoint = flow_endpoint
        self.is_served = decoded(entries.get(keys.flow(flow_endpoint, "init"))) == 1
        self.flow_class_name = decoded(entries.get(keys.flow(flow_endpoint, "flow_class_name")))
        self.singleton = decoded(entries.get(keys.flow(flow_endpoint, "singleton"))) is True
        self.record = EndpointRecord.decode(entries.get(keys.engine_flow(flow_endpoint)))
        claimed = entries.get(keys.engine_singleton(flow_endpoint))
        self.claimed = claimed.decode(errors="replace") if claimed else None


def _served_keys(flow_endpoint: str) -> list[str]:
    return [
        keys.flow(flow_endpoint, "init"),
        keys.flow(flow_endpoint, "flow_class_name"),
        keys.flow(flow_endpoint, "singleton"),
        keys.engine_flow(flow_endpoint),
        keys.engine_singleton(flow_endpoint),
    ]


def _defaults(requester: Requester, served: _Served) -> Config:
    if not isinstance(served.flow_class_name, str):
        raise NotFoundError(f"The endpoint {served.flow_endpoint} names no flow class.")
    defaults: Config = requester.catalog.flow_class(served.flow_class_name).get_config()
    return defaults


async def _instances(client: Client) -> dict[str, dict[str, Any]]:
    """Return the metadata of all own instances by flow id, in the order of the ids."""
    tree = await client.read_tree(keys.INSTANCE_METADATA)
    found = {key.partition(":")[2]: decoded(payload) for key, payload in sorted(tree.items())}
    return {flow_id: value for flow_id, value in found.items() if isinstance(value, dict)}


async def _find_singleton(client: Client, served: _Served) -> str | None:
    """Return the one instance of a singleton flow, whoever made it, or None."""
    if served.claimed is not None:
        if await client.read(keys.instance_metadata(served.claimed)) is not None:
            return served.claimed
        return None
    for flow_id, metadata in (await _instances(client)).items():
        if metadata.get("flow_endpoint") == served.flow_endpoint:
            return flow_id
    return None


async def _claim_singleton(client: Client, flow_endpoint: str) -> str:
    """Return the id that the one instance shall have: the first to write it decides."""
    key, flow_id = keys.engine_singleton(flow_endpoint), new_id()
    try:
        await client.create(key, flow_id.encode())
    except AlreadyExistsError:
        claimed = await client.read(key)
        return claimed.decode() if claimed else await _claim_singleton(client, flow_endpoint)
    return flow_id


async def _reconfigure_one(
    client: Client,
    catalog: FlowClasses,
    flow_id: str,
    metadata: Mapping[str, Any],
    timeout: float,
) -> None:
    endpoint = str(metadata.get("flow_endpoint"))
    owner = client_id(str(metadata.get("user_id")), client.user_id)
    config_key = keys.mount_field(endpoint, owner, flow_id, "config_overrides")
    found = await client.read_many(
        [*_served_keys(endpoint), config_key, keys.engine_instance(flow_id)]
    )
    served = _Served(endpoint, found)
    old = decoded(found.get(config_key)) or {}
    asked = decoded(found.get(keys.engine_instance(flow_id))) or {}
    requester = Requester(client, catalog, time.monotonic() + timeout)
    try:
        config = configuration.complete_config(
            _defaults(requester, served),
            served.record,
            asked.get("overrides") or {},
            own=owner == LOCAL,
        )
        config = await _fetch_subflows(requester, owner, config, configuration.subflows_of(old))
    except FlowInstanceException as error:
        raise failure(endpoint, client.user_id, error.reason) from error
    except EngineError as error:
        raise failure(endpoint, client.user_id, error) from error
    config["flow_id"] = flow_id
    if config != old:
        await client.update(config_key, json_bytes(config))


# --- subflows -------------------------------------------------------------------------------


async def _fetch_subflows(
    requester: Requester,
    client_user_id: str,
    config: Config,
    known: Mapping[str, Mapping[str, Any]] | None = None,
) -> Config:
    """Return `config` with instances for all its subflows; those in `known` that fit are kept."""
    own = requester.client.user_id
    flow_ids: dict[str, str] = {}
    remote: dict[str, list[Call]] = {}
    for key, subflow in configuration.subflows_of(config).items():
        old = (known or {}).get(key)
        if old is not None and configuration.same_subflow(old, subflow, own):
            flow_ids[key] = str(old["flow_id"])
            continue
        address = configuration.address_of(subflow, own)
        if address is None:
            raise _subflow_failure(key, "It lacks user_id or flow_endpoint.")
        user_id, endpoint = address
        overrides = configuration.passed_on(subflow)
        if user_id != LOCAL:
            remote.setdefault(user_id, []).append((key, endpoint, overrides))
            continue
        try:
            flow_ids[key] = await get_local(requester, client_user_id, endpoint, overrides)
        except FlowInstanceException as error:
            raise _subflow_failure(key, error) from error
    if remote:
        results = await _get_remote(requester, remote)
        for user_id, calls in remote.items():
            for key, endpoint, _ in calls:
                try:
                    flow_ids[key] = _flow_id(results.get(key), endpoint, user_id)
                except FlowInstanceException as error:
                    raise _subflow_failure(key, error) from error
    return configuration.with_instances(config, flow_ids)


def _subflow_failure(key: str, reason: object) -> NotFoundError:
    return NotFoundError(f"No instance of subflow {key}: {reason}")


async def _get_remote(
    requester: Requester, calls: Mapping[str, Sequence[Call]]
) -> Mapping[str, Any]:
    """Ask other users for instances, all in one task, and return their results by key (§9.4)."""
    client, request_id = requester.client, new_id()
    asked = {user_id: list(asked) for user_id, asked in calls.items()}
    participants = [(client.user_id, "initiator"), *((user, "receiver") for user in asked)]
    names = ", ".join(asked)
    timeout = requester.seconds_left()

    async def ask() -> bytes:
        async with client.expect(keys.get_instances_results(request_id)) as results:
            await client.create(keys.get_instance_calls(request_id), json_bytes(asked))
            await client.run_task(
                PROTOCOL,
                encode_get_instances(request_id),
                participants,
                True,
                parent_task=requester.parent_task,
            )
            async with requester.waiting():
                return await results.value(timeout)

    try:
        results = decoded(await _told(ask(), names, timeout))
    finally:
        await client.delete_many(
            [keys.get_instance_calls(request_id), keys.get_instances_results(request_id)]
        )
    return results if isinstance(results, dict) else {}


async def _told(asking: Awaitable[bytes], names: str, timeout: float) -> bytes:
    """Await an answer of other users; say who did not give one."""
    try:
        return await asking
    except DeadlineExceededError as error:
        raise DeadlineExceededError(
            f"{names} did not answer within {timeout:.0f} s.",
            "Is a get_instance worker of theirs, and of ours, running?",
        ) from error


def _flow_id(result: Any, flow_endpoint: str, user_id: str) -> str:
    if not isinstance(result, dict):
        raise failure(flow_endpoint, user_id, "There was no answer for it.")
    if result.get("successful") is not True or not isinstance(result.get("flow_id"), str):
        raise failure(flow_endpoint, user_id, result.get("message"))
    return str(result["flow_id"])
