"""The entries of instances: writing, finding and deleting them (protocol sheet §9.1, §9.3, §9.12).

The state entry is ours: JSON instead of a pickle, with what makes a turn safe to repeat.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.payloads import json_bytes
from engine.model.errors import AlreadyExistsError
from engine.model.ids import LOCAL, new_id
from engine.serving.configuration import Wish, subflows_of
from engine.serving.endpoints import client_id, decoded, mounts_in
from engine.serving.outgoing import Outgoing

_VERSION = 1
DONE_KEPT = 64
"""So many keys of messages done are kept with an instance's state."""


@dataclass(frozen=True)
class Record:
    """An instance's `state` entry.

    `state` is what `Flow.dump_state` gave (None: nothing yet), `done` the keys of the messages
    handled, newest last, `outbox` what the last of them sent.
    """

    state: Any = None
    done: tuple[str, ...] = ()
    outbox: tuple[Outgoing, ...] = ()

    @classmethod
    def decode(cls, payload: bytes | None) -> "Record":
        """Return the record in an entry, an empty one for no entry; ValueError for a foreign one.

        A state that stock aiflows wrote is a pickle, and is never loaded.
        """
        if payload is None:
            return cls()
        value = decoded(payload)
        if not isinstance(value, dict) or value.get("engine") != _VERSION:
            raise ValueError("the state was not written by this engine")
        return cls(
            value.get("state"),
            tuple(value.get("done", ())),
            tuple(Outgoing(**item) for item in value.get("outbox", ())),
        )

    def encode(self) -> bytes:
        """Return the entry's payload."""
        return json_bytes(
            {
                "engine": _VERSION,
                "state": self.state,
                "done": list(self.done),
                "outbox": [item.to_json() for item in self.outbox],
            }
        )

    def after(self, message_key: str, state: Any, outbox: tuple[Outgoing, ...]) -> "Record":
        """Return the record of the turn that handled `message_key`."""
        return Record(state, (*self.done, message_key)[-DONE_KEPT:], outbox)

    def outbox_of(self, message_key: str) -> tuple[Outgoing, ...]:
        """Return what the turn of a message that is done sent; nothing if others came later."""
        return self.outbox if self.done and self.done[-1] == message_key else ()


@dataclass(frozen=True)
class Place:
    """Where an instance's entries stand. `owner` is the client's user id, or `local`."""

    flow_endpoint: str
    owner: str
    flow_id: str = field(default_factory=new_id)

    @classmethod
    def decode(cls, flow_id: str, metadata: bytes | None, own_user_id: str) -> "Place | None":
        """Return the place that an `instance_metadata` entry tells of; None when it tells none."""
        value = decoded(metadata)
        if not isinstance(value, dict) or "flow_endpoint" not in value:
            return None
        owner = client_id(str(value.get("user_id", LOCAL)), own_user_id)
        return cls(str(value["flow_endpoint"]), owner, flow_id)

    def key(self, name: str) -> str:
        """Return the key of one of the instance's entries, such as `state`."""
        return keys.mount_field(self.flow_endpoint, self.owner, self.flow_id, name)


async def find(client: Client, flow_id: str) -> Place | None:
    """Return where an own instance is, None when there is none."""
    metadata = await client.read(keys.instance_metadata(flow_id))
    return Place.decode(flow_id, metadata, client.user_id)


async def mount(
    client: Client,
    place: Place,
    config: Mapping[str, Any],
    *,
    wish: Wish,
    state: Any = None,
    dispatch_point_override: str | None = None,
    fresh: bool = True,
) -> None:
    """Write the entries of an instance (§9.1).

    `config` is the complete configuration, `state` what `encode_state` gave. `fresh` is False for
    an id that others may be mounting too: a state that is there already is then left alone.
    """
    entries = {
        place.key("state"): Record(state).encode(),
        place.key("config_overrides"): json_bytes({**config, "flow_id": place.flow_id}),
        keys.engine_instance(place.flow_id): json_bytes(wish.to_json()),
    }
    if dispatch_point_override is not None:
        entries[place.key("dispatch_point_override")] = dispatch_point_override.encode()
    metadata = {"flow_endpoint": place.flow_endpoint, "user_id": place.owner}
    entries[keys.instance_metadata(place.flow_id)] = json_bytes(metadata)
    entries[place.key("init")] = json_bytes(1)
    if not fresh:
        with contextlib.suppress(AlreadyExistsError):
            await client.create(place.key("state"), entries.pop(place.key("state")))
    await client.update_many(entries)


async def delete_instance(
    client: Client, flow_id: str, *, client_id: str | None = None, recursive: bool = True
) -> bool:
    """Delete an own instance, and with `recursive` those of its own subflows; False if none was.

    With `client_id` (a user's hex id) it is deleted only if that user is the one who has it, and
    not if it is a singleton, which others may have too. Subflows' singletons are always left.
    Instances at other users are theirs to delete: the protocol has no request for it.
    """
    place = await find(client, flow_id)
    if place is None:
        return False
    singleton_key = keys.flow(place.flow_endpoint, "singleton")
    claim_key = keys.engine_singleton(place.flow_endpoint)
    found = await client.read_many([singleton_key, claim_key, place.key("config_overrides")])
    singleton = decoded(found.get(singleton_key)) is True
    if client_id is not None and (singleton or place.owner != _owner(client_id, client)):
        return False
    doomed = [keys.instance_metadata(flow_id), keys.engine_instance(flow_id)]
    claim = _claim(found.get(claim_key), place.flow_endpoint)
    if claim is not None and claim.flow_id == flow_id:
        doomed.append(claim_key)
    doomed += await client.read_tree(keys.mount(place.flow_endpoint, place.owner, flow_id))
    await client.delete_many(doomed)
    config = decoded(found.get(place.key("config_overrides")))
    if recursive and isinstance(config, dict):
        for subflow in subflows_of(config).values():
            if subflow.get("user_id") in {LOCAL, client.user_id} and subflow.get("flow_id"):
                holder = client.user_id if place.owner == LOCAL else place.owner
                await delete_instance(client, str(subflow["flow_id"]), client_id=holder)
    return True


# --- singletons -------------------------------------------------------------------------------


async def find_singleton(
    client: Client, flow_endpoint: str, claim: bytes | None
) -> tuple[Place | None, bool]:
    """Return where the one instance of a singleton flow is or shall be, and whether it is there.

    `claim` is the payload of the endpoint's claim, if there is one. Instances that stock aiflows
    made have none: whichever lives is taken.
    """
    claimed = _claim(claim, flow_endpoint)
    if claimed is not None:
        return claimed, await find(client, claimed.flow_id) is not None
    mounted = mounts_in(await client.read_tree(keys.flow_mounts(flow_endpoint)))
    for flow_id, owner in mounted.items():
        return Place(flow_endpoint, owner, flow_id), True
    return None, False


async def claim_singleton(client: Client, flow_endpoint: str, owner: str) -> Place:
    """Return where the one instance shall be: the first to write it down decides."""
    key, wanted = keys.engine_singleton(flow_endpoint), Place(flow_endpoint, owner)
    try:
        await client.create(key, json_bytes({"flow_id": wanted.flow_id, "user_id": owner}))
    except AlreadyExistsError:
        claimed = _claim(await client.read(key), flow_endpoint)
        # None: it was deleted this very moment.
        return claimed or await claim_singleton(client, flow_endpoint, owner)
    return wanted


def _claim(payload: bytes | None, flow_endpoint: str) -> Place | None:
    value = decoded(payload)
    if not isinstance(value, dict) or "flow_id" not in value:
        return None
    return Place(flow_endpoint, str(value.get("user_id", LOCAL)), str(value["flow_id"]))


def _owner(user_id: str, client: Client) -> str:
    return client_id(user_id, client.user_id)
