"""Sending messages to instances and getting their replies (protocol sheet §9.5, §9.6, §9.8)."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import STORAGE, encode_push
from engine.model.errors import AlreadyExistsError, DeadlineExceededError
from engine.model.ids import LOCAL, new_id
from engine.model.message import DEFAULT_TIMEOUT, FlowMessage

PROTOCOL = "coflows_push"


async def push(
    client: Client,
    user_id: str,
    flow_id: str,
    message: FlowMessage,
    *,
    message_id: str | None = None,
    parent_task: str = "",
) -> str:
    """Send `message` to the instance `flow_id` of a user (hex id or `local`); return its key.

    With a `message_id` of one's own choice, sending again changes nothing at the receiver.
    """
    key = keys.push_message(message_id or new_id())
    try:
        await client.create(key, message.serialize())
    except AlreadyExistsError:
        if message_id is None:
            raise
    await _run_push(client, user_id, flow_id, key, parent_task)
    return key


async def reply(
    client: Client, message: FlowMessage, reply_data: Mapping[str, Any], *, message_id: str
) -> None:
    """Send a reply as `reply_data` asks (§9.8); nothing for `no_reply` and unknown modes.

    `message_id` is that of the push in the mode `push`; the mode `storage` has its own key. Keys
    that are not of the protocol's form are not written to.
    """
    mode, user_id = reply_data.get("mode"), reply_data.get("user_id")
    if not isinstance(user_id, str):
        return
    if mode == "push" and isinstance(reply_data.get("flow_id"), str):
        await push(client, user_id, reply_data["flow_id"], message, message_id=message_id)
    elif mode == "storage":
        asked = str(reply_data.get("input_msg_path", ""))
        if not keys.is_push_key(asked):
            return
        key = keys.push_response(asked)
        await client.update(key, message.serialize())
        if user_id not in {LOCAL, client.user_id}:
            await _run_push(client, user_id, STORAGE, key, "")


async def ask(
    client: Client,
    user_id: str,
    flow_id: str,
    data: Mapping[str, Any],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    src_flow: str = "engine",
) -> FlowMessage:
    """Send `data` to an instance and return the reply, which may be an error reply.

    Raises DeadlineExceededError after `timeout` seconds; the deadline travels with the message.
    """
    message = FlowMessage(
        data=dict(data),
        src_flow=src_flow,
        src_flow_id=flow_id,
        dst_flow=flow_id,
        reply_data={
            "mode": "storage",
            "user_id": client.user_id,
            "deadline": time.time() + timeout,
        },
        user_id=client.user_id,
    )
    message_id = new_id()
    response_key = keys.push_response(keys.push_message(message_id))
    async with client.expect(response_key) as response:
        await push(client, user_id, flow_id, message, message_id=message_id)
        try:
            payload = await response.value(timeout)
        except DeadlineExceededError as error:
            raise DeadlineExceededError(
                f"The flow instance {flow_id} did not reply within {timeout:g} s.",
                "See the logs of its worker, and `engine status`.",
            ) from error
    return FlowMessage.deserialize(payload)


async def wait_reply(client: Client, response_key: str, timeout: float) -> FlowMessage:
    """Return the reply that is, or will be, at `response_key`.

    Raises DeadlineExceededError after `timeout` seconds.
    """
    return FlowMessage.deserialize(await client.wait_entry(response_key, timeout))


async def try_reply(client: Client, response_key: str) -> FlowMessage | None:
    """Return the reply at `response_key`, or None while there is none."""
    payload = await client.read(response_key)
    return None if payload is None else FlowMessage.deserialize(payload)


async def _run_push(client: Client, user_id: str, flow_id: str, key: str, parent_task: str) -> None:
    if user_id in {LOCAL, client.user_id}:
        participants = [(client.user_id, "receiver")]
    else:
        participants = [(client.user_id, "initiator"), (user_id, "receiver")]
    param = encode_push(flow_id, key)
    await client.run_task(PROTOCOL, param, participants, True, parent_task=parent_task)


class ClientPort:
    """A FlowPort for code outside of a turn: everything is sent at once, over `client`.

    `run` runs a coroutine on the client's event loop and returns its result; it blocks the thread.
    """

    def __init__(self, client: Client, run: Any) -> None:
        self._client = client
        self._run = run

    @property
    def user_id(self) -> str:
        """The user in whose name messages are sent."""
        return self._client.user_id

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message`; return its key."""
        return str(self._run(push(self._client, user_id, flow_id, message)))

    def reply(self, message: FlowMessage) -> None:
        """Send a reply as its `reply_data` asks."""
        self._run(reply(self._client, message, message.reply_data, message_id=new_id()))

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message`; return the key where the answer will be."""
        return keys.push_response(self.push(user_id, flow_id, message))

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return the answer; DeadlineExceededError after `timeout` seconds."""
        answer: FlowMessage = self._run(wait_reply(self._client, response_key, timeout))
        return answer

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Do the same as `wait` without blocking the caller's event loop."""
        return await asyncio.to_thread(self.wait, response_key, timeout)

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return the answer if it is there."""
        answer: FlowMessage | None = self._run(try_reply(self._client, response_key))
        return answer
