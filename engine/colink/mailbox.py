"""When a flow instance's messages are dispatched: the scheduler's decisions (§9.5, §9.7, §9.9).

Pure: no clock, no I/O. The embedded core's scheduler and the one for other cores both use it and
create the dispatch tasks that it returns. Unlike the stock scheduler it forgets idle instances,
takes route changes at the next message, and no unknown or doubled report can upset it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.colink.payloads import json_bytes, json_value
from engine.model.errors import UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT

STORAGE = "storage"
"""The flow id of a push that is a reply: stored at the receiver, dispatched to no flow (§9.5)."""
CANCEL = "engine:cancel"
"""The flow id of a push by which a caller gives up an earlier message of his.

It is no instance: a stock scheduler hands it to a worker that finds none, and nothing happens.
"""


@dataclass(frozen=True)
class Route:
    """Where an instance's messages are dispatched, and whether several may run at once."""

    dispatch_point: str = DEFAULT_DISPATCH_POINT
    parallel: bool = False


@dataclass(frozen=True)
class Dispatch:
    """A dispatch task to be created."""

    flow_id: str
    message_keys: tuple[str, ...]
    dispatch_point: str


@dataclass
class _Mailbox:
    route: Route
    waiting: dict[str, None] = field(default_factory=dict)  # a set that keeps the order of arrival
    in_flight: set[str] = field(default_factory=set)


class Mailboxes:
    """The messages of one user's instances that are not finished yet.

    A serial instance has at most one message in flight, even when its route has just changed from
    parallel; a parallel one gets each message at once.
    """

    def __init__(self) -> None:
        self._mailboxes: dict[str, _Mailbox] = {}

    def push(self, flow_id: str, message_key: str, route: Route) -> list[Dispatch]:
        """Take in a message and return what is to be dispatched now.

        A message that is here already is not taken in twice: deliveries may repeat.
        """
        mailbox = self._mailboxes.setdefault(flow_id, _Mailbox(route))
        mailbox.route = route
        if message_key not in mailbox.in_flight:
            mailbox.waiting.setdefault(message_key)
        return self._due(flow_id, mailbox)

    def finished(
        self, flow_id: str, message_keys: Iterable[str], route: Route | None = None
    ) -> list[Dispatch]:
        """Note that a dispatch task ended and return what is to be dispatched now.

        `route` replaces the known one. Instances and messages that are not here are ignored.
        """
        mailbox = self._mailboxes.get(flow_id)
        if mailbox is None:
            return []
        mailbox.route = route or mailbox.route
        for key in message_keys:
            mailbox.in_flight.discard(key)
            mailbox.waiting.pop(key, None)
        return self._due(flow_id, mailbox)

    def dispatched(self, flow_id: str, message_keys: Iterable[str], route: Route) -> None:
        """Note a dispatch task that somebody created before: how a restarted scheduler rebuilds."""
        mailbox = self._mailboxes.setdefault(flow_id, _Mailbox(route))
        for key in message_keys:
            mailbox.waiting.pop(key, None)
            mailbox.in_flight.add(key)

    def restore(self, flow_id: str, message_key: str, route: Route) -> None:
        """Take in a message like `push`, but leave it to `due` to give it out: after a restart."""
        mailbox = self._mailboxes.setdefault(flow_id, _Mailbox(route))
        mailbox.route = route
        if message_key not in mailbox.in_flight:
            mailbox.waiting.setdefault(message_key)

    def returned(self, dispatch: Dispatch) -> None:
        """Take back a dispatch whose task could not be created; `due` gives it out again."""
        mailbox = self._mailboxes.get(dispatch.flow_id)
        if mailbox is None:
            return
        back = [key for key in dispatch.message_keys if key in mailbox.in_flight]
        mailbox.in_flight.difference_update(back)
        mailbox.waiting = dict.fromkeys([*back, *mailbox.waiting])

    def due(self) -> list[Dispatch]:
        """Return everything that is to be dispatched now, such as what was returned."""
        return [
            dispatch
            for flow_id, mailbox in list(self._mailboxes.items())
            for dispatch in self._due(flow_id, mailbox)
        ]

    def withdraw(self, flow_id: str, message_key: str) -> bool:
        """Take a message out again that still waits; False when it does not."""
        mailbox = self._mailboxes.get(flow_id)
        if mailbox is None or message_key not in mailbox.waiting:
            return False
        del mailbox.waiting[message_key]
        if not mailbox.in_flight and not mailbox.waiting:
            del self._mailboxes[flow_id]
        return True

    def holds(self, flow_id: str, message_key: str) -> bool:
        """Tell whether a message waits or is in flight."""
        mailbox = self._mailboxes.get(flow_id)
        return mailbox is not None and (
            message_key in mailbox.waiting or message_key in mailbox.in_flight
        )

    def unfinished(self, flow_id: str) -> int:
        """Return how many messages of an instance wait or are in flight."""
        mailbox = self._mailboxes.get(flow_id)
        return len(mailbox.waiting) + len(mailbox.in_flight) if mailbox else 0

    def forget(self, flow_id: str) -> None:
        """Drop all messages of an instance, because it was deleted."""
        self._mailboxes.pop(flow_id, None)

    def pending(self, flow_id: str) -> tuple[str, ...]:
        """Return the keys of the messages that wait for an instance, in order."""
        mailbox = self._mailboxes.get(flow_id)
        return tuple(mailbox.waiting) if mailbox else ()

    def in_flight(self, flow_id: str) -> frozenset[str]:
        """Return the keys of the messages that an instance's dispatch tasks carry now."""
        mailbox = self._mailboxes.get(flow_id)
        return frozenset(mailbox.in_flight) if mailbox else frozenset()

    def __len__(self) -> int:
        return len(self._mailboxes)

    def _due(self, flow_id: str, mailbox: _Mailbox) -> list[Dispatch]:
        if mailbox.route.parallel:
            ready = list(mailbox.waiting)
        elif mailbox.in_flight:
            ready = []
        else:
            ready = list(mailbox.waiting)[:1]
        for key in ready:
            del mailbox.waiting[key]
            mailbox.in_flight.add(key)
        if not mailbox.in_flight and not mailbox.waiting:
            del self._mailboxes[flow_id]
        point = mailbox.route.dispatch_point
        return [Dispatch(flow_id, (key,), point) for key in ready]


@dataclass(frozen=True)
class PushParam:
    """The parameter of a `coflows_push` task: `message_id` is the message's whole key name."""

    flow_id: str
    message_id: str


def encode_push(flow_id: str, message_key: str) -> bytes:
    """Return the parameter of a `coflows_push` task (§9.5)."""
    return json_bytes({"flow_id": flow_id, "message_id": message_key})


def decode_push(param: bytes) -> PushParam:
    """Return what a `coflows_push` task asks; UsageError when the parameter is no such thing."""
    fields = _object(param, "coflows_push")
    flow_id, message_id = fields.get("flow_id"), fields.get("message_id")
    if not isinstance(flow_id, str) or not isinstance(message_id, str):
        raise UsageError("The parameter of a coflows_push task lacks flow_id or message_id.")
    return PushParam(flow_id, message_id)


def encode_dispatch(flow_id: str, message_keys: Sequence[str]) -> bytes:
    """Return the parameter of a dispatch task (§9.7)."""
    return json_bytes({"flow_id": flow_id, "message_ids": list(message_keys)})


def decode_dispatch(param: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the flow id and message keys of a dispatch task; UsageError when it is none."""
    fields = _object(param, "dispatch")
    flow_id, keys = fields.get("flow_id"), fields.get("message_ids")
    if not isinstance(flow_id, str) or not isinstance(keys, list):
        raise UsageError("The parameter of a dispatch task lacks flow_id or message_ids.")
    if not all(isinstance(key, str) for key in keys):
        raise UsageError("The message_ids of a dispatch task are not all text.")
    return flow_id, tuple(keys)


def encode_get_instances(request_id: str) -> bytes:
    """Return the parameter of a `coflows_get_instances` task: a JSON string (§9.4)."""
    return json_bytes(request_id)


def decode_get_instances(param: bytes) -> str:
    """Return the request id of a `coflows_get_instances` task; UsageError when it has none."""
    try:
        request_id = json_value(param)
    except ValueError:
        request_id = None
    if not isinstance(request_id, str):
        raise UsageError("The parameter of a coflows_get_instances task is not a JSON string.")
    return request_id


def _object(param: bytes, what: str) -> dict[str, Any]:
    try:
        fields = json_value(param)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise UsageError(f"The parameter of a {what} task is not a JSON object.")
    return fields
