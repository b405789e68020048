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
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import decode_dispatch
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import integer_bytes, integer_value
from engine.flows.failures import failure_data
from engine.hooks import Catalog
from engine.kits.aio import cancel_and_wait
from engine.kits.threads import DaemonThreads
from engine.model.errors import (
    AccessDeniedError,
    CallCancelledError,
    DeadlineExceededError,
    EngineError,
    NotFoundError,
    PluginError,
    UsageError,
)
from engine.model.ids import DEFAULT_DISPATCH_POINT, derived_id
from engine.model.message import FlowMessage
from engine.serving.audit import Audit
from engine.serving.dead_letters import DeadLetter, Reason, letter_id, prune
from engine.serving.endpoints import EndpointRecord
from engine.serving.error_replies import error_reply, received
from engine.serving.messages import bring_all
from engine.serving.mounting import Place, Record
from engine.serving.outgoing import Outgoing, replied
from engine.workers.cancellations import Cancellations
from engine.workers.runs import Resolve, Runs
from engine.workers.turns import (
    Turn,
    answers,
    check_deadline,
    prepared,
    turn_keys,
    unasked,
)

log = logging.getLogger(__name__)

_KNOWN = 10_000
"""So many instances' places are remembered."""
_LONG = 3.0
"""Seconds after which a turn looks whether somebody else took it over before it commits."""
_STARTS = 5
"""So often a message is begun by workers that do not survive it."""
_PRUNED_EVERY = 100

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
    audit: Audit | None = None,
) -> None:
    """Run flows at one dispatch point until cancelled, or until `stop` is set and all is finished.

    `resolve_secrets` puts values in the place of `{"$env": ...}` in a flow's config. `ready` is set
    once the worker takes tasks.
    """
    with DaemonThreads(f"run-{name}") as threads:
        cancellations = Cancellations()
        runs = Runs(client, catalog, threads, resolve_secrets, cancellations)
        worker = DispatchWorker(client, runs, audit or Audit())
        operator = Operator(client, {f"{dispatch_point}:local": worker.handle}, name=name)
        following = asyncio.create_task(cancellations.follow(client))
        running = asyncio.create_task(operator.run(ready))
        stopping = asyncio.create_task((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await operator.drain()
            await running
        finally:
            await cancel_and_wait([stopping, running, following])


class DispatchWorker:
    """Handles dispatch tasks of one user."""

    def __init__(self, client: Client, runs: Runs, audit: Audit) -> None:
        self._client = client
        self._runs = runs
        self._audit = audit
        self._known: OrderedDict[str, Place] = OrderedDict()
        self._parked = 0

    async def handle(self, context: TaskContext) -> None:
        """Handle the messages of one dispatch task, in order (the schedulers send one each)."""
        try:
            flow_id, message_keys = decode_dispatch(context.param)
        except UsageError as error:
            log.warning("the task %s is dropped: %s", context.task_id, error)
            return
        for message_key in message_keys:
            outbox = await self._handle_message(context, flow_id, message_key)
            await self._bring(context, outbox)
            if context.again:
                await self._client.delete_many([keys.engine_starts(message_key)])

    async def _handle_message(self, context: TaskContext, flow_id: str, message_key: str) -> Outbox:
        """Let the instance handle the message; return what is written and has to be brought."""
        place, found = await self._read(flow_id, message_key)
        payload = found.get(message_key, b"")
        try:
            message = received(message_key, payload)
        except UsageError as error:
            # Without a message there is nobody to be told.
            log.warning("the message %s to %s cannot be read: %s", message_key, flow_id, error)
            await self._write(
                (), letter=self._letter(message_key, payload, flow_id, place, error, "unreadable")
            )
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
            await self._check_starts(context, message_key)
            if message.is_reply and not answers(turn, self._client.user_id):
                await self._check_stranger(turn)
            return await self._run(context, turn)
        except EngineError as error:
            log.warning("the message %s to %s is refused: %s", message_key, flow_id, error)
            return await self._refuse(message_key, payload, message, error, flow_id, place)

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

    async def _check_starts(self, context: TaskContext, message_key: str) -> None:
        """Raise PluginError when workers die of a message again and again."""
        if not context.again:
            return
        key = keys.engine_starts(message_key)
        starts = integer_value(await self._client.read(key) or b"")
        if starts >= _STARTS:
            raise PluginError(f"Its worker died {starts} times while it handled this message.")
        await self._client.update(key, integer_bytes(starts + 1))

    async def _check_stranger(self, turn: Turn) -> None:
        """Raise AccessDeniedError when a reply comes from somebody who may not even send."""
        sender = turn.message.user_id or ""
        key = keys.engine_flow(turn.place.flow_endpoint)
        if not EndpointRecord.decode(await self._client.read(key)).may_send(sender):
            error = unasked(turn.message)
            self._audit.refused(self._client.user_id, sender, error, turn.place.flow_endpoint)
            raise error

    async def _run(self, context: TaskContext, turn: Turn) -> Outbox:
        """Run the flow and commit the turn."""
        started = time.monotonic()
        outcome = await self._runs.run(context, turn)
        context.slot.release()
        if time.monotonic() - started > _LONG and await self._was_taken_over(turn):
            log.warning("%s was finished by another worker", turn.message_key)
            return ()
        record: dict[str, bytes] = {}
        if not turn.parallel:
            after = turn.record.after(turn.message_key, outcome.state, outcome.outbox)
            record = {turn.place.key("state"): after.encode()}
        # From here on the message is done. Parallel flows keep no record.
        await self._write(outcome.outbox, record, outcome.letter)
        return outcome.outbox

    async def _was_taken_over(self, turn: Turn) -> bool:
        """Tell whether the instance's record is not the one any more that the turn began with."""
        if turn.parallel:
            return False
        now = Record.decode(await self._client.read(turn.place.key("state")))
        return now.done != turn.record.done

    async def _write(
        self,
        outbox: Outbox,
        record: Mapping[str, bytes] | None = None,
        letter: DeadLetter | None = None,
    ) -> None:
        """Write messages, the record and a dead letter: in one step where the core can.

        Where it cannot, the order counts: what nobody is told of yet, then the record, then replies
        to the own user, which take effect by being written.
        """
        entries: dict[str, bytes] = {}
        if letter is not None:
            entries |= letter.entry()
        for outgoing in outbox:
            if outgoing.user_id:
                entries |= outgoing.entry()
        entries |= record or {}
        for outgoing in outbox:
            if not outgoing.user_id:
                entries |= outgoing.entry()
        await self._client.update_many(entries)
        if letter is not None:
            self._parked += 1
            if self._parked % _PRUNED_EVERY == 0:
                self._client.afterwards(prune(self._client))

    async def _refuse(
        self,
        message_key: str,
        payload: bytes,
        message: FlowMessage,
        error: EngineError,
        flow_id: str,
        place: Place | None,
    ) -> Outbox:
        """Answer a message that no flow handles. Replies are never answered: it would not end.

        It becomes a dead letter when it is the flow that cannot be used, or nobody can be told.
        """
        user_id = self._client.user_id
        outgoing: Outgoing | None = None
        if not message.is_reply:
            reply = error_reply(user_id, message, error, flow_id=flow_id, place=place)
            outgoing = replied(user_id, reply, derived_id(message_key, "refused"))
        outbox = () if outgoing is None else (outgoing,)
        letter: DeadLetter | None = None
        expected = isinstance(error, DeadlineExceededError | CallCancelledError | AccessDeniedError)
        if not expected and (outgoing is None or isinstance(error, PluginError)):
            letter = self._letter(message_key, payload, flow_id, place, error)
        await self._write(outbox, letter=letter)
        return outbox

    def _letter(
        self,
        message_key: str,
        payload: bytes,
        flow_id: str,
        place: Place | None,
        error: EngineError,
        reason: Reason = "refused",
    ) -> DeadLetter:
        endpoint = place.flow_endpoint if place is not None else ""
        return DeadLetter(
            id=letter_id(message_key),
            reason=reason,
            message_key=message_key,
            flow_id=flow_id,
            flow_endpoint=endpoint,
            error=failure_data(
                error,
                flow=endpoint or "dispatch_worker",
                user_id=self._client.user_id,
                flow_endpoint=endpoint,
                flow_id=flow_id,
            ),
            message=payload.decode(errors="replace"),
        )

    # --- bringing ---------------------------------------------------------------------------

    async def _bring(self, context: TaskContext, outbox: Outbox) -> None:
        """Bring what is written. What cannot be brought is answered, or becomes a dead letter."""
        for outgoing, error in await bring_all(self._client, outbox, context.task_id):
            log.warning("%s cannot be brought to %s: %s", outgoing.key, outgoing.user_id, error)
            text = outgoing.message or (await self._client.read(outgoing.key) or b"").decode()
            answer = self._undelivered(outgoing, text, error)
            letter = self._letter(
                outgoing.key, text.encode(), outgoing.flow_id, None, error, "undeliverable"
            )
            if answer is None:
                await self._write((), letter=replace(letter, user_id=outgoing.user_id))
            else:
                await self._write((answer,))
                await bring_all(self._client, (answer,), context.task_id)

    def _undelivered(self, outgoing: Outgoing, text: str, error: EngineError) -> Outgoing | None:
        """Return the error reply to the own flow that sent a message; None if none waits for it."""
        user_id = self._client.user_id
        try:
            message = FlowMessage.deserialize(text.encode())
        except UsageError:
            return None
        if message.is_reply or message.reply_data.get("user_id") != user_id:
            return None
        name = f"{outgoing.user_id}:{outgoing.flow_id}"
        reply = error_reply(user_id, message, error, flow_id=outgoing.flow_id, name=name)
        return replied(user_id, reply, derived_id(outgoing.key, "undelivered"))
