"""Replies that say why a message was not handled, where no flow can give them (§9.6, §9.8)."""

from collections.abc import Mapping
from typing import Any

from engine.flows.failures import failure_data
from engine.model.errors import EngineError, UsageError
from engine.model.ids import LOCAL, derived_id
from engine.model.message import FlowMessage
from engine.serving.admission import Arrival, Door
from engine.serving.mounting import Place
from engine.serving.outgoing import Outgoing, replied


def received(message_key: str, payload: bytes) -> FlowMessage:
    """Return the message that an entry holds; UsageError when it is none.

    Its `reply_data` says where it was found (§9.7), which is where a reply in storage goes. That
    of a reply is not touched: it is our own.
    """
    message = FlowMessage.deserialize(payload)
    if not message.is_reply:
        message.reply_data = {**message.reply_data, "input_msg_path": message_key}
    return message


def error_reply(
    user_id: str,
    message: FlowMessage,
    error: BaseException,
    *,
    flow_id: str,
    place: Place | None = None,
    name: str = "",
) -> FlowMessage:
    """Return the reply of `user_id` that `message`, to `flow_id`, was not handled."""
    flow = name or (place.flow_endpoint if place else f"{user_id}:dispatch_worker")
    endpoint = place.flow_endpoint if place else ""
    data: Mapping[str, Any] = failure_data(
        error, flow=flow, user_id=user_id, flow_endpoint=endpoint, flow_id=flow_id
    )
    return FlowMessage(
        data={**data, "refused": True},
        src_flow=flow,
        src_flow_id=flow_id,
        dst_flow=message.src_flow,
        reply_data={**message.reply_data, "status": "error"},
        input_message_id=message.input_message_id,
        is_reply=True,
        user_id=user_id,
    )


def refusal(
    arrival: Arrival, flow_id: str, door: Door | None, error: EngineError
) -> Outgoing | None:
    """Return the error reply to a message that was not let in; None when nobody is to be told.

    Only its sender is: else anybody could have us send to a third user. Replies are not answered.
    """
    try:
        message = received(arrival.key, arrival.payload)
    except UsageError:
        return None
    wanted = message.reply_data.get("user_id")
    if message.is_reply or (wanted != arrival.sender and not (arrival.own and wanted == LOCAL)):
        return None
    place = Place(door.flow_endpoint, door.holder, flow_id) if door is not None else None
    reply = error_reply(arrival.own_user_id, message, error, flow_id=flow_id, place=place)
    return replied(arrival.own_user_id, reply, derived_id(arrival.key, "refused"))
