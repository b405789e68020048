"""One turn, as data: what was read for it, and what stands in its way. No I/O."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.payloads import is_set
from engine.model.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    EngineError,
    NotFoundError,
    PluginError,
    UsageError,
)
from engine.model.ids import LOCAL
from engine.model.message import FlowMessage
from engine.serving.configuration import servers_of
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
    text: str
    """The message as it was stored."""

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
    text = found.get(message_key, b"").decode(errors="replace")
    return Turn(place, message_key, message, record, parallel, class_name, config, text)


def check_deadline(message: FlowMessage, name: str) -> None:
    """Raise DeadlineExceededError when nobody waits for the answer to `message` any more.

    A reply always counts: whoever asked may still have use for it.
    """
    if message.is_reply or message.deadline is None:
        return
    late = time.time() - message.deadline
    if late > 0:
        raise DeadlineExceededError(f"{name} got the message {late:.1f} s after its deadline.")


def answers(turn: Turn, own_user_id: str) -> bool:
    """Tell whether a reply comes from somebody whom the instance may have asked.

    That is the user himself, or one who serves a subflow of it. The sender in the message is who
    sent it: the scheduler has seen to that.
    """
    return turn.message.user_id in {None, LOCAL, own_user_id, *servers_of(turn.config)}


def unasked(message: FlowMessage) -> AccessDeniedError:
    """Return the error that a reply was not asked of its sender."""
    return AccessDeniedError(f"The flow asked nothing of the user {message.user_id}.")


def unusable(flow_class_name: str, error: Exception) -> Exception:
    """Return `error`, raised by a flow class's own code, as an error that names the class."""
    if isinstance(error, EngineError):
        return error
    return PluginError(f"{flow_class_name} cannot be set up: {type(error).__name__}: {error}.")
