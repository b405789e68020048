"""Dead letters: messages that could not be handled for good, kept for the user whose flow it was.

An entry `engine:dead:<id>` in his own storage, where the id is that of the message. It alone has
the traceback: nobody else's storage, and no reply, ever does.
"""

import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.payloads import json_bytes
from engine.model.errors import NotFoundError, UsageError
from engine.model.ids import LOCAL, new_id
from engine.model.message import FlowMessage
from engine.serving.endpoints import decoded
from engine.serving.messages import answer_to, post
from engine.serving.outgoing import Outgoing, pushed

Reason = Literal["failed", "refused", "unreadable", "undeliverable"]
KEPT = 1_000
"""So many dead letters are kept of a user, the newest."""
_LONGEST = 50_000


@dataclass(frozen=True)
class DeadLetter:
    """A message that could not be handled, or a reply or message that could not be brought.

    `reason`: `failed` (the flow raised), `refused` (there was no flow to run, or its workers die of
    it), `unreadable` (it is no message), `undeliverable`. `message` is its text as it came, `error`
    what the caller was told, `time` in Unix seconds. `user_id` is to whom it was to be brought, for
    what could not be.
    """

    id: str
    reason: Reason
    message_key: str
    flow_id: str
    error: Mapping[str, Any]
    flow_endpoint: str = ""
    attempts: int = 0
    time: float = field(default_factory=time.time)
    message: str = ""
    traceback: str = ""
    user_id: str = ""

    def entry(self) -> dict[str, bytes]:
        """Return the entry that keeps it."""
        return {keys.engine_dead(self.id): json_bytes(asdict(self))}

    @classmethod
    def decode(cls, payload: bytes | None) -> "DeadLetter | None":
        """Return the letter in an entry, None when it holds none."""
        value = decoded(payload)
        try:
            return cls(**value)
        except TypeError:
            return None


def letter_id(message_key: str) -> str:
    """Return the id of the letter about the message at a key."""
    return keys.message_id(message_key) or new_id()


def trace(error: BaseException) -> str:
    """Return the traceback of `error`, the end of a long one."""
    return "".join(traceback.format_exception(error))[-_LONGEST:]


async def letters(client: Client) -> list[DeadLetter]:
    """Return the user's dead letters, the oldest first."""
    tree = await client.read_tree(keys.ENGINE_DEAD)
    found = [letter for payload in tree.values() if (letter := DeadLetter.decode(payload))]
    return sorted(found, key=lambda letter: (letter.time, letter.id))


async def read(client: Client, id_: str) -> DeadLetter:
    """Return one of the user's dead letters; NotFoundError."""
    letter = DeadLetter.decode(await client.read(keys.engine_dead(id_)))
    if letter is None:
        raise NotFoundError(f"There is no dead letter {id_}.", "See: engine dead list USER")
    return letter


async def drop(client: Client, id_: str) -> None:
    """Delete a dead letter for good; NotFoundError when there is none."""
    await read(client, id_)
    await client.delete_many([keys.engine_dead(id_)])


async def prune(client: Client) -> None:
    """Delete the oldest letters beyond those that are kept."""
    found = await letters(client)
    await client.delete_many(keys.engine_dead(letter.id) for letter in found[:-KEPT])


async def retry(client: Client, id_: str, timeout: float) -> FlowMessage | None:
    """Send what a dead letter holds once more, in the name of the user whose letter it is.

    A message gets a new id and a deadline of `timeout` seconds, and its reply, error replies
    included, is returned; who sent it first has got his. None for what has only to be brought.
    The letter is dropped when it has served: there is a reply, or a letter of its own for the new
    attempt. Raises UsageError for what is no message, DeadlineExceededError.
    """
    letter = await read(client, id_)
    if letter.reason == "undeliverable":
        await post(
            client, Outgoing(letter.message_key, letter.message, letter.user_id, letter.flow_id)
        )
        await drop(client, id_)
        return None
    try:
        message = FlowMessage.deserialize(letter.message.encode())
    except UsageError as error:
        raise UsageError(
            f"The dead letter {id_} holds nothing that could be sent: {error}",
            f"Drop it: engine dead drop USER {id_}",
        ) from error
    if message.is_reply:
        raise UsageError(
            f"The dead letter {id_} is a reply, and the run that waited for it has ended.",
            "Retry the message that began the run.",
        )
    message.user_id = client.user_id
    message.reply_data = {
        "mode": "storage",
        "user_id": client.user_id,
        "deadline": time.time() + timeout,
    }
    question = pushed(client.user_id, LOCAL, letter.flow_id, message, new_id())
    reply = FlowMessage.deserialize(await answer_to(client, question, timeout))
    parked = await client.read(keys.engine_dead(letter_id(question.key)))
    if not reply.failed or parked is not None:
        await client.delete_many([keys.engine_dead(id_)])
    return reply
