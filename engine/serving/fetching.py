"""Getting an instance of an own flow, with everything below it (protocol sheet §9.3)."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.colink import keys
from engine.flows.config import Config, merge
from engine.flows.state import encode_state
from engine.model.errors import (
    AccessDeniedError,
    EngineError,
    FlowInstanceException,
    NotFoundError,
    UsageError,
)
from engine.model.ids import LOCAL, derived_id, new_id
from engine.serving import configuration
from engine.serving.configuration import SubflowRequest, Wish
from engine.serving.endpoints import EndpointRecord, client_id, decoded
from engine.serving.exchange import Call, Requester, failure, get_remote
from engine.serving.mounting import Place, claim_singleton, find, find_singleton, mount


@dataclass(frozen=True)
class LocalRequest:
    """A request for an instance of an own flow.

    `client_user_id` is who will have it: a hex id or `local`. With `must_be_allowed` the endpoint's
    `allow` has to name him; it is False where the server's own flow needs the instance. `flow_id`
    is the id to give, so that a request that is repeated gets the same instance; None: a fresh one.
    `above` are the endpoints of the flows that this one is a subflow of.
    """

    client_user_id: str
    flow_endpoint: str
    wish: Wish = field(default_factory=Wish)
    must_be_allowed: bool = True
    flow_id: str | None = None
    initial_state: Mapping[str, Any] | None = None
    dispatch_point_override: str | None = None
    above: tuple[str, ...] = ()


@dataclass(frozen=True)
class Served:
    """What is stored about an endpoint."""

    is_served: bool
    flow_class_name: Any
    singleton: bool
    record: EndpointRecord
    claim: bytes | None

    @classmethod
    async def read(cls, requester: Requester, flow_endpoint: str) -> "Served":
        """Read it: what may be missing apart from the rest, so that nothing is read twice."""
        client = requester.client
        init, name, singleton = (
            keys.flow(flow_endpoint, entry) for entry in ("init", "flow_class_name", "singleton")
        )
        entries, record, claim = await asyncio.gather(
            client.read_many([init, name, singleton]),
            client.read(keys.engine_flow(flow_endpoint)),
            client.read(keys.engine_singleton(flow_endpoint)),
        )
        return cls(
            is_served=decoded(entries.get(init)) == 1,
            flow_class_name=decoded(entries.get(name)),
            singleton=decoded(entries.get(singleton)) is True,
            record=EndpointRecord.decode(record),
            claim=claim,
        )

    def own_config(self, requester: Requester, wish: Wish) -> Config:
        """Return what the server makes of the flow class; PluginError when there is none."""
        if not isinstance(self.flow_class_name, str):
            raise NotFoundError("The endpoint names no flow class.")
        defaults = requester.catalog.flow_class(self.flow_class_name).get_config()
        return configuration.own_config(defaults, self.record, wish.own)


async def get_local(requester: Requester, request: LocalRequest) -> str:
    """Return the id of an instance of an own flow; raises FlowInstanceException."""
    try:
        return await _get_local(requester, request)
    except EngineError as error:
        raise failure(request.flow_endpoint, requester.client.user_id, error) from error


async def _get_local(requester: Requester, request: LocalRequest) -> str:
    client, endpoint = requester.client, request.flow_endpoint
    served, mounted = await asyncio.gather(
        Served.read(requester, endpoint), _mounted(requester, request.flow_id)
    )
    _check(served, request, client.user_id)
    place: Place | None = None
    if served.singleton:
        place, there = await find_singleton(client, endpoint, served.claim)
        mounted = place if there else None
    if mounted is not None:
        return mounted.flow_id
    config = await complete_config(requester, request, served)
    state = None if request.initial_state is None else encode_state(dict(request.initial_state))
    owner = client_id(request.client_user_id, client.user_id)
    if not served.singleton:
        place = Place(endpoint, owner, request.flow_id or new_id())
    elif place is None:
        place = await claim_singleton(client, endpoint, owner)
    assert place is not None
    await mount(
        client,
        place,
        config,
        wish=request.wish,
        state=state,
        dispatch_point_override=request.dispatch_point_override,
        fresh=not served.singleton and request.flow_id is None,
    )
    return place.flow_id


async def complete_config(
    requester: Requester,
    request: LocalRequest,
    served: Served,
    kept: Mapping[str, str] | None = None,
) -> Config:
    """Return an instance's configuration, with instances of its subflows.

    `kept` has the ids of those that need not be got anew, by subflow key.
    """
    own = served.own_config(requester, request.wish)
    asked = configuration.checked(request.wish.asked, own)
    subflows = configuration.subflow_requests(own, asked, requester.client.user_id)
    missing = [subflow for subflow in subflows if subflow.key not in (kept or {})]
    flow_ids = {**(kept or {}), **await _get_subflows(requester, request, missing)}
    return configuration.with_instances(merge(own, asked), flow_ids)


def _check(served: Served, request: LocalRequest, own_user_id: str) -> None:
    endpoint, user_id = request.flow_endpoint, request.client_user_id
    if not served.is_served:
        raise NotFoundError(f"Not serving at {endpoint}.")
    if endpoint in request.above:
        raise UsageError(f"It needs itself: {' -> '.join((*request.above, endpoint))}.")
    stranger = user_id not in {LOCAL, own_user_id}
    if request.must_be_allowed and stranger and not served.record.may_get_instance(user_id):
        raise AccessDeniedError(f"The user {user_id} is not allowed to use it.")


async def _mounted(requester: Requester, flow_id: str | None) -> Place | None:
    return None if flow_id is None else await find(requester.client, flow_id)


async def _get_subflows(
    requester: Requester, request: LocalRequest, subflows: list[SubflowRequest]
) -> dict[str, str]:
    """Return the ids of instances for `subflows`: own ones here, all others in one task."""
    flow_ids: dict[str, str] = {}
    remote: dict[str, list[Call]] = {}
    for subflow in subflows:
        if subflow.user_id == LOCAL:
            below = _below(request, subflow)
            try:
                flow_ids[subflow.key] = await get_local(requester, below)
            except FlowInstanceException as error:
                raise _subflow_failure(subflow.key, error) from error
            continue
        if subflow.by_caller and subflow.user_id != request.client_user_id:
            raise AccessDeniedError(
                f"Who serves the subflow {subflow.key} is not the caller's choice."
            )
        call = (subflow.key, subflow.flow_endpoint, subflow.overrides())
        remote.setdefault(subflow.user_id, []).append(call)
    if remote:
        for key, result in (await get_remote(requester, remote)).items():
            if isinstance(result, FlowInstanceException):
                raise _subflow_failure(key, result) from result
            flow_ids[key] = result
    return flow_ids


def _below(request: LocalRequest, subflow: SubflowRequest) -> LocalRequest:
    """Return the request for a subflow that is an own flow: for the same client (§9.3)."""
    return LocalRequest(
        client_user_id=request.client_user_id,
        flow_endpoint=subflow.flow_endpoint,
        wish=subflow.wish,
        must_be_allowed=subflow.by_caller,
        flow_id=request.flow_id and derived_id(request.flow_id, subflow.key),
        above=(*request.above, request.flow_endpoint),
    )


def _subflow_failure(key: str, error: FlowInstanceException) -> NotFoundError:
    return NotFoundError(f"subflow {key}: {error}")
