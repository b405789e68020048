"""What a flow may do to the world while it handles a message: its FlowPort inside a turn."""

import asyncio
import time

from engine.colink.client import Client
from engine.colink.keys import push_response
from engine.kits.digest import digest
from engine.model.errors import UsageError
from engine.model.ids import derived_id
from engine.model.message import DEFAULT_TIMEOUT, FlowMessage
from engine.serving.messages import Answers
from engine.serving.outgoing import Outgoing, pushed, replied
from engine.workers.capacity import Share


class TurnPort:
    """The port of a flow at work on the message at `message_key`.

    `push` and `reply` only collect, in `outbox`: it is sent once the turn is committed. `future`
    sends at once, since the run may wait for the answer. All ids are derived from the message's
    key and a running number, so that a turn that is repeated sends nothing twice. A second attempt
    has other ids: what it asks shall not get the answer that made the first one fail.
    """

    def __init__(
        self, client: Client, message_key: str, share: Share, task_id: str, attempt: int = 1
    ) -> None:
        self.outbox: list[Outgoing] = []
        self._attempt = () if attempt == 1 else (f"attempt {attempt}",)
        self._client = client
        self._message_key = message_key
        self.share = share
        self._answers = Answers(client, task_id)
        self._loop = asyncio.get_running_loop()
        self._count = 0

    @property
    def user_id(self) -> str:
        """The user whose flow this is."""
        return self._client.user_id

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Collect a message to an instance; return its key."""
        outgoing = pushed(self.user_id, user_id, flow_id, message, self._next_id())
        self.outbox.append(outgoing)
        return outgoing.key

    def reply(self, message: FlowMessage) -> None:
        """Collect a reply; one that nobody wants is dropped."""
        outgoing = replied(self.user_id, message, self._next_id())
        if outgoing is not None:
            self.outbox.append(outgoing)

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send a message now; return the key where its answer will be.

        A repeated run that asks something else instead must not get the old answer: what is asked
        is part of the id.
        """
        message_id = self._next_id(user_id, flow_id, digest(message.data))
        question = pushed(self.user_id, user_id, flow_id, message, message_id)
        deadline = message.deadline or time.time() + DEFAULT_TIMEOUT
        timeout = max(0.0, deadline - time.time())
        if self._on_loop():
            self._answers.ask(question, timeout)
        else:
            self._loop.call_soon_threadsafe(self._answers.ask, question, timeout)
        return push_response(question.key)

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return an answer, blocking the thread of a plain `run`; DeadlineExceededError."""
        if self._on_loop():
            raise UsageError(
                "An async run cannot block for an answer: the worker would stand still.",
                "Write `data = await future`.",
            )
        waiting = self.wait_async(response_key, timeout)
        return asyncio.run_coroutine_threadsafe(waiting, self._loop).result()

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Return an answer; DeadlineExceededError."""
        answer = self._answers.peek(response_key)
        if answer is not None:
            return answer
        async with self.share.waiting():
            return await self._answers.wait(response_key, timeout)

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return an answer to a message of this turn if it is there already."""
        return self._answers.peek(response_key)

    def cancel(self, response_key: str) -> None:
        """Give up a question: nobody waits for its answer any more, and its receiver is told."""
        if self._on_loop():
            self._answers.cancel(response_key)
        else:
            self._loop.call_soon_threadsafe(self._answers.cancel, response_key)

    def give_up(self) -> None:
        """Give up all questions; who waits for an answer gets CallCancelledError."""
        self._answers.cancel_all()

    async def close(self) -> None:
        """Stop waiting for answers."""
        await self._answers.close()

    def _next_id(self, *parts: str) -> str:
        self._count += 1
        return derived_id(self._message_key, str(self._count), *parts, *self._attempt)

    def _on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False
