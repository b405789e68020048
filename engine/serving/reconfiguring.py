"""Giving instances that live a new configuration; ids and states stay.

A flow sees its new configuration at its next message.
"""

import time
from collections.abc import Mapping
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.payloads import json_bytes
from engine.model.errors import EngineError, FlowInstanceException, NotFoundError
from engine.model.ids import LOCAL
from engine.serving import configuration
from engine.serving.configuration import FlowClasses, SubflowRequest, Wish
from engine.serving.endpoints import decoded, mounts_in
from engine.serving.exchange import TIMEOUT, Requester, failure
from engine.serving.fetching import LocalRequest, Served, complete_config
from engine.serving.mounting import Place, find


async def reconfigure(
    client: Client, catalog: FlowClasses, flow_endpoint: str, timeout: float = TIMEOUT
) -> None:
    """Compute the configuration of all instances of an endpoint anew.

    Subflows that are asked for as before keep their instances. Instances that stock aiflows made
    are left as they are: nobody knows what was asked for. One that fails stops no other; the first
    failure is raised in the end, as FlowInstanceException.
    """
    requester = Requester(client, catalog, time.time() + timeout)
    mounted = mounts_in(await client.read_tree(keys.flow_mounts(flow_endpoint)))
    failures: list[FlowInstanceException] = []
    for flow_id, owner in mounted.items():
        try:
            await _reconfigure(requester, Place(flow_endpoint, owner, flow_id))
        except FlowInstanceException as error:
            failures.append(error)
    if failures:
        raise failures[0]


async def set_overrides(
    client: Client,
    catalog: FlowClasses,
    flow_id: str,
    overrides: Mapping[str, Any],
    timeout: float = TIMEOUT,
) -> None:
    """Replace what was asked for when an own instance was made.

    Raises NotFoundError when there is no such instance, FlowInstanceException when it cannot have
    them; it then keeps its configuration.
    """
    place = await find(client, flow_id)
    if place is None:
        raise NotFoundError(f"There is no instance {flow_id}.")
    old = Wish.decode(decoded(await client.read(keys.engine_instance(flow_id)))) or Wish()
    wish = Wish(own=overrides) if place.owner == LOCAL else Wish(own=old.own, asked=overrides)
    await _reconfigure(Requester(client, catalog, time.time() + timeout), place, wish)


async def _reconfigure(requester: Requester, place: Place, new: Wish | None = None) -> None:
    """Write an instance's configuration anew if it changes, for the wish `new` or the old one."""
    client = requester.client
    config_key, wish_key = place.key("config_overrides"), keys.engine_instance(place.flow_id)
    found = await client.read_many([config_key, wish_key])
    wish = new or Wish.decode(decoded(found.get(wish_key)))
    if wish is None:
        return
    old = decoded(found.get(config_key)) or {}
    request = LocalRequest(place.owner, place.flow_endpoint, wish, must_be_allowed=False)
    try:
        served = await Served.read(requester, place.flow_endpoint)
        kept = await _kept(requester, served, wish, old)
        config = await complete_config(requester, request, served, kept)
    except EngineError as error:
        raise failure(place.flow_endpoint, client.user_id, error) from error
    entries = {config_key: {**config, "flow_id": place.flow_id}, wish_key: wish.to_json()}
    changed = {
        key: json_bytes(value) for key, value in entries.items() if decoded(found.get(key)) != value
    }
    await client.update_many(changed)


async def _kept(
    requester: Requester, served: Served, wish: Wish, old: Mapping[str, Any]
) -> dict[str, str]:
    """Return the subflow instances that go on, by key; own ones get their new configuration."""
    own_user_id = requester.client.user_id
    own = served.own_config(requester, wish)
    asked = configuration.checked(wish.asked, own)
    stored = configuration.subflows_of(old)
    kept = {}
    for subflow in configuration.subflow_requests(own, asked, own_user_id):
        known = stored.get(subflow.key, {})
        if not configuration.serves(known, subflow, own_user_id):
            continue
        flow_id = str(known["flow_id"])
        if configuration.fits(known, subflow) or await _adapted(requester, flow_id, subflow):
            kept[subflow.key] = flow_id
    return kept


async def _adapted(requester: Requester, flow_id: str, subflow: SubflowRequest) -> bool:
    """Let the instance of an own subflow follow; False when a new one is needed."""
    if subflow.user_id != LOCAL:
        return False
    place = await find(requester.client, flow_id)
    if place is None:
        return False
    singleton_key = keys.flow(place.flow_endpoint, "singleton")
    if decoded(await requester.client.read(singleton_key)) is not True:
        await _reconfigure(requester, place, subflow.wish)
    return True
