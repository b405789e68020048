"""The coflows scheduler as an operator of our own, for cores that bring none (§9.5, §9.9).

What to dispatch when is decided by `engine.colink.mailbox`. Nothing is stored: a push task is not
finished, and its delivery not acknowledged, before the dispatch task for its message exists. So
after a restart the messages that wait are those of the started push tasks, in their order, and what
is in flight are the user's started dispatch tasks. Events only wake; now and then everything in
flight is looked up again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any
from weakref import WeakValueDictionary

from engine.colink import keys, wire
from engine.colink.client import Client
from engine.colink.mailbox import (
    CANCEL,
    STORAGE,
    Dispatch,
    Mailboxes,
    PushParam,
    Route,
    decode_dispatch,
    decode_push,
    encode_dispatch,
)
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import is_set, json_bytes
from engine.model.errors import (
    AccessDeniedError,
    AlreadyExistsError,
    CoreUnavailableError,
    EngineError,
    UsageError,
)
from engine.model.ids import DEFAULT_DISPATCH_POINT
from engine.serving.admission import (
    Arrival,
    Door,
    cancelled,
    check_cancellation,
    check_message,
    check_reply,
    sent_by,
)
from engine.serving.audit import Audit
from engine.serving.configuration import servers_of
from engine.serving.endpoints import EndpointRecord, decoded
from engine.serving.error_replies import refusal
from engine.serving.messages import post
from engine.serving.mounting import Place
from engine.serving.outgoing import PROTOCOL

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""So many pushes are handled at once; those that wait for their turn do not count."""
_PATIENCE = 60.0
"""Seconds in which a sender has to bring his message."""
_LOOK = 10.0
"""Seconds between two looks at what is in flight."""
_MESSAGE = "msg"
_ROLE = "local"


async def run_scheduler(
    client: Client, *, ready: asyncio.Event | None = None, audit: Audit | None = None
) -> None:
    """Take in pushes and dispatch them to the user's workers, until cancelled."""
    await Scheduler(client, audit or Audit()).run(ready)


class Scheduler:
    """Both roles of `coflows_push` for one user, and the mailboxes of his instances."""

    def __init__(self, client: Client, audit: Audit) -> None:
        self._client = client
        self._audit = audit
        self._mailboxes = Mailboxes()
        self._in_flight: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._dispatched: dict[tuple[str, str], asyncio.Event] = {}
        self._lines: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled."""
        found = await self._client.read_version(keys.status_latest("finished"))
        since = found[0].timestamp + 1 if found is not None else 0
        await self._resume()
        handlers = {"coflows_push:initiator": self._send, "coflows_push:receiver": self._take_in}
        operator = Operator(self._client, handlers, concurrency=_AT_ONCE, name="scheduler")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(since))
            group.create_task(self._look())
            group.create_task(operator.run(ready))

    # --- pushes -------------------------------------------------------------------------------

    async def _send(self, context: TaskContext) -> None:
        """Initiator: give the message to the receivers."""
        push = _push(context)
        payload = await self._client.read(push.message_id) if push is not None else None
        if push is None or payload is None:
            return
        for user_id, role in context.participants:
            if role == "receiver":
                await self._client.send_variable(context.task_id, _MESSAGE, payload, user_id)

    async def _take_in(self, context: TaskContext) -> None:
        """Receiver: let in what the task brings, and see that it is dispatched.

        What one sender sends one instance is let in in the order of the tasks.
        """
        push, sender = _push(context), context.participants[0][0]
        if push is None:
            return
        line = self._lines.setdefault((push.flow_id, sender), asyncio.Lock())
        async with context.slot_released():
            await line.acquire()
        try:
            entered = await self._arrived(context, push, sender)
        finally:
            line.release()
        if entered is not None:
            try:
                async with context.slot_released():
                    await entered.wait()
            finally:
                self._dispatched.pop((push.flow_id, push.message_id), None)

    async def _arrived(
        self, context: TaskContext, push: PushParam, sender: str
    ) -> asyncio.Event | None:
        """Let in, or refuse, what a push brings; return what is set once it is dispatched."""
        payload = await self._brought(context, push, sender)
        if payload is None:
            return None
        arrival = Arrival(self._client.user_id, sender, push.message_id, payload)
        door: Door | None = None
        try:
            if push.flow_id == CANCEL:
                await self._cancel(arrival)
                return None
            if push.flow_id == STORAGE:
                question = await self._client.read(keys.message_of_response(push.message_id))
                await self._store(arrival, check_reply(arrival, question))
                return None
            reply = arrival.is_foreign_reply()
            route, door = await self._look_up(push.flow_id, servers=reply)
            again = self._mailboxes.holds(push.flow_id, push.message_id)
            unfinished = 0 if again else self._mailboxes.unfinished(push.flow_id)
            await self._store(arrival, check_message(arrival, door, unfinished))
        except CoreUnavailableError:
            raise
        except EngineError as error:
            resource = door.flow_endpoint if door is not None else push.flow_id
            self._audit.refused(self._client.user_id, sender, error, resource)
            outgoing = refusal(arrival, push.flow_id, door, error)
            if outgoing is not None:
                await post(self._client, outgoing, context.task_id)
            return None
        return await self._accept(push, route)

    async def _brought(self, context: TaskContext, push: PushParam, sender: str) -> bytes | None:
        """Return the message of a push; None, and a warning, when there is none."""
        if sender == self._client.user_id:
            payload = await self._client.read(push.message_id)
            if payload is None:
                log.warning("%s pushes the absent entry %s", sender, push.message_id)
            return payload
        try:
            async with context.slot_released():
                return await self._client.recv_variable(
                    context.task_id, _MESSAGE, sender, _PATIENCE
                )
        except EngineError as error:
            log.warning("%s does not bring %s: %s", sender, push.message_id, error)
            return None

    async def _store(self, arrival: Arrival, payload: bytes) -> None:
        """Store what somebody else sent; AccessDeniedError when another thing is there already."""
        if arrival.own:
            return
        try:
            await self._client.create(arrival.key, payload)
        except AlreadyExistsError:
            if await self._client.read(arrival.key) != payload:
                raise AccessDeniedError("There is another message of that id.") from None

    async def _accept(self, push: PushParam, route: Route) -> asyncio.Event:
        """Put a stored message into its mailbox; return what is set once its task exists."""
        mark = (push.flow_id, push.message_id)
        dispatched = self._dispatched.setdefault(mark, asyncio.Event())
        if push.message_id in self._mailboxes.in_flight(push.flow_id):
            dispatched.set()
        await self._dispatch(self._mailboxes.push(push.flow_id, push.message_id, route))
        return dispatched

    async def _cancel(self, arrival: Arrival) -> None:
        """Take a message out of its mailbox that its sender gives up, or tell the workers.

        They are told of one that is done, too: its run may wait for a subflow.
        """
        flow_id, message_key = cancelled(arrival)
        check_cancellation(arrival, await self._client.read(message_key))
        if self._mailboxes.withdraw(flow_id, message_key):
            event = self._dispatched.get((flow_id, message_key))
            if event is not None:
                event.set()
        else:
            await self._client.update(keys.ENGINE_CANCELLED, json_bytes(message_key))

    # --- dispatches -----------------------------------------------------------------------------

    async def _dispatch(self, dispatches: Iterable[Dispatch]) -> None:
        for dispatch in dispatches:
            try:
                task_id = await self._client.run_task(
                    dispatch.dispatch_point,
                    encode_dispatch(dispatch.flow_id, dispatch.message_keys),
                    [(self._client.user_id, _ROLE)],
                    False,
                )
            except EngineError as error:
                log.warning("%s cannot be dispatched now: %s", dispatch.message_keys, error)
                self._mailboxes.returned(dispatch)
                continue
            self._in_flight[task_id] = (dispatch.flow_id, dispatch.message_keys)
            for message_key in dispatch.message_keys:
                event = self._dispatched.get((dispatch.flow_id, message_key))
                if event is not None:
                    event.set()

    async def _follow(self, since: int) -> None:
        """Dispatch what waited for a task as soon as it is finished."""
        latest = keys.status_latest("finished")
        async with contextlib.aclosing(self._client.changes(latest, since)) as changes:
            async for delivery in changes:
                await self._finished(wire.Task.FromString(delivery.payload).task_id)

    async def _look(self) -> None:
        """Find out what was missed: finished tasks, and dispatches that failed."""
        while True:
            await asyncio.sleep(_LOOK)
            with contextlib.suppress(CoreUnavailableError):
                for task_id in list(self._in_flight):
                    task = await self._client.read_task(task_id)
                    if task is None or task.status != "started":
                        await self._finished(task_id)
                await self._dispatch(self._mailboxes.due())

    async def _finished(self, task_id: str) -> None:
        flow_id, message_keys = self._in_flight.pop(task_id, ("", ()))
        if not flow_id:
            return
        route = await self._route(flow_id) if self._mailboxes.pending(flow_id) else None
        await self._dispatch(self._mailboxes.finished(flow_id, message_keys, route))

    async def _resume(self) -> None:
        """Take in what there is: dispatch tasks in flight, and the messages that wait for them.

        Those are what started push tasks brought, in the order of these tasks.
        """
        started = await self._started(keys.status_list("started"))
        for task in started:
            if "dispatch" not in task.protocol_name:
                continue
            try:
                flow_id, message_keys = decode_dispatch(task.protocol_param)
            except UsageError:
                continue
            self._mailboxes.dispatched(flow_id, message_keys, await self._route(flow_id))
            self._in_flight[task.task_id] = (flow_id, message_keys)
        for task in started:
            if task.protocol_name == PROTOCOL and task.participants[-1].user_id == self._own_id:
                await self._take_up(task)
        await self._dispatch(self._mailboxes.due())

    async def _take_up(self, task: wire.Task) -> None:
        """Put the message of a push that began before a restart back into its mailbox.

        One that was not stored yet is let in when its task comes again. Nothing is dispatched here:
        first the order of all is to be known.
        """
        try:
            push = decode_push(task.protocol_param)
        except UsageError:
            return
        if push.flow_id in (STORAGE, CANCEL) or not keys.is_push_key(push.message_id):
            return
        payload = await self._client.read(push.message_id)
        sender = task.participants[0].user_id
        if payload is None or not sent_by(payload, sender, self._own_id):
            return
        arrival = Arrival(self._own_id, sender, push.message_id, payload)
        reply = arrival.is_foreign_reply()
        route, door = await self._look_up(push.flow_id, servers=reply)
        try:
            check_message(arrival, door, self._mailboxes.unfinished(push.flow_id))
        except EngineError:
            return
        self._mailboxes.restore(push.flow_id, push.message_id, route)

    async def _started(self, name: str) -> list[wire.Task]:
        """Return the started tasks in a list of the core, in its order."""
        payload = await self._client.read(name)
        if payload is None:
            return []
        listed = wire.CoLinkInternalTaskIDList.FromString(payload).task_ids_with_key_paths
        names = [keys.task(entry.task_id) for entry in listed]
        records = await self._client.read_many(names)
        tasks = [wire.Task.FromString(records[name]) for name in names if name in records]
        return [task for task in tasks if task.status == "started"]

    @property
    def _own_id(self) -> str:
        return self._client.user_id

    async def _route(self, flow_id: str) -> Route:
        """Return where an instance's messages go now; the default for one that is not known."""
        return (await self._look_up(flow_id))[0]

    async def _look_up(self, flow_id: str, *, servers: bool = False) -> tuple[Route, Door | None]:
        """Return where an instance's messages go now, and who may send them; None: unknown."""
        metadata = await self._client.read(keys.instance_metadata(flow_id))
        place = Place.decode(flow_id, metadata, self._client.user_id)
        if place is None:
            return Route(), None
        endpoint = place.flow_endpoint
        parallel, point, singleton = (
            keys.flow(endpoint, name)
            for name in ("parallel_dispatch", "default_dispatch_point", "singleton")
        )
        found, overridden, record = await asyncio.gather(
            self._client.read_many([parallel, point, singleton]),
            self._client.read(place.key("dispatch_point_override")),
            self._client.read(keys.engine_flow(endpoint)),
        )
        name = (overridden or found.get(point, b"")).decode(errors="replace")
        route = Route(name or DEFAULT_DISPATCH_POINT, is_set(found.get(parallel)))
        config: Any = None
        if servers:
            config = decoded(await self._client.read(place.key("config_overrides")))
        one = decoded(found.get(singleton)) is True
        policy = EndpointRecord.decode(record)
        return route, Door(endpoint, place.owner, one, policy, servers_of(config))


def _push(context: TaskContext) -> PushParam | None:
    """Return what a push task asks; None, and a warning, for what must not be done.

    The sender chooses the key that is written at the receiver: only message keys are allowed.
    """
    try:
        push = decode_push(context.param)
    except UsageError as error:
        log.warning("the push task %s is dropped: %s", context.task_id, error)
        return None
    if not keys.is_push_key(push.message_id):
        log.warning("the push task %s names the key %r", context.task_id, push.message_id)
        return None
    return push
