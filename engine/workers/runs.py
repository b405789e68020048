"""Running a flow on one message: as often as its endpoint says, within the message's deadline.

Nothing is written here. What a run sends is collected, and an attempt that fails leaves no trace:
the state is as before, and nothing of what it wanted to send is sent.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.operator import TaskContext
from engine.flows.config import Config, merge
from engine.flows.flow import Flow
from engine.flows.turn import describe, fail_turn, run_turn, runs_async
from engine.hooks import Catalog
from engine.kits.backoff import Backoff
from engine.kits.threads import DaemonThreads
from engine.model.errors import BusyError, CallCancelledError, DeadlineExceededError
from engine.model.message import FlowMessage
from engine.serving.dead_letters import DeadLetter, letter_id, trace
from engine.serving.endpoints import EndpointRecord
from engine.serving.outgoing import Outgoing
from engine.workers.cancellations import Cancellations, Running
from engine.workers.capacity import Share, place_given_up
from engine.workers.turn_port import TurnPort
from engine.workers.turns import Turn, check_deadline, unusable

log = logging.getLogger(__name__)

OVERLAP = 64
"""So many async runs of one worker may be under way at once, not counting those that wait."""
_LONGEST_WAIT = 60.0
"""Seconds between two attempts at most."""

Resolve = Callable[[Any], Any]


@dataclass(frozen=True)
class Outcome:
    """What a turn comes to: the state to store, what to send, and the letter if it failed."""

    state: Any
    outbox: tuple[Outgoing, ...]
    letter: DeadLetter | None = None


class Runs:
    """Runs flows of one user with the classes of one catalog.

    A plain `run` holds the worker's one slot, so that several workers share the load. An async one
    gives it up for one of the places of OVERLAP. Both give up what they hold while they wait for
    answers or for the next attempt, and once the run is over.
    """

    def __init__(
        self,
        client: Client,
        catalog: Catalog,
        threads: DaemonThreads,
        resolve_secrets: Resolve,
        cancellations: Cancellations,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._threads = threads
        self._resolve = resolve_secrets
        self._cancellations = cancellations
        self._places = asyncio.Semaphore(OVERLAP)
        self._defaults: dict[str, Config] = {}

    async def run(self, context: TaskContext, turn: Turn) -> Outcome:
        """Let the flow handle the message. Raises EngineError when there is no flow to run."""
        with self._cancellations.running(turn.message_key) as running:
            attempt = 1
            while True:
                result = await self._attempt(context, turn, running, attempt)
                if isinstance(result, Outcome):
                    return result
                async with context.slot_released():
                    await asyncio.sleep(result)
                attempt += 1

    async def _attempt(
        self, context: TaskContext, turn: Turn, running: Running, attempt: int
    ) -> Outcome | float:
        """Run the flow once; return what the turn comes to, or the seconds to the next attempt."""
        share = Share(context.slot_released)
        port = TurnPort(self._client, turn.message_key, share, context.task_id, attempt)
        flow = self._build(turn, port)
        begun = False
        try:
            self._check_caller(flow, turn.message, running)
            begun = True
            await self._execute(context, flow, turn, port, running)
            return Outcome(flow.dump_state(), tuple(port.outbox))
        except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
            port.give_up()
            if _is_cancelled():
                raise
            log.exception("%s failed on %s, attempt %d", flow.name, turn.message_key, attempt)
            if begun and not running.given_up:
                wait = await self._wait(flow, turn, error, attempt)
                if wait is not None:
                    return wait
            outcome = _undone(flow, turn, port, error)
            if not begun or isinstance(error, CallCancelledError):
                return outcome
            return Outcome(outcome.state, outcome.outbox, _letter(flow, turn, error, attempt))
        finally:
            await port.close()

    def _build(self, turn: Turn, port: TurnPort) -> Flow:
        """Return the flow with its config and state; whatever its class raises is an EngineError.

        Only classes that plugins registered are ever built; what the config says of classes is
        data.
        """
        flow_class: Any = self._catalog.flow_class(turn.flow_class_name)
        try:
            if turn.flow_class_name not in self._defaults:
                self._defaults[turn.flow_class_name] = flow_class.get_config()
            config = merge(self._defaults[turn.flow_class_name], turn.config)
            flow: Flow = flow_class.instantiate_from_config(self._resolve(config), port)
            flow.load_state(turn.record.state)
        except Exception as error:
            raise unusable(turn.flow_class_name, error) from error
        flow.keeps_state = not turn.parallel
        return flow

    def _check_caller(self, flow: Flow, message: FlowMessage, running: Running) -> None:
        """Raise CallCancelledError or DeadlineExceededError when nobody waits for the outcome.

        For a reply that is who began the run: a composite does not go on for nobody.
        """
        running.check()
        caller = flow.caller_of(message)
        if caller is None:
            return
        check_deadline(caller, flow.name)
        if self._cancellations.is_given_up(caller):
            raise CallCancelledError("The caller has given the call up.")

    async def _execute(
        self, context: TaskContext, flow: Flow, turn: Turn, port: TurnPort, running: Running
    ) -> None:
        if not runs_async(flow):
            # A thread cannot be ended; but what it asks of others can.
            running.react = port.give_up
            await run_turn(flow, turn.message, self._threads)
            return
        async with self._places:
            context.slot.release()
            port.share = Share(lambda: place_given_up(self._places))
            await _within_deadline(flow, turn.message, running)

    async def _wait(
        self, flow: Flow, turn: Turn, error: BaseException, attempt: int
    ) -> float | None:
        """Return the seconds until the next attempt; None when there is none.

        A subflow's error reply is the same at each attempt, so it is not tried again.
        """
        if turn.message.is_reply and turn.message.failed:
            return None
        key = keys.engine_flow(turn.place.flow_endpoint)
        retries = EndpointRecord.decode(await self._client.read(key)).retries
        if attempt >= retries.attempts:
            return None
        wait = Backoff(first=retries.backoff, limit=_LONGEST_WAIT).delay(attempt)
        if isinstance(error, BusyError):
            wait = max(wait, min(error.retry_after, _LONGEST_WAIT))
        caller = flow.caller_of(turn.message)
        deadline = None if caller is None else caller.deadline
        return None if deadline is not None and time.time() + wait >= deadline else wait


def _undone(flow: Flow, turn: Turn, port: TurnPort, error: BaseException) -> Outcome:
    """Undo the turn, leaving only the error reply to be sent."""
    port.outbox.clear()
    endpoint = turn.place.flow_endpoint
    reply = fail_turn(flow, turn.message, error, turn.record.state, flow_endpoint=endpoint)
    if reply is not None:
        port.reply(reply)
    return Outcome(flow.dump_state(), tuple(port.outbox))


def _letter(flow: Flow, turn: Turn, error: BaseException, attempts: int) -> DeadLetter:
    endpoint = turn.place.flow_endpoint
    return DeadLetter(
        id=letter_id(turn.message_key),
        reason="failed",
        message_key=turn.message_key,
        flow_id=turn.place.flow_id,
        flow_endpoint=endpoint,
        error=describe(flow, error, endpoint),
        attempts=attempts,
        message=turn.text,
        traceback=trace(error),
    )


async def _within_deadline(flow: Flow, message: FlowMessage, running: Running) -> None:
    """Run an async flow, not longer than anybody waits for its answer."""
    caller = flow.caller_of(message)
    deadline = None if caller is None else caller.deadline
    left = None if deadline is None else deadline - time.time()
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(left) as limit:
            running.react = lambda: limit.reschedule(loop.time())
            await run_turn(flow, message)
    except TimeoutError as error:
        if not limit.expired():
            raise
        running.check()
        raise DeadlineExceededError("The run was not over at the message's deadline.") from error


def _is_cancelled() -> bool:
    """Tell whether it is the turn itself that is cancelled, not something in the flow."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
