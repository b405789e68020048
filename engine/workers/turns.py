"""What a turn sends: collected while the flow runs, stored with its state, then sent.

The ids of all that is sent are derived from the id of the message at work and a running number, so
that sending again after a crash reaches nobody twice.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.model.ids import derived_id
from engine.model.message import FlowMessage
from engine.serving import messages
from engine.serving.endpoints import decoded

DONE_KEPT = 64
"""So many ids of messages done are kept with an instance's state."""


@dataclass(frozen=True)
class Outgoing:
    """A message that a turn sends. `user_id` and `flow_id` are empty for a reply."""

    message_id: str
    message: dict[str, Any]
    user_id: str = ""
    flow_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored with the instance's state."""
        return {
            "message_id": self.message_id,
            "message": self.message,
            "user_id": self.user_id,
            "flow_id": self.flow_id,
        }

    async def send(self, client: Client) -> None:
        """Send it; doing so again reaches nobody twice."""
        message = FlowMessage.from_dict(self.message)
        if self.user_id:
            await messages.push(
                client, self.user_id, self.flow_id, message, message_id=self.message_id
            )
        else:
            await messages.reply(client, message, message.reply_data, message_id=self.message_id)


@dataclass(frozen=True)
class Record:
    """An instance's `state` entry: what `Flow.dump_state` gave, messages done, what to send."""

    state: Any = None
    done: tuple[str, ...] = ()
    outbox: tuple[Outgoing, ...] = ()

    @classmethod
    def decode(cls, payload: bytes | None) -> "Record":
        """Return the record in an entry; an empty one when there is none of ours."""
        value = decoded(payload)
        if not isinstance(value, dict) or value.get("engine") != 1:
            return cls()
        return cls(
            value.get("state"),
            tuple(value.get("done", ())),
            tuple(Outgoing(**item) for item in value.get("outbox", ())),
        )

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        return {
            "engine": 1,
            "state": self.state,
            "done": list(self.done),
            "outbox": [item.to_json() for item in self.outbox],
        }

    def after(self, message_key: str, state: Any, outbox: tuple[Outgoing, ...]) -> "Record":
        """Return the record of the turn that handled `message_key`."""
        return Record(state, (*self.done, message_key)[-DONE_KEPT:], outbox)


@dataclass
class TurnPort:
    """The FlowPort of a flow at work on the message at `message_key`.

    `push` and `reply` collect; `future` sends at once, since the turn may wait for the answer.
    """

    client: Client
    message_key: str
    loop: asyncio.AbstractEventLoop
    outbox: list[Outgoing] = field(default_factory=list)
    _count: int = 0

    @property
    def user_id(self) -> str:
        """The user whose flow this is."""
        return self.client.user_id

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Collect a message to an instance."""
        item = Outgoing(self._next_id(), message.to_dict(), user_id, flow_id)
        self.outbox.append(item)
        return keys.push_message(item.message_id)

    def reply(self, message: FlowMessage) -> None:
        """Collect a reply; one that nobody wants is dropped."""
        if message.reply_data.get("mode") in {"push", "storage"}:
            self.outbox.append(Outgoing(self._next_id(), message.to_dict()))

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send a message now; return the key where its answer will be."""
        message_id = self._next_id()
        sending = messages.push(self.client, user_id, flow_id, message, message_id=message_id)
        if _on_loop(self.loop):
            self._sending.append(asyncio.ensure_future(sending))
        else:
            asyncio.run_coroutine_threadsafe(sending, self.loop).result()
        return keys.push_response(keys.push_message(message_id))

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return an answer, blocking the thread of a plain `run`."""
        if _on_loop(self.loop):
            raise RuntimeError("An async run must await the future; get_data() would block it.")
        waiting = messages.wait_reply(self.client, response_key, timeout)
        return asyncio.run_coroutine_threadsafe(waiting, self.loop).result()

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Return an answer."""
        await asyncio.gather(*self._sending)
        return await messages.wait_reply(self.client, response_key, timeout)

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return an answer if it is there already."""
        if _on_loop(self.loop):
            raise RuntimeError("An async run must await the future.")
        reading = messages.try_reply(self.client, response_key)
        return asyncio.run_coroutine_threadsafe(reading, self.loop).result()

    def __post_init__(self) -> None:
        self._sending: list[asyncio.Future[str]] = []

    def _next_id(self) -> str:
        self._count += 1
        return derived_id(self.message_key, str(self._count))


def _on_loop(loop: asyncio.AbstractEventLoop) -> bool:
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def is_done(record: Record, message_key: str) -> bool:
    """Tell whether an instance has handled the message already."""
    return message_key in record.done


def outbox_of(record: Record, message_key: str) -> tuple[Outgoing, ...]:
    """Return what the turn of `message_key` sent, if it was the instance's last one."""
    return record.outbox if record.done and record.done[-1] == message_key else ()


def reply_path(message: FlowMessage, message_key: str) -> Mapping[str, Any]:
    """Return the `reply_data` of a received message, with where it stands (§9.7, step 4)."""
    return {**message.reply_data, "input_msg_path": message_key}
