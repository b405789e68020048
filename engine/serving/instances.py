"""Getting instances of served flows, from oneself and from others (protocol sheet §9.3, §9.4).

Getting an instance of a composite flow gets instances of its subflows first: those of the own user
here, recursively; those of all other users in one `coflows_get_instances` task, in which each of
them does the same for his part.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.colink.client import Client
from engine.model.errors import AccessDeniedError, FlowInstanceException
from engine.model.ids import LOCAL, derived_id
from engine.serving.audit import Audit
from engine.serving.configuration import FlowClasses, Wish
from engine.serving.exchange import TIMEOUT, Requester, get_remote
from engine.serving.fetching import LocalRequest, get_local
from engine.serving.mounting import delete_instance
from engine.serving.reconfiguring import reconfigure, set_overrides

__all__ = [
    "Instance",
    "Requester",
    "answer_calls",
    "delete_instance",
    "get_instance",
    "reconfigure",
    "set_overrides",
]

FETCHED = "Fetched local flow instance."
_KEY = "my_flow"


@dataclass(frozen=True)
class Instance:
    """An instance of a flow: where it is. `user_id` is `local` for the asking user himself."""

    flow_id: str
    user_id: str
    flow_endpoint: str


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
    requester = Requester(client, catalog, time.time() + timeout)
    overrides = dict(config_overrides or {})
    if user_id in {LOCAL, client.user_id}:
        request = LocalRequest(
            LOCAL,
            flow_endpoint,
            Wish(own=overrides),
            initial_state=initial_state,
            dispatch_point_override=dispatch_point_override,
        )
        return Instance(await get_local(requester, request), LOCAL, flow_endpoint)
    results = await get_remote(requester, {user_id: [(_KEY, flow_endpoint, overrides)]})
    result = results[_KEY]
    if isinstance(result, FlowInstanceException):
        raise result
    return Instance(result, user_id, flow_endpoint)


async def answer_calls(
    requester: Requester, client_user_id: str, calls: Any, audit: Audit | None = None
) -> dict[str, Any]:
    """Return the results for what another user asked of us in a task (§9.4, receiver).

    Whatever is wrong with one call is told in its result and does not touch the others. The same
    task answered again gives the same instances. `audit` is told of what is not allowed.
    """
    audit = audit or Audit()
    results: dict[str, Any] = {}
    for call in calls if isinstance(calls, list) else []:
        if isinstance(call, list) and len(call) == 3 and isinstance(call[0], str):
            key, flow_endpoint, overrides = call
            results[key] = await _answer(
                requester, client_user_id, key, flow_endpoint, overrides, audit
            )
    return results


async def _answer(
    requester: Requester,
    client_user_id: str,
    key: str,
    flow_endpoint: Any,
    overrides: Any,
    audit: Audit,
) -> dict[str, Any]:
    request = LocalRequest(
        client_user_id,
        str(flow_endpoint),
        Wish(asked=overrides if isinstance(overrides, dict) else {}),
        flow_id=derived_id(requester.parent_task, key),
    )
    try:
        flow_id = await get_local(requester, request)
    except FlowInstanceException as error:
        if isinstance(error.__cause__, AccessDeniedError):
            own = requester.client.user_id
            audit.refused(own, client_user_id, error.__cause__, request.flow_endpoint)
        return {"flow_id": "", "successful": False, "message": error.reason}
    return {"flow_id": flow_id, "successful": True, "message": FETCHED}
