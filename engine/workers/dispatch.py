"""The dispatch worker: takes dispatch tasks and lets flows handle messages (protocol sheet §9.7).

One turn: read message, config and state in one call; build the flow from its registered class; run
it; commit by *one* write of the instance's record; bring what the turn sends; finish the task.
Whatever dies on the way, the task is taken over and the turn finished: from the record it can be
told whether the message is done.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import decode_dispatch
from engine.colink.operator import Operator, TaskContext
from engine.flows.config import Config, merge
from engine.flows.flow import Flow
from engine.flows.turn import fail_turn, run_turn, runs_async
from engine.hooks import Catalog
from engine.kits.aio import cancel_and_wait
from engine.kits.threads import DaemonThreads
from engine.model.errors import DeadlineExceededError, EngineError, NotFoundError, UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT, derived_id
from engine.model.message import FlowMessage
from engine.serving.messages import bring_all
from engine.serving.mounting import Place, Record
from engine.serving.outgoing import Outgoing, replied
from engine.workers.capacity import Share, place_given_up
from engine.workers.turn_port import TurnPort
from engine.workers.turns import (
    Turn,
    check_deadline,
    error_reply,
    prepared,
    received,
    turn_keys,
    unusable,
)

log = logging.getLogger(__name__)

OVERLAP = 64
"""So many async runs of one worker may be under way at once, not counting those that wait."""
_KNOWN = 10_000
"""So many instances' places are remembered."""
_LONG = 3.0
"""Seconds after which a turn looks whether somebody else took it over before it commits."""

Resolve = Callable[[Any], Any]
Outbox = tuple[Outgoing, ...]


def _as_it_is(value: Any) -> Any:
    return value


async def run_dispatch_worker(
    client: Client,
    catalog: Catalog,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    *,
    resolve_secrets: Resolve = _as_it_is,
    ready: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
    name: str = "dispatch",
) -> None:
    """Run flows at one dispatch point until cancelled, or until `stop` is set and all is finished.

    `resolve_secrets` puts values in the place of `{"$env": ...}` in a flow's config. `ready` is set
    once the worker takes tasks.
    """
    with DaemonThreads(f"run-{name}") as threads:
        worker = DispatchWorker(client, catalog, threads, resolve_secrets)
        operator = Operator(client, {f"{dispatch_point}:local": worker.handle}, name=name)
        running = asyncio.create_task(operator.run(ready))
        stopping = asyncio.create_task((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await operator.drain()
            await running
        finally:
            await cancel_and_wait([stopping, running])


class DispatchWorker:
    """Handles dispatch tasks of one user with the flow classes of one catalog.

    A plain `run` holds the worker's one slot, so that several workers share the load. An async one
    gives it up for one of the places of OVERLAP. Both give up what they hold while they wait for
    answers, and once the run is over.
    """

    def __init__(
        self, client: Client, catalog: Catalog, threads: DaemonThreads, resolve_secrets: Resolve
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._threads = threads
        self._resolve = resolve_secrets
        self._places = asyncio.Semaphore(OVERLAP)
        self._known: OrderedDict[str, Place] = OrderedDict()
        self._defaults: dict[str, Config] = {}

    async def handle(self, context: TaskContext) -> None:
        """Handle the messages of one dispatch task, in order (the schedulers send one each)."""
        try:
            flow_id, message_keys = decode_dispatch(context.param)
        except UsageError as error:
            log.warning("the task %s is dropped: %s", context.task_id, error)
            return
        for message_key in message_keys:
            outbox = await self._handle_message(context, flow_id, message_key)
            await bring_all(self._client, outbox, context.task_id)

    async def _handle_message(self, context: TaskContext, flow_id: str, message_key: str) -> Outbox:
        """Let the instance handle the message; return what is written and has to be brought."""
        place, found = await self._read(flow_id, message_key)
        try:
            message = received(message_key, found[message_key])
        except (KeyError, UsageError) as error:
            # Without a message there is nobody to be told.
            log.warning("the message %s to %s cannot be read: %r", message_key, flow_id, error)
            return ()
        try:
            if place is None:
                raise NotFoundError(f"Unknown flow instance {flow_id}!")
            turn = prepared(place, message_key, message, found)
            if message_key in turn.record.done:
                outbox = turn.record.outbox_of(message_key)
                await self._write(outbox)
                return outbox
            check_deadline(message, turn.name)
            share = Share(context.slot_released)
            port = TurnPort(self._client, message_key, share, context.task_id)
            flow = self._build(turn, port)
        except EngineError as error:
            log.warning("the message %s to %s is refused: %s", message_key, flow_id, error)
            return await self._refuse(message_key, message, error, flow_id, place)
        return await self._run(context, flow, turn, port)

    async def _read(
        self, flow_id: str, message_key: str
    ) -> tuple[Place | None, Mapping[str, bytes]]:
        """Read all that a turn needs: in one call once the instance is known to this worker."""
        metadata_key = keys.instance_metadata(flow_id)
        known = self._known.get(flow_id)
        wanted = [message_key, *(turn_keys(known) if known else [metadata_key])]
        found = await self._client.read_many(wanted)
        place = Place.decode(flow_id, found.get(metadata_key), self._client.user_id)
        if place is None:
            self._known.pop(flow_id, None)
            return None, found
        if place != known:
            self._remember(place)
            found |= await self._client.read_many(turn_keys(place))
        return place, found

    def _remember(self, place: Place) -> None:
        self._known[place.flow_id] = place
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)

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

    async def _run(self, context: TaskContext, flow: Flow, turn: Turn, port: TurnPort) -> Outbox:
        """Run the flow and commit the turn."""
        started = time.monotonic()
        try:
            try:
                await self._execute(context, flow, turn, port)
                state = flow.dump_state()
            except (Exception, SystemExit, KeyboardInterrupt, asyncio.CancelledError) as error:
                if _is_cancelled():
                    raise
                log.exception("%s failed on %s", flow.name, turn.message_key)
                state = self._undo(flow, turn, port, error)
            context.slot.release()
            if time.monotonic() - started > _LONG and await self._was_taken_over(turn):
                log.warning("%s was finished by another worker", turn.message_key)
                return ()
            return await self._commit(turn, state, tuple(port.outbox))
        finally:
            await port.close()

    async def _execute(self, context: TaskContext, flow: Flow, turn: Turn, port: TurnPort) -> None:
        if not runs_async(flow):
            await run_turn(flow, turn.message, self._threads)
            return
        async with self._places:
            context.slot.release()
            port.share = Share(lambda: place_given_up(self._places))
            await _within_deadline(flow, turn.message)

    def _undo(self, flow: Flow, turn: Turn, port: TurnPort, error: BaseException) -> Any:
        """Undo the turn, leave only the error reply to be sent, and return the state to store."""
        port.outbox.clear()
        endpoint = turn.place.flow_endpoint
        reply = fail_turn(flow, turn.message, error, turn.record.state, flow_endpoint=endpoint)
        if reply is not None:
            port.reply(reply)
        return flow.dump_state()

    async def _was_taken_over(self, turn: Turn) -> bool:
        """Tell whether the instance's record is not the one any more that the turn began with."""
        if turn.parallel:
            return False
        now = Record.decode(await self._client.read(turn.place.key("state")))
        return now.done != turn.record.done

    async def _commit(self, turn: Turn, state: Any, outbox: Outbox) -> Outbox:
        """Write the turn's record: from here on the message is done. Parallel flows keep none."""
        if turn.parallel:
            await self._write(outbox)
        else:
            record = turn.record.after(turn.message_key, state, outbox)
            await self._write(outbox, {turn.place.key("state"): record.encode()})
        return outbox

    async def _write(self, outbox: Outbox, record: Mapping[str, bytes] | None = None) -> None:
        """Write messages and the record: in one step where the core can.

        Where it cannot, the order counts: what nobody is told of yet, then the record, then replies
        to the own user, which take effect by being written.
        """
        entries: dict[str, bytes] = {}
        for outgoing in outbox:
            if outgoing.user_id:
                entries |= outgoing.entry()
        entries |= record or {}
        for outgoing in outbox:
            if not outgoing.user_id:
                entries |= outgoing.entry()
        await self._client.update_many(entries)

    async def _refuse(
        self,
        message_key: str,
        message: FlowMessage,
        error: EngineError,
        flow_id: str,
        place: Place | None,
    ) -> Outbox:
        """Answer a message that no flow handles. Replies are never answered: it would not end."""
        if message.is_reply:
            return ()
        user_id = self._client.user_id
        reply = error_reply(user_id, message, error, flow_id=flow_id, place=place)
        outgoing = replied(user_id, reply, derived_id(message_key, "refused"))
        outbox = () if outgoing is None else (outgoing,)
        await self._write(outbox)
        return outbox


async def _within_deadline(flow: Flow, message: FlowMessage) -> None:
    """Run an async flow, not longer than anybody waits for its answer."""
    deadline = None if message.is_reply else message.deadline
    left = None if deadline is None else deadline - time.time()
    try:
        async with asyncio.timeout(left) as limit:
            await run_turn(flow, message)
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlineExceededError("The run was not over at the message's deadline.") from error


def _is_cancelled() -> bool:
    """Tell whether it is the turn itself that is cancelled, not something in the flow."""
    current = asyncio.current_task()
    return current is not None and current.cancelling() > 0
