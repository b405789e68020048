"""What a user's scheduler lets in: whose messages, to which instances, and how many (§9.5, §12.4).

Pure, for both schedulers. Nothing that a message says of itself is believed: its sender is the
initiator of the push task that brings it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.colink import keys
from engine.model.errors import AccessDeniedError, BusyError, EngineError, UsageError
from engine.model.ids import LOCAL
from engine.model.message import FlowMessage
from engine.serving.endpoints import EndpointRecord

RETRY_AFTER = 1.0
"""Seconds after which a sender to a full mailbox may try again."""


class Envelope(msgspec.Struct, frozen=True):
    """What is read of a message that arrives, without decoding its data."""

    user_id: str | None = None
    is_reply: bool = False
    reply_data: Mapping[str, Any] | None = None
    message_type: str = ""

    @classmethod
    def read(cls, payload: bytes) -> "Envelope":
        """Return the envelope of a message; UsageError when `payload` is none."""
        try:
            found = _DECODER.decode(payload)
        except msgspec.DecodeError:
            # NaN and lone surrogates, which Python's JSON has and msgspec refuses.
            message = FlowMessage.deserialize(payload)
            return cls(message.user_id, message.is_reply, message.reply_data, "FlowMessage")
        if found.message_type != "FlowMessage":
            raise UsageError("This is not a FlowMessage.")
        return found


_DECODER = msgspec.json.Decoder(Envelope)


@dataclass(frozen=True)
class Door:
    """An instance, as seen from outside. `holder` is the user it was made for, or `local`.

    `servers` are the users who serve its subflows; they are read for replies of others only.
    """

    flow_endpoint: str
    holder: str
    singleton: bool = False
    record: EndpointRecord = field(default_factory=EndpointRecord)
    servers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Arrival:
    """A message or reply that a push task brings to `own_user_id`, and from whom."""

    own_user_id: str
    sender: str
    key: str
    payload: bytes

    @property
    def own(self) -> bool:
        """Tell whether the user sent it to himself."""
        return self.sender == self.own_user_id

    def is_foreign_reply(self) -> bool:
        """Tell whether it is another user's reply to an instance."""
        try:
            return not self.own and self.envelope().is_reply
        except EngineError:
            return False

    def envelope(self) -> Envelope:
        """Return its envelope.

        Raises UsageError when it is no message, AccessDeniedError when it claims to be from
        somebody else.
        """
        found = Envelope.read(self.payload)
        if found.user_id not in (None, LOCAL, self.sender):
            raise AccessDeniedError(
                f"It says that it is from {str(found.user_id)[:80]}, and came from {self.sender}."
            )
        return found

    def stored(self, envelope: Envelope) -> bytes:
        """Return what is to be stored: the message as it came, with its sender in it."""
        if envelope.user_id == self.sender:
            return self.payload
        message = FlowMessage.deserialize(self.payload)
        message.user_id = self.sender
        return message.serialize()


def check_reply(arrival: Arrival, question: bytes | None) -> bytes:
    """Return what is to be stored of a reply (§9.8, mode `storage`).

    `question` is the own entry of the message that it answers. Raises AccessDeniedError unless
    that was asked, and of this sender; UsageError when the reply is no message.
    """
    envelope = arrival.envelope()
    if not keys.is_response_key(arrival.key) or question is None:
        raise AccessDeniedError("It answers nothing that was asked.")
    asked = Envelope.read(question).reply_data or {}
    if asked.get("to", arrival.sender) != arrival.sender:
        raise AccessDeniedError("It answers what was asked of somebody else.")
    return arrival.stored(envelope)


def check_message(arrival: Arrival, door: Door | None, unfinished: int) -> bytes:
    """Return what is to be stored of a message to an instance.

    `door` is None for an instance that is not known; `unfinished` counts the messages that the
    instance has. Raises UsageError when it is no message, AccessDeniedError when the sender may not
    send it, BusyError when the mailbox is full. A reply is taken in from whoever serves a subflow,
    however full it is. What the user sends himself and is no message is taken in, too: his worker
    makes a dead letter of it.
    """
    try:
        envelope = arrival.envelope()
    except UsageError:
        if arrival.own:
            return arrival.payload
        raise
    if keys.is_response_key(arrival.key):
        raise AccessDeniedError("It is no message to an instance.")
    if door is None:
        return arrival.stored(envelope)
    if envelope.is_reply and arrival.sender in door.servers:
        return arrival.stored(envelope)
    if not arrival.own:
        _check_access(door, arrival.sender, envelope)
    if not envelope.is_reply and unfinished >= door.record.mailbox_limit:
        raise BusyError(
            f"It is busy: {unfinished} messages are not finished.",
            RETRY_AFTER,
            f"Try again after {RETRY_AFTER:g} s.",
        )
    return arrival.stored(envelope)


def _check_access(door: Door, sender: str, envelope: Envelope) -> None:
    if envelope.is_reply and not door.record.may_send(sender):
        raise AccessDeniedError(f"The flow asked nothing of the user {sender}.")
    if not door.record.may_send(sender):
        raise AccessDeniedError(f"The user {sender} is not allowed to send to it.")
    if not door.singleton and door.holder not in (LOCAL, sender):
        raise AccessDeniedError(f"The instance is not one of the user {sender}.")


def sent_by(payload: bytes, sender: str, own_user_id: str) -> bool:
    """Tell whether the stored message `payload` was sent by `sender`."""
    try:
        return (Envelope.read(payload).user_id or own_user_id) == sender
    except UsageError:
        return False


def cancelled(arrival: Arrival) -> tuple[str, str]:
    """Return flow id and key of the message that a cancellation is about; UsageError."""
    arrival.envelope()
    data = FlowMessage.deserialize(arrival.payload).data
    flow_id, key = data.get("flow_id"), data.get("message_key")
    if not isinstance(flow_id, str) or not isinstance(key, str) or not keys.message_id(key):
        raise UsageError("The cancellation names no message.")
    return flow_id, key


def check_cancellation(arrival: Arrival, message: bytes | None) -> None:
    """Raise AccessDeniedError unless `message`, an own entry, is the sender's to give up."""
    if message is None or not sent_by(message, arrival.sender, arrival.own_user_id):
        raise AccessDeniedError("It gives up a message that its sender did not send.")
