"""The coflows scheduler as an operator of our own, for cores that bring none (§9.5, §9.9).

What to dispatch when is decided by `engine.colink.mailbox`. Nothing is stored: a push task is not
finished, and its delivery not acknowledged, before the dispatch task for its message exists. So
after a restart the messages that wait are delivered anew, and what is in flight are the user's
started dispatch tasks. Events only wake; now and then everything in flight is looked up again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable

from engine.colink import keys, wire
from engine.colink.client import Client
from engine.colink.mailbox import (
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
from engine.colink.payloads import is_set
from engine.model.errors import AlreadyExistsError, CoreUnavailableError, EngineError, UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT
from engine.serving.endpoints import client_id, decoded

log = logging.getLogger(__name__)

_AT_ONCE = 64
"""So many pushes are handled at once; those that wait for their turn do not count."""
_PATIENCE = 60.0
"""Seconds in which a sender has to bring his message."""
_LOOK = 10.0
"""Seconds between two looks at what is in flight."""
_MESSAGE = "msg"
_ROLE = "local"


async def run_scheduler(client: Client, *, ready: asyncio.Event | None = None) -> None:
    """Take in pushes and dispatch them to the user's workers, until cancelled."""
    await Scheduler(client).run(ready)


class Scheduler:
    """Both roles of `coflows_push` for one user, and the mailboxes of his instances."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._mailboxes = Mailboxes()
        self._in_flight: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._dispatched: dict[tuple[str, str], asyncio.Event] = {}

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
        """Receiver: store the message that the task brings, and see that it is dispatched."""
        push, sender = _push(context), context.participants[0][0]
        if push is None:
            return
        if sender != self._client.user_id:
            try:
                async with context.slot_released():
                    payload = await self._client.recv_variable(
                        context.task_id, _MESSAGE, sender, _PATIENCE
                    )
            except EngineError as error:
                log.warning("%s does not bring %s: %s", sender, push.message_id, error)
                return
            with contextlib.suppress(AlreadyExistsError):
                await self._client.create(push.message_id, payload)
        if push.flow_id != STORAGE:
            await self._accept(context, push)

    async def _accept(self, context: TaskContext, push: PushParam) -> None:
        """Return once the message's dispatch task exists."""
        route = await self._route(push.flow_id)
        mark = (push.flow_id, push.message_id)
        dispatched = self._dispatched.setdefault(mark, asyncio.Event())
        if push.message_id in self._mailboxes.in_flight(push.flow_id):
            dispatched.set()
        await self._dispatch(self._mailboxes.push(push.flow_id, push.message_id, route))
        try:
            async with context.slot_released():
                await dispatched.wait()
        finally:
            self._dispatched.pop(mark, None)

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
        """Take in what is in flight: the started dispatch tasks."""
        started = await self._client.read(keys.status_list("started"))
        if started is None:
            return
        listed = wire.CoLinkInternalTaskIDList.FromString(started).task_ids_with_key_paths
        records = await self._client.read_many(keys.task(entry.task_id) for entry in listed)
        for payload in records.values():
            task = wire.Task.FromString(payload)
            if "dispatch" not in task.protocol_name or task.status != "started":
                continue
            try:
                flow_id, message_keys = decode_dispatch(task.protocol_param)
            except UsageError:
                continue
            self._mailboxes.dispatched(flow_id, message_keys, await self._route(flow_id))
            self._in_flight[task.task_id] = (flow_id, message_keys)

    async def _route(self, flow_id: str) -> Route:
        """Return where an instance's messages go now; the default for one that is not known."""
        metadata = decoded(await self._client.read(keys.instance_metadata(flow_id)))
        if not isinstance(metadata, dict):
            return Route()
        endpoint = str(metadata.get("flow_endpoint"))
        owner = client_id(str(metadata.get("user_id")), self._client.user_id)
        parallel = keys.flow(endpoint, "parallel_dispatch")
        point = keys.flow(endpoint, "default_dispatch_point")
        override = keys.mount_field(endpoint, owner, flow_id, "dispatch_point_override")
        found, overridden = await asyncio.gather(
            self._client.read_many([parallel, point]), self._client.read(override)
        )
        name = (overridden or found.get(point, b"")).decode(errors="replace")
        return Route(name or DEFAULT_DISPATCH_POINT, is_set(found.get(parallel)))


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
