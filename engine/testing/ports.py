"""Ports that live in memory: run flows in a test with no core, no worker and no manifest."""

import asyncio
import os
import threading
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from engine.flows import AtomicFlow, Flow, FlowMessage, proxy
from engine.flows.config import merge
from engine.flows.turn import fail_turn, run_turn
from engine.kits.aio import Portal
from engine.model.errors import DeadlineExceededError, UsageError
from engine.model.ids import LOCAL, new_id
from engine.model.secrets import resolve

USER_ID = "02" + "0" * 64

_outbox: ContextVar[list[Callable[[], None]] | None] = ContextVar("outbox", default=None)


def response_key(message_key: str) -> str:
    """Return where the answer to the message at `message_key` is put (protocol sheet §9.8)."""
    return message_key.rpartition(":")[0] + ":response"


@dataclass
class RecordingPort:
    """Notes what a flow sends and delivers nothing: a test decides what happens next.

    `pushed` and `asked` (messages with a future) hold `(user_id, flow_id, message)`; `replies` the
    replies. `answers` maps response keys to answers that `wait` and `try_read` shall find;
    `cancelled` has the response keys of questions that were given up.
    """

    user_id: str = USER_ID
    pushed: list[tuple[str, str, FlowMessage]] = field(default_factory=list)
    asked: list[tuple[str, str, FlowMessage]] = field(default_factory=list)
    replies: list[FlowMessage] = field(default_factory=list)
    answers: dict[str, FlowMessage] = field(default_factory=dict)
    cancelled: list[str] = field(default_factory=list)

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Note the message."""
        self.pushed.append((user_id, flow_id, _over_the_wire(message)))
        return f"push_tasks:{message.message_id}:msg"

    def reply(self, message: FlowMessage) -> None:
        """Note the reply."""
        self.replies.append(_over_the_wire(message))

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Note the message; return the key that the test can put an answer under."""
        self.asked.append((user_id, flow_id, _over_the_wire(message)))
        return response_key(f"push_tasks:{message.message_id}:msg")

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return the answer from `answers`; DeadlineExceededError at once when there is none."""
        message = self.try_read(response_key)
        if message is None:
            raise DeadlineExceededError(f"No answer at {response_key} in {timeout:g} s.")
        return message

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Do the same as `wait`."""
        return self.wait(response_key, timeout)

    def cancel(self, response_key: str) -> None:
        """Note that the question was given up."""
        self.cancelled.append(response_key)

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return the answer from `answers`, or None."""
        message = self.answers.get(response_key)
        return None if message is None else _over_the_wire(message)


class _Instance:
    """A mounted flow; its lock makes it handle one message at a time, in the order they came."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.lock = asyncio.Lock()


class LocalPort:
    """A world in memory: mounts flows, delivers what they send, and runs their turns.

    As with the engine, messages travel as JSON, each instance handles one at a time, its state is
    encoded after each turn and decoded before the next, a plain `run` has a thread of its own, and
    a flow that raises is answered with an error reply. Use it in a `with` block.
    """

    def __init__(self, user_id: str = USER_ID) -> None:
        self.user_id = user_id
        self._portal = Portal("local-port")
        self._instances: dict[str, _Instance] = {}
        self._answers: dict[str, FlowMessage] = {}
        self._changed = threading.Condition()
        self._turns: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._portal.close()

    def mount(
        self,
        flow_class: type[Flow],
        subflows: Mapping[str, AtomicFlow] | None = None,
        **overrides: Any,
    ) -> AtomicFlow:
        """Make an instance of `flow_class` and return a proxy of it.

        `subflows` maps subflow keys to proxies that `mount` returned; `overrides` go over the
        class's defaults.
        """
        flow_id = new_id()
        wiring = {
            key: {"user_id": LOCAL, "flow_id": subflow.get_instance_id()}
            for key, subflow in (subflows or {}).items()
        }
        wired = merge({"subflows_config": wiring} if wiring else {}, overrides)
        defaults = {"name": flow_class.__name__, "description": ""}
        config = {**defaults, **flow_class.get_config(**wired), "flow_id": flow_id}
        flow = flow_class.instantiate_from_config(resolve(config, os.environ), self)
        self._instances[flow_id] = _Instance(flow)
        return proxy(flow_class.__name__, flow_id, self)

    def ask(
        self, flow: AtomicFlow, data: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Send `data` to the instance that `flow` stands for and return the answer's data.

        Raises FlowFailedError for an error reply, DeadlineExceededError when none comes.
        """
        return flow.get_reply_future(flow.package_input_message(data), timeout).get_data()

    def state_of(self, flow: AtomicFlow) -> dict[str, Any]:
        """Return the state of the instance that `flow` stands for."""
        return self._instances[flow.get_instance_id()].flow.get_flow_state()

    # --- the port ---------------------------------------------------------------------------

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Deliver a message to the instance `flow_id`; inside a turn, once that has succeeded.

        Raises UsageError when the instance is another user's.
        """
        key, deliver = self._delivery(user_id, flow_id, message)
        _after_the_turn(deliver)
        return key

    def reply(self, message: FlowMessage) -> None:
        """Deliver a reply as its `reply_data` says; inside a turn, once that has succeeded."""
        mode = message.reply_data.get("mode")
        if mode == "push":
            self.push(message.reply_data["user_id"], message.reply_data["flow_id"], message)
        elif mode == "storage":
            answer = _over_the_wire(message)
            _after_the_turn(lambda: self._answer(answer))

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Deliver a message at once and return the key of its answer."""
        key, deliver = self._delivery(user_id, flow_id, message)
        deliver()
        return response_key(key)

    def _delivery(
        self, user_id: str, flow_id: str, message: FlowMessage
    ) -> tuple[str, Callable[[], None]]:
        if user_id not in (LOCAL, self.user_id):
            raise UsageError(f"There is no user {user_id} in this world.")
        key = f"push_tasks:{new_id()}:msg"
        delivered = _over_the_wire(message)
        if not delivered.is_reply:
            delivered.reply_data["input_msg_path"] = key

        def deliver() -> None:
            self._portal.loop.call_soon_threadsafe(self._start_turn, flow_id, delivered)

        return key, deliver

    def _answer(self, message: FlowMessage) -> None:
        with self._changed:
            self._answers[response_key(message.reply_data["input_msg_path"])] = message
            self._changed.notify_all()

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return the answer, waiting at most `timeout` seconds; DeadlineExceededError."""
        with self._changed:
            self._changed.wait_for(lambda: response_key in self._answers, timeout)
        message = self.try_read(response_key)
        if message is None:
            raise DeadlineExceededError(f"No answer came in {timeout:g} s.")
        return message

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Do the same as `wait` without blocking the event loop."""
        return await asyncio.to_thread(self.wait, response_key, timeout)

    def cancel(self, response_key: str) -> None:
        """Give up nothing: what was asked is under way at once, and its answer is not looked at."""

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return the answer if it is there, else None."""
        with self._changed:
            message = self._answers.get(response_key)
        return None if message is None else _over_the_wire(message)

    # --- turns ------------------------------------------------------------------------------

    def _start_turn(self, flow_id: str, message: FlowMessage) -> None:
        turn = asyncio.get_running_loop().create_task(self._turn(flow_id, message))
        self._turns.add(turn)
        turn.add_done_callback(self._turns.discard)

    async def _turn(self, flow_id: str, message: FlowMessage) -> None:
        instance = self._instances.get(flow_id)
        if instance is None:
            if not message.is_reply:
                self.reply(_unknown_instance(flow_id, message, self.user_id))
            return
        async with instance.lock:
            flow = instance.flow
            state = flow.dump_state()
            outbox: list[Callable[[], None]] = []
            token = _outbox.set(outbox)
            try:
                await run_turn(flow, message)
                flow.load_state(flow.dump_state())
            except Exception as error:  # whatever a flow raises ends in a reply
                outbox.clear()
                answer = fail_turn(flow, message, error, state)
                if answer is not None:
                    self.reply(answer)
            _outbox.reset(token)
        for deliver in outbox:
            deliver()


def _after_the_turn(deliver: Callable[[], None]) -> None:
    outbox = _outbox.get()
    if outbox is None:
        deliver()
    else:
        outbox.append(deliver)


def _unknown_instance(flow_id: str, message: FlowMessage, user_id: str) -> FlowMessage:
    return FlowMessage(
        data={"error": f"There is no instance {flow_id}."},
        src_flow="world",
        dst_flow=message.src_flow,
        reply_data={**message.reply_data, "status": "error"},
        input_message_id=message.input_message_id,
        is_reply=True,
        user_id=user_id,
    )


def _over_the_wire(message: FlowMessage) -> FlowMessage:
    return FlowMessage.deserialize(message.serialize())
