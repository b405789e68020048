"""FlowMessage: what flows send each other, and its exact JSON (protocol sheet §9.6).

The JSON has the fields of aiflows 1.1.1 in its order, no more: its readers refuse unknown fields.
Whatever we add travels inside `reply_data`: `deadline` (Unix seconds, float), `status`
("ok" or "error"), and `to`, the hex id of the one user whose reply in storage is taken.
"""

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.model.errors import AccessDeniedError, BusyError, FlowFailedError, UsageError
from engine.model.ids import new_id

NO_REPLY = {"mode": "no_reply"}
DEFAULT_TIMEOUT = 60.0
"""Seconds that a call may take when nobody said otherwise."""

_FIELDS = (
    "message_id",
    "created_at",
    "message_type",
    "created_by",
    "data",
    "src_flow_id",
    "reply_data",
    "src_flow",
    "dst_flow",
    "input_message_id",
    "is_reply",
    "user_id",
)
_REQUIRED = ("message_id", "created_at", "message_type", "data")


def timestamp(ns: int | None = None) -> str:
    """Return UTC time as `YYYY-MM-DD HH:MM:SS.` and nine digits; `ns` since the epoch or now."""
    ns = time.time_ns() if ns is None else ns
    seconds, rest = divmod(ns, 10**9)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{rest:09d}"


@dataclass
class FlowMessage:
    """A message between flows. `data` is the payload, JSON data; the rest says from whom to whom.

    Keys in `private_keys` never leave this process: they are cut from the top level of the message
    and of `data` when it is serialized.
    """

    data: dict[str, Any]
    src_flow: str = "unknown"
    src_flow_id: str = "unknown"
    dst_flow: str = "unknown"
    reply_data: dict[str, Any] = field(default_factory=lambda: dict(NO_REPLY))
    created_by: str | None = None
    private_keys: list[str] | None = None
    input_message_id: str | None = None
    is_reply: bool = False
    user_id: str | None = None
    message_id: str = field(default_factory=new_id)
    created_at: str = field(default_factory=timestamp)
    message_type: str = "FlowMessage"

    def __post_init__(self) -> None:
        self.created_by = self.src_flow if self.created_by is None else self.created_by
        self.private_keys = [] if self.private_keys is None else self.private_keys
        if self.input_message_id is None:
            self.input_message_id = self.message_id

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that are sent, in the order of the wire, without private keys."""
        private = set(self.private_keys or ())
        fields = {name: getattr(self, name) for name in _FIELDS if name not in private}
        if "data" in fields:
            fields["data"] = {
                key: copy.deepcopy(value) for key, value in self.data.items() if key not in private
            }
        fields["reply_data"] = dict(self.reply_data)
        return fields

    def serialize(self) -> bytes:
        """Return the message as JSON bytes.

        Raises UsageError when `data` holds something that is not JSON data.
        """
        try:
            return json.dumps(self.to_dict()).encode()
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"A message of {self.src_flow} cannot be sent: {error}.",
                "Put only JSON data (objects, lists, strings, numbers, booleans, null) into it.",
            ) from error

    @classmethod
    def deserialize(cls, encoded: bytes) -> "FlowMessage":
        """Return the message that `encoded` (JSON bytes) holds.

        Unknown fields are dropped, so that the format can grow. Raises UsageError when it is not a
        message: not a JSON object, a required field missing, or of another type.
        """
        try:
            fields = json.loads(encoded)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"This is not a message: {error}.") from error
        return cls.from_dict(fields)

    @classmethod
    def from_dict(cls, fields: Any) -> "FlowMessage":
        """Return the message in the decoded JSON value `fields`; UsageError if it is none."""
        if not isinstance(fields, Mapping):
            raise UsageError("This is not a message: a JSON object was expected.")
        for name in _REQUIRED:
            if name not in fields:
                raise UsageError(f"This is not a message: the field {name} is missing.")
        if fields["message_type"] != "FlowMessage":
            raise UsageError(f"This is not a FlowMessage but a {fields['message_type']!r}.")
        if not isinstance(fields["data"], dict):
            raise UsageError("This is not a message: its data is not an object.")
        known = {name: fields[name] for name in _FIELDS if name in fields}
        if not isinstance(known.get("reply_data"), dict):
            known["reply_data"] = dict(NO_REPLY)
        return cls(**known)

    @property
    def deadline(self) -> float | None:
        """Return when the sender stops waiting, in Unix seconds; None when it did not say."""
        value = self.reply_data.get("deadline")
        return float(value) if isinstance(value, int | float) else None

    @property
    def failed(self) -> bool:
        """Tell whether this is an error reply."""
        return self.reply_data.get("status") == "error"

    def raise_for_error(self) -> "FlowMessage":
        """Return the message itself, or raise what an error reply tells of.

        That is BusyError or AccessDeniedError when the message was refused at the door, and
        FlowFailedError else.
        """
        if not self.failed:
            return self
        error = self.data.get("error")
        text = error if isinstance(error, str) else str(error)
        refused = self.data.get("error_type") if self.data.get("refused") is True else ""
        if refused == BusyError.__name__:
            retry_after = self.data.get("retry_after")
            raise BusyError(text, retry_after if isinstance(retry_after, int | float) else 1.0)
        if refused == AccessDeniedError.__name__:
            raise AccessDeniedError(text)
        raise FlowFailedError(text, self.data)
