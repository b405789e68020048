"""One turn, as data: what was read for it, and what stands in its way. No I/O."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.payloads import is_set
from engine.model.errors import (
    DeadlineExceededError,
    EngineError,
    NotFoundError,
    PluginError,
    UsageError,
)
from engine.model.message import FlowMessage
from engine.serving.endpoints import decoded
from engine.serving.mounting import Place, Record


@dataclass(frozen=True)
class Turn:
    """A message and the instance that is to handle it, as read from storage in one call."""

    place: Place
    message_key: str
    message: FlowMessage
    record: Record
    parallel: bool
    flow_class_name: str
    config: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The flow's name."""
        return str(self.config.get("name", self.place.flow_endpoint))


def turn_keys(place: Place) -> list[str]:
    """Return the keys of all that has to be read of an instance for one turn."""
    return [
        keys.instance_metadata(place.flow_id),
        place.key("config_overrides"),
        place.key("state"),
        keys.flow(place.flow_endpoint, "parallel_dispatch"),
        keys.flow(place.flow_endpoint, "flow_class_name"),
    ]


def received(message_key: str, payload: bytes) -> FlowMessage:
    """Return the message that an entry holds; UsageError when it is none.

    Its `reply_data` says where it was found (§9.7), which is where a reply in storage goes. That
    of a reply is not touched: it is our own.
    """
    message = FlowMessage.deserialize(payload)
    if not message.is_reply:
        message.reply_data = {**message.reply_data, "input_msg_path": message_key}
    return message


def prepared(
    place: Place, message_key: str, message: FlowMessage, found: Mapping[str, bytes]
) -> Turn:
    """Return the turn that the entries `found` (of `turn_keys`) make.

    Raises NotFoundError or UsageError when the instance is not one that can run.
    """
    config = decoded(found.get(place.key("config_overrides")))
    class_name = decoded(found.get(keys.flow(place.flow_endpoint, "flow_class_name")))
    if not isinstance(config, dict):
        raise NotFoundError(f"The flow instance {place.flow_id} has no config.")
    if not isinstance(class_name, str):
        raise NotFoundError(f"The endpoint {place.flow_endpoint} names no flow class.")
    try:
        record = Record.decode(found.get(place.key("state")))
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"The state of the flow instance {place.flow_id} cannot be used: {error}."
        ) from error
    parallel = is_set(found.get(keys.flow(place.flow_endpoint, "parallel_dispatch")))
    return Turn(place, message_key, message, record, parallel, class_name, config)


def check_deadline(message: FlowMessage, name: str) -> None:
    """Raise DeadlineExceededError when nobody waits for the answer to `message` any more.

    A reply always counts: whoever asked may still have use for it.
    """
    if message.is_reply or message.deadline is None:
        return
    late = time.time() - message.deadline
    if late > 0:
        raise DeadlineExceededError(f"{name} got the message {late:.1f} s after its deadline.")


def error_reply(
    user_id: str,
    message: FlowMessage,
    error: BaseException,
    *,
    flow_id: str,
    place: Place | None = None,
    name: str = "",
) -> FlowMessage:
    """Return the reply that a message could not be handled, where no flow can give it."""
    flow = name or (place.flow_endpoint if place else f"{user_id}:dispatch_worker")
    kind = type(error).__name__
    text = str(error) if isinstance(error, EngineError) else f"{kind}: {error}"
    return FlowMessage(
        data={
            "error": f"{flow}: {text}",
            "error_type": kind,
            "flow": flow,
            "user_id": user_id,
            "flow_endpoint": place.flow_endpoint if place else "",
            "flow_id": flow_id,
            "where": "",
        },
        src_flow=flow,
        src_flow_id=flow_id,
        dst_flow=message.src_flow,
        reply_data={**message.reply_data, "status": "error"},
        input_message_id=message.input_message_id,
        is_reply=True,
        user_id=user_id,
    )


def unusable(flow_class_name: str, error: Exception) -> Exception:
    """Return `error`, raised by a flow class's own code, as an error that names the class."""
    if isinstance(error, EngineError):
        return error
    return PluginError(f"{flow_class_name} cannot be set up: {type(error).__name__}: {error}.")
