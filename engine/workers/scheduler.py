"""The coflows scheduler as an operator: for users of cores that do not bring one (§9.9).

What is dispatched when is decided by `engine.colink.mailbox`. The mailboxes are rebuilt from
storage at the start: pushes that came while no scheduler ran are started tasks, and so are the
dispatch tasks that are at work.
"""

import asyncio
import logging
from collections.abc import Iterable

from engine.colink import keys, wire
from engine.colink.client import Client
from engine.colink.mailbox import (
    STORAGE,
    Dispatch,
    Mailboxes,
    Route,
    decode_dispatch,
    decode_push,
    encode_dispatch,
)
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import is_set
from engine.model.errors import AlreadyExistsError, EngineError, UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT
from engine.serving.endpoints import decoded
from engine.serving.messages import PROTOCOL

log = logging.getLogger(__name__)

_PATIENCE = 60.0
_AT_ONCE = 32
"""Pushes taken in at once: one sender that does not deliver must not stop the others."""
_FINISHED = "finished"


async def run_scheduler(client: Client, *, ready: asyncio.Event | None = None) -> None:
    """Schedule the messages of one user until cancelled."""
    scheduler = _Scheduler(client)
    await scheduler.rebuild()
    handlers = {
        f"{PROTOCOL}:initiator": scheduler.send,
        f"{PROTOCOL}:receiver": scheduler.take_in,
    }
    operator = Operator(client, handlers, concurrency=_AT_ONCE, name="scheduler")
    async with asyncio.TaskGroup() as group:
        group.create_task(operator.run(ready))
        group.create_task(scheduler.follow_finished())


class _Scheduler:
    """The mailboxes of one user, and the tasks that fill and empty them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._mailboxes = Mailboxes()

    async def rebuild(self) -> None:
        """Note the dispatch tasks that are at work, whoever created them."""
        payload = await self._client.read(keys.status_list("started"))
        listed = wire.CoLinkInternalTaskIDList.FromString(payload or b"")
        for item in listed.task_ids_with_key_paths:
            task = await self._client.read_task(item.task_id)
            if task is None or "dispatch" not in task.protocol_name:
                continue
            try:
                flow_id, message_keys = decode_dispatch(task.protocol_param)
            except UsageError:
                continue
            self._mailboxes.dispatched(flow_id, message_keys, await self._route(flow_id))

    async def send(self, context: TaskContext) -> None:
        """Initiator: hand the message to each receiver."""
        push = decode_push(context.param)
        payload = await self._client.read(push.message_id)
        if payload is None:
            log.warning("the push task %s names no message of ours", context.task_id)
            return
        for user_id, role in context.participants:
            if role == "receiver":
                await self._client.send_variable(context.task_id, "msg", payload, user_id)

    async def take_in(self, context: TaskContext) -> None:
        """Receiver: get the message, store it, and dispatch it when it is its turn."""
        push = decode_push(context.param)
        sender = context.participants[0][0]
        if not keys.is_push_key(push.message_id):
            log.warning("%s must not push to the key %r", sender, push.message_id)
            return
        if sender != self._client.user_id:
            async with context.slot_released():
                payload = await self._client.recv_variable(
                    context.task_id, "msg", sender, _PATIENCE
                )
            try:
                await self._client.create(push.message_id, payload)
            except AlreadyExistsError:
                log.info("the message %s is here already", push.message_id)
        if push.flow_id != STORAGE:
            route = await self._route(push.flow_id)
            await self._dispatch(self._mailboxes.push(push.flow_id, push.message_id, route))

    async def follow_finished(self) -> None:
        """Dispatch the next message of an instance whenever one of its tasks is finished."""
        latest = keys.status_latest(_FINISHED)
        async for delivery in self._client.changes(latest):
            announced = wire.Task.FromString(delivery.payload)
            task = await self._client.read_task(announced.task_id)
            if task is None or "dispatch" not in task.protocol_name:
                continue
            try:
                flow_id, message_keys = decode_dispatch(task.protocol_param)
            except UsageError:
                continue
            await self._dispatch(self._mailboxes.finished(flow_id, message_keys))

    async def _dispatch(self, dispatches: Iterable[Dispatch]) -> None:
        for dispatch in dispatches:
            try:
                await self._client.run_task(
                    dispatch.dispatch_point,
                    encode_dispatch(dispatch.flow_id, dispatch.message_keys),
                    [(self._client.user_id, "local")],
                    False,
                )
            except EngineError:
                self._mailboxes.returned(dispatch)
                raise

    async def _route(self, flow_id: str) -> Route:
        """Return where an instance's messages go now; the default for one that is not known."""
        metadata = decoded(await self._client.read(keys.instance_metadata(flow_id)))
        if not isinstance(metadata, dict):
            return Route()
        endpoint, owner = str(metadata.get("flow_endpoint")), str(metadata.get("user_id"))
        point_key = keys.flow(endpoint, "default_dispatch_point")
        parallel_key = keys.flow(endpoint, "parallel_dispatch")
        override_key = keys.mount_field(endpoint, owner, flow_id, "dispatch_point_override")
        found = await self._client.read_many([point_key, parallel_key, override_key])
        point = found.get(override_key) or found.get(point_key) or b""
        name = point.decode(errors="replace") or DEFAULT_DISPATCH_POINT
        return Route(name, is_set(found.get(parallel_key)))
