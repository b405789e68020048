"""Serving flows, getting instances, sending messages: what a user does, in the words of aiflows.

The functions here are for notebooks and scripts. They have the names and arguments of aiflows
1.1.1 and take the stock SDK's CoLink object, on any core. What they do is in this package's
modules, for use in an event loop.
"""

import logging
from collections.abc import Mapping
from typing import Any

from engine.flows.flow import AtomicFlow, proxy
from engine.flows.state import encode_state
from engine.model.errors import FlowInstanceException
from engine.model.ids import DEFAULT_DISPATCH_POINT, LOCAL
from engine.serving import endpoints, instances, mounting
from engine.serving.bridge import Bridge, CoLinkLike, bridge
from engine.serving.configuration import Wish, subflows_of
from engine.serving.endpoints import client_id as _client_id

__all__ = [
    "FlowInstanceException",
    "delete_all_flow_endpoints",
    "delete_flow_endpoint",
    "delete_flow_instance",
    "get_flow_instance",
    "is_flow_served",
    "mount",
    "recursive_delete_flow_instance",
    "recursive_serve_flow",
    "serve_flow",
    "unserve_flow",
]

log = logging.getLogger(__name__)


def is_flow_served(cl: CoLinkLike, flow_endpoint: str) -> bool:
    """Tell whether the user of `cl` serves a flow at the endpoint."""
    return bridge().run(endpoints.is_served(bridge().client(cl), flow_endpoint))


def serve_flow(
    cl: CoLinkLike,
    flow_class_name: str,
    flow_endpoint: str,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
) -> bool:
    """Serve the class `<plugin>.<ClassName>`; False when something is served there already.

    Raises UsageError for a name that cannot be an endpoint.
    """
    served = bridge().run(
        endpoints.serve(
            bridge().client(cl),
            flow_endpoint,
            flow_class_name,
            dispatch_point=dispatch_point,
            parallel_dispatch=parallel_dispatch,
            singleton=singleton,
        )
    )
    log.info("%s %s", "serving" if served else "something is already served at", flow_endpoint)
    return served


def recursive_serve_flow(
    cl: CoLinkLike,
    flow_class_name: str,
    flow_endpoint: str,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    parallel_dispatch: bool = False,
    singleton: bool = False,
) -> bool:
    """Serve a flow and, before it, those of its subflows that are the own user's (§9.11).

    False when a subflow does not say how it is to be served, or something is served there already.
    Raises PluginError when a class cannot be used.
    """
    config = bridge().catalog.flow_class(flow_class_name).get_config()  # type: ignore[attr-defined]
    for key, subflow in subflows_of(config).items():
        if subflow.get("user_id", LOCAL) == LOCAL and not _serve_subflow(cl, key, subflow):
            return False
    return serve_flow(
        cl, flow_class_name, flow_endpoint, dispatch_point, parallel_dispatch, singleton
    )


def _serve_subflow(cl: CoLinkLike, key: str, subflow: Mapping[str, Any]) -> bool:
    endpoint, class_name = subflow.get("flow_endpoint"), subflow.get("flow_class_name")
    if endpoint is not None and is_flow_served(cl, str(endpoint)):
        return True
    if endpoint is None or class_name is None:
        log.warning("the subflow %s lacks flow_endpoint or flow_class_name in the config", key)
        return False
    return recursive_serve_flow(
        cl,
        str(class_name),
        str(endpoint),
        str(subflow.get("dispatch_point", DEFAULT_DISPATCH_POINT)),
        bool(subflow.get("parallel_dispatch", False)),
        bool(subflow.get("singleton", False)),
    )


def unserve_flow(cl: CoLinkLike, flow_endpoint: str) -> None:
    """Refuse new instances from now on; those that live go on."""
    if not bridge().run(endpoints.unserve(bridge().client(cl), flow_endpoint)):
        log.info("%s was not served", flow_endpoint)


def delete_flow_endpoint(cl: CoLinkLike, flow_endpoint: str) -> None:
    """Delete an endpoint with all its instances."""
    bridge().run(endpoints.delete(bridge().client(cl), flow_endpoint))


def delete_all_flow_endpoints(cl: CoLinkLike) -> None:
    """Delete every endpoint of the user of `cl`, with all instances."""
    bridge().run(endpoints.delete_all(bridge().client(cl)))


def mount(
    cl: CoLinkLike,
    client_id: str,
    flow_endpoint: str,
    config_overrides: Mapping[str, Any] | None = None,
    initial_state: Mapping[str, Any] | None = None,
    dispatch_point_override: str | None = None,
) -> str:
    """Write the entries of an instance for the user `client_id`, and return its id.

    `config_overrides` is its whole configuration: nothing is merged, no subflow is got. Use
    `get_flow_instance` for that. Raises FlowInstanceException when the endpoint is not served.
    """
    client = bridge().client(cl)
    if not is_flow_served(cl, flow_endpoint):
        raise FlowInstanceException(flow_endpoint, client.user_id, f"Not serving {flow_endpoint}.")
    place = mounting.Place(flow_endpoint, _client_id(client_id, client.user_id))
    config = dict(config_overrides or {})
    bridge().run(
        mounting.mount(
            client,
            place,
            config,
            wish=Wish(own=config),
            state=None if initial_state is None else encode_state(dict(initial_state)),
            dispatch_point_override=dispatch_point_override,
        )
    )
    return place.flow_id


def get_flow_instance(
    cl: CoLinkLike,
    flow_endpoint: str,
    user_id: str = LOCAL,
    config_overrides: Mapping[str, Any] | None = None,
    initial_state: Mapping[str, Any] | None = None,
    dispatch_point_override: str | None = None,
) -> AtomicFlow:
    """Return a proxy of an instance of what `user_id` serves at the endpoint (§9.10).

    Raises FlowInstanceException, saying whose endpoint failed and why.
    """
    here: Bridge = bridge()
    instance = here.run(
        instances.get_instance(
            here.client(cl),
            here.catalog,
            flow_endpoint,
            user_id=user_id,
            config_overrides=config_overrides,
            initial_state=initial_state,
            dispatch_point_override=dispatch_point_override,
        )
    )
    return proxy(flow_endpoint, instance.flow_id, here.port(cl), instance.user_id)


def delete_flow_instance(cl: CoLinkLike, flow_id: str) -> None:
    """Delete an own instance; those of its subflows stay."""
    client = bridge().client(cl)
    if not bridge().run(instances.delete_instance(client, flow_id, recursive=False)):
        log.info("there is no instance %s", flow_id)


def recursive_delete_flow_instance(cl: CoLinkLike, flow_id: str) -> None:
    """Delete an own instance and those of its own subflows, singletons excepted."""
    bridge().run(instances.delete_instance(bridge().client(cl), flow_id))
