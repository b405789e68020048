"""Sending messages to instances and getting their replies (protocol sheet §9.5, §9.6, §9.8)."""

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.waiting import Expectation
from engine.kits.aio import cancel_and_wait
from engine.model.errors import (
    CallCancelledError,
    DeadlineExceededError,
    EngineError,
    TransientError,
)
from engine.model.ids import new_id
from engine.model.message import DEFAULT_TIMEOUT, FlowMessage
from engine.serving.outgoing import PROTOCOL, Outgoing, cancelling, pushed, replied

_PATIENCE = 1.0
"""Seconds without an answer after which it is looked at whether the task was refused."""


async def push(
    client: Client,
    user_id: str,
    flow_id: str,
    message: FlowMessage,
    *,
    message_id: str | None = None,
    parent_task: str = "",
) -> str:
    """Send `message` to the instance `flow_id` of a user (hex id or `local`); return its key."""
    outgoing = pushed(client.user_id, user_id, flow_id, message, message_id or new_id())
    await post(client, outgoing, parent_task)
    return outgoing.key


async def reply(client: Client, message: FlowMessage) -> None:
    """Send a reply as its `reply_data` asks (§9.8); nothing if nobody wants it."""
    outgoing = replied(client.user_id, message, new_id())
    if outgoing is not None:
        await post(client, outgoing)


async def post(client: Client, outgoing: Outgoing, parent_task: str = "") -> str:
    """Write a message and make the task that brings it; return the task's id, "" without one."""
    await client.update_many(outgoing.entry())
    return await bring(client, outgoing, parent_task)


async def bring(client: Client, outgoing: Outgoing, parent_task: str = "") -> str:
    """Make the task that brings a message already written; return its id, "" without one."""
    task = outgoing.task(client.user_id)
    if task is None:
        return ""
    param, participants = task
    return await client.run_task(PROTOCOL, param, participants, True, parent_task=parent_task)


async def bring_all(
    client: Client, outbox: Iterable[Outgoing], parent_task: str = ""
) -> list[tuple[Outgoing, EngineError]]:
    """Make the tasks of messages already written: to each instance in order, to several at once.

    Returns those that cannot be brought, and why. Raises CoreUnavailableError once all have ended,
    when the core did not answer for one of them.
    """
    targets = defaultdict[tuple[str, str], list[Outgoing]](list)
    for outgoing in outbox:
        if outgoing.user_id:
            targets[outgoing.user_id, outgoing.flow_id].append(outgoing)
    failed: list[tuple[Outgoing, EngineError]] = []

    async def in_order(queue: list[Outgoing]) -> None:
        for outgoing in queue:
            try:
                await bring(client, outgoing, parent_task)
            except TransientError:
                raise
            except EngineError as error:
                failed.append((outgoing, error))

    results = await asyncio.gather(*map(in_order, targets.values()), return_exceptions=True)
    for result in results:
        if result is not None:
            raise result
    return failed


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

    The deadline, `timeout` seconds from now, travels with the message. Raises
    DeadlineExceededError, and AccessDeniedError when the receiver refuses the task. When it is
    cancelled, so is what the receiver does for it.
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
    question = pushed(client.user_id, user_id, flow_id, message, new_id())
    try:
        return FlowMessage.deserialize(await answer_to(client, question, timeout))
    except asyncio.CancelledError:
        client.afterwards(give_up(client, question))
        raise


async def give_up(client: Client, question: Outgoing) -> None:
    """Tell the receiver of `question` that nobody waits for its answer any more."""
    await post(client, cancelling(client.user_id, question))


async def answer_to(
    client: Client, question: Outgoing, timeout: float, parent_task: str = ""
) -> bytes:
    """Send a message that wants its reply in storage, and return the reply as it is stored.

    Raises DeadlineExceededError after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    async with client.expect(keys.push_response(question.key)) as expectation:
        task_id = await post(client, question, parent_task)
        try:
            return await outcome(client, expectation, task_id, deadline - time.monotonic())
        except DeadlineExceededError as error:
            raise DeadlineExceededError(
                f"The flow instance {question.flow_id} did not reply within {timeout:g} s.",
                "See the logs of its worker, and `engine status`.",
            ) from error


async def outcome(client: Client, expectation: Expectation, task_id: str, timeout: float) -> bytes:
    """Return the entry that a task with others brings about.

    Raises AccessDeniedError as soon as one of them refuses the task, DeadlineExceededError after
    `timeout` seconds.
    """
    first = min(_PATIENCE, timeout)
    try:
        return await expectation.value(first)
    except DeadlineExceededError:
        if timeout <= first:
            raise
    waits = [
        asyncio.create_task(expectation.value(timeout - first)),
        asyncio.create_task(_refusal(client, task_id, timeout)),
    ]
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        payload = done.pop().result()
        assert payload is not None
        return payload
    finally:
        await cancel_and_wait(waits)


async def _refusal(client: Client, task_id: str, timeout: float) -> None:
    """Raise AccessDeniedError when somebody refuses the task; else never end."""
    with contextlib.suppress(DeadlineExceededError):
        await client.wait_task(task_id, timeout)
    await asyncio.get_running_loop().create_future()


class Answers:
    """Questions that were sent and the answers to them, by response key. For one event loop.

    Each is watched until its answer is there or its deadline has passed.
    """

    def __init__(self, client: Client, parent_task: str = "") -> None:
        self._client = client
        self._parent_task = parent_task
        self._tasks: dict[str, asyncio.Task[bytes]] = {}
        self._questions: dict[str, Outgoing] = {}
        self._given_up: set[str] = set()

    def ask(self, question: Outgoing, timeout: float) -> None:
        """Send `question` now, in the background; what goes wrong is told by `wait`."""
        asking = answer_to(self._client, question, timeout, self._parent_task)
        task = asyncio.create_task(asking)
        task.add_done_callback(_seen)
        response_key = keys.push_response(question.key)
        self._tasks[response_key] = task
        self._questions[response_key] = replace(question, message=None)

    async def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return an answer within `timeout` seconds; raises DeadlineExceededError.

        It is looked for in storage if the question was not asked here, or not to be answered so
        late. Raises CallCancelledError for a question that was given up.
        """
        deadline = time.monotonic() + timeout
        task = self._tasks.get(response_key)
        if task is not None:
            await asyncio.wait((task,), timeout=timeout)
        if response_key in self._given_up:
            raise CallCancelledError("The question was given up before it was answered.")
        if task is None or (task.done() and _is_overdue(task)):
            left = max(0.0, deadline - time.monotonic())
            payload = await self._client.wait_entry(response_key, left)
        elif task.done():
            payload = task.result()
        else:
            raise DeadlineExceededError(f"There was no answer within {timeout:g} s.")
        return FlowMessage.deserialize(payload)

    def peek(self, response_key: str) -> FlowMessage | None:
        """Return an answer that has come by now, or None."""
        task = self._tasks.get(response_key)
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return FlowMessage.deserialize(task.result())

    def cancel(self, response_key: str) -> None:
        """Give up a question that is not answered, and tell its receiver in the background."""
        task = self._tasks.get(response_key)
        if task is None or task.done():
            return
        self._given_up.add(response_key)
        task.cancel()
        self._client.afterwards(give_up(self._client, self._questions[response_key]))

    def cancel_all(self) -> None:
        """Give up all questions that are not answered."""
        for response_key in self._tasks:
            self.cancel(response_key)

    async def close(self) -> None:
        """Watch for nothing any more."""
        await cancel_and_wait(self._tasks.values())


def _is_overdue(task: "asyncio.Task[bytes]") -> bool:
    return not task.cancelled() and isinstance(task.exception(), DeadlineExceededError)


def _seen(task: "asyncio.Task[bytes]") -> None:
    if not task.cancelled():
        task.exception()  # it may be that nobody ever asks for it
