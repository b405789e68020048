"""Messages on their way: where they are written, and who is told of them (§9.5, §9.8).

Pure. Sending has two parts: the message is written to an entry of the sender, then a task of the
protocol `coflows_push` brings it to the receiver. A reply to the own user in the mode `storage` is
only written.
"""

from dataclasses import dataclass, replace
from typing import Any

from engine.colink import keys
from engine.colink.mailbox import CANCEL, STORAGE, encode_push
from engine.model.ids import LOCAL, derived_id, is_user_id
from engine.model.message import FlowMessage

PROTOCOL = "coflows_push"


@dataclass(frozen=True)
class Outgoing:
    """A message to be written at `key` and brought to the instance `flow_id` of `user_id`.

    `user_id` is a hex id, or empty if nobody has to be told. `message` is its JSON text, or None
    when it was written before.
    """

    key: str
    message: str | None
    user_id: str = ""
    flow_id: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as it is stored with an instance's state.

        The message itself is left out where its entry is written before the state is: nobody knows
        of it until the task is made.
        """
        message = None if self.user_id else self.message
        return {
            "key": self.key,
            "message": message,
            "user_id": self.user_id,
            "flow_id": self.flow_id,
        }

    def entry(self) -> dict[str, bytes]:
        """Return the entry that is to be written; none when it was written before."""
        return {} if self.message is None else {self.key: self.message.encode()}

    def task(self, own_user_id: str) -> tuple[bytes, list[tuple[str, str]]] | None:
        """Return parameter and participants of the task that brings it; None when there is none."""
        if not self.user_id:
            return None
        participants = [(self.user_id, "receiver")]
        if self.user_id != own_user_id:
            participants.insert(0, (own_user_id, "initiator"))
        return encode_push(self.flow_id, self.key), participants


def pushed(
    own_user_id: str, user_id: str, flow_id: str, message: FlowMessage, message_id: str
) -> Outgoing:
    """Return `message` to the instance `flow_id` of `user_id` (hex id or `local`).

    With the same `message_id` again, the receiver takes it in once. A message that wants its reply
    in storage says from whom: nobody else's is taken. Raises UsageError when the message cannot be
    sent.
    """
    receiver = own_user_id if user_id == LOCAL else user_id
    if message.reply_data.get("mode") == "storage" and not message.is_reply:
        message = replace(message, reply_data={**message.reply_data, "to": receiver})
    return Outgoing(
        key=keys.push_message(message_id),
        message=message.serialize().decode(),
        user_id=receiver,
        flow_id=flow_id,
    )


def cancelling(own_user_id: str, question: Outgoing) -> Outgoing:
    """Return the message by which the one in `question` is given up."""
    message = FlowMessage(
        data={"message_key": question.key, "flow_id": question.flow_id},
        src_flow="engine",
        user_id=own_user_id,
    )
    message_id = derived_id(question.key, "cancel")
    return pushed(own_user_id, question.user_id, CANCEL, message, message_id)


def replied(own_user_id: str, message: FlowMessage, message_id: str) -> Outgoing | None:
    """Return a reply as its `reply_data` asks (§9.8); None when nobody wants it.

    `message_id` is that of the push in the mode `push`; the mode `storage` has its own key. What
    the asking user wrote is not trusted: users must be users, keys those of the protocol. Raises
    UsageError when the message cannot be sent.
    """
    asked = message.reply_data
    user_id = asked.get("user_id")
    if user_id in (LOCAL, own_user_id):
        user_id = own_user_id
    elif not isinstance(user_id, str) or not is_user_id(user_id):
        return None
    if asked.get("mode") == "push" and isinstance(asked.get("flow_id"), str):
        return pushed(own_user_id, user_id, asked["flow_id"], message, message_id)
    path = str(asked.get("input_msg_path", ""))
    if asked.get("mode") != "storage" or not keys.is_push_key(path):
        return None
    told = ("", "") if user_id == own_user_id else (user_id, STORAGE)
    return Outgoing(keys.push_response(path), message.serialize().decode(), *told)
