"""The dispatch worker: takes dispatch tasks and lets flows handle messages (protocol sheet §9.7).

One turn: read message, config and state in one call; build the flow from its registered class; run
it; commit by *one* write of the instance's record; send what the turn collected; finish the task.
Whatever dies on the way, the task is taken over and the turn finished: from the record it can be
told whether the message is done.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import decode_dispatch
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import is_set, json_bytes
from engine.flows.config import merge
from engine.flows.flow import Flow
from engine.flows.turn import fail_turn, run_turn, runs_async
from engine.hooks import Catalog
from engine.model.errors import DeadlineExceededError, EngineError, NotFoundError, UsageError
from engine.model.ids import DEFAULT_DISPATCH_POINT, derived_id
from engine.model.message import FlowMessage
from engine.serving.endpoints import client_id, decoded
from engine.workers.turns import Outgoing, Record, TurnPort, is_done, outbox_of, reply_path

log = logging.getLogger(__name__)

OVERLAP = 16
"""So many async runs may overlap in one worker."""

Resolve = Callable[[Any], Any]


async def run_dispatch_worker(
    client: Client,
    catalog: Catalog,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    *,
    resolve_secrets: Resolve = lambda value: value,
    ready: asyncio.Event | None = None,
    stop: asyncio.Event | None = None,
    name: str = "dispatch",
) -> None:
    """Run flows at one dispatch point until cancelled, or until `stop` is set and all is finished.

    `resolve_secrets` puts values in the place of `{"$env": ...}` in a flow's config. `ready` is set
    once the worker takes tasks.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="run") as executor:
        worker = DispatchWorker(client, catalog, executor, resolve_secrets)
        operator = Operator(client, {f"{dispatch_point}:local": worker.handle}, name=name)
        running = asyncio.create_task(operator.run(ready))
        stopping = asyncio.create_task((stop or asyncio.Event()).wait())
        try:
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await operator.drain()
            await running
        finally:
            stopping.cancel()
            running.cancel()


@dataclass(frozen=True)
class _Instance:
    """Where an instance's entries stand. Does not change while the instance lives."""

    flow_id: str
    flow_endpoint: str
    owner: str

    def entry(self, field: str) -> str:
        return keys.mount_field(self.flow_endpoint, self.owner, self.flow_id, field)


@dataclass(frozen=True)
class _Turn:
    """All that one turn needs, as read from storage."""

    instance: _Instance
    message_key: str
    message: FlowMessage
    record: Record
    parallel: bool
    flow_class_name: str
    config: Mapping[str, Any]


class DispatchWorker:
    """Handles dispatch tasks of one user with the flow classes of one catalog."""

    def __init__(
        self,
        client: Client,
        catalog: Catalog,
        executor: ThreadPoolExecutor,
        resolve_secrets: Resolve,
    ) -> None:
        self._client = client
        self._catalog = catalog
        self._executor = executor
        self._resolve = resolve_secrets
        self._overlap = asyncio.Semaphore(OVERLAP)
        self._instances: dict[str, _Instance] = {}

    async def handle(self, context: TaskContext) -> None:
        """Handle the messages of one dispatch task, in order."""
        flow_id, message_keys = decode_dispatch(context.param)
        for message_key in message_keys:
            await self._handle_message(context, flow_id, message_key)

    async def _handle_message(self, context: TaskContext, flow_id: str, message_key: str) -> None:
        found = await self._read(flow_id, message_key)
        payload = found.get(message_key)
        if payload is None:
            log.warning("message %s of instance %s is not there", message_key, flow_id)
            return
        try:
            message = FlowMessage.deserialize(payload)
        except UsageError as error:
            log.warning("%s is refused: %s", message_key, error)
            return
        message.reply_data = dict(reply_path(message, message_key))
        try:
            turn = self._turn(flow_id, message_key, message, found)
        except EngineError as error:
            # The reply_data of a reply is our own: answering one would come back to us, for ever.
            if not message.is_reply:
                reply = _error_reply(self._client.user_id, message, message_key, error)
                await self._send([reply])
            return
        if is_done(turn.record, message_key):
            await self._send(outbox_of(turn.record, message_key))
            return
        outbox = await self._run(context, turn)
        context.slot.release()
        await self._send(outbox)

    async def _read(self, flow_id: str, message_key: str) -> dict[str, bytes]:
        """Read all that a turn needs: in one call once the instance is known to this worker."""
        metadata_key = keys.instance_metadata(flow_id)
        instance = self._instances.get(flow_id)
        if instance is None:
            found = await self._client.read_many([metadata_key, message_key])
            instance = self._known(flow_id, found.get(metadata_key))
            if instance is None:
                return found
            return found | await self._client.read_many(_entries(instance))
        return await self._client.read_many([metadata_key, message_key, *_entries(instance)])

    def _known(self, flow_id: str, metadata: bytes | None) -> _Instance | None:
        value = decoded(metadata)
        if not isinstance(value, dict):
            self._instances.pop(flow_id, None)
            return None
        owner = client_id(str(value.get("user_id")), self._client.user_id)
        instance = _Instance(flow_id, str(value.get("flow_endpoint")), owner)
        self._instances[flow_id] = instance
        return instance

    def _turn(
        self, flow_id: str, message_key: str, message: FlowMessage, found: Mapping[str, bytes]
    ) -> _Turn:
        """Put together what was read; NotFoundError when there is no such instance."""
        instance = self._known(flow_id, found.get(keys.instance_metadata(flow_id)))
        if instance is None:
            raise NotFoundError(f"Unknown flow instance {flow_id}!")
        config = decoded(found.get(instance.entry("config_overrides")))
        class_name = decoded(found.get(keys.flow(instance.flow_endpoint, "flow_class_name")))
        if not isinstance(config, dict) or not isinstance(class_name, str):
            raise NotFoundError(f"The flow instance {flow_id} has no config or no flow class.")
        late = message.deadline is not None and message.deadline < time.time()
        if late and not message.is_reply:
            raise DeadlineExceededError(
                f"{config.get('name', instance.flow_endpoint)} got the message after its deadline."
            )
        return _Turn(
            instance=instance,
            message_key=message_key,
            message=message,
            record=Record.decode(found.get(instance.entry("state"))),
            parallel=is_set(found.get(keys.flow(instance.flow_endpoint, "parallel_dispatch"))),
            flow_class_name=class_name,
            config=config,
        )

    async def _run(self, context: TaskContext, turn: _Turn) -> tuple[Outgoing, ...]:
        """Run the flow and commit the turn; return what is to be sent."""
        port = TurnPort(self._client, turn.message_key, asyncio.get_running_loop())
        try:
            flow = self._build(turn, port)
        except Exception as error:
            log.exception("instance %s cannot be built", turn.instance.flow_id)
            user_id = self._client.user_id
            reply = _error_reply(user_id, turn.message, turn.message_key, error, turn)
            return await self._commit(turn, turn.record.state, (reply,))
        try:
            if runs_async(flow):
                context.slot.release()
                async with self._overlap:
                    await run_turn(flow, turn.message)
            else:
                await run_turn(flow, turn.message, self._executor)
            state = flow.dump_state()
        except Exception as error:
            log.exception("%s failed on %s", flow.name, turn.message_key)
            state = self._fail(flow, turn, port, error)
        return await self._commit(turn, state, tuple(port.outbox))

    def _build(self, turn: _Turn, port: TurnPort) -> Flow:
        flow_class: Any = self._catalog.flow_class(turn.flow_class_name)
        config = self._resolve(merge(flow_class.get_config(), turn.config))
        flow: Flow = flow_class.instantiate_from_config(config, port)
        flow.load_state(turn.record.state)
        flow.keeps_state = not turn.parallel
        return flow

    def _fail(self, flow: Flow, turn: _Turn, port: TurnPort, error: BaseException) -> Any:
        """Undo the turn, leave only the error reply to be sent, and return the state to store."""
        port.outbox.clear()
        endpoint = turn.instance.flow_endpoint
        reply = fail_turn(flow, turn.message, error, turn.record.state, flow_endpoint=endpoint)
        if reply is not None:
            port.reply(reply)
        return flow.dump_state()

    async def _commit(
        self, turn: _Turn, state: Any, outbox: tuple[Outgoing, ...]
    ) -> tuple[Outgoing, ...]:
        """Write the turn's record: from here on the message is done. Parallel flows keep none."""
        if not turn.parallel:
            record = turn.record.after(turn.message_key, state, outbox)
            await self._client.update(turn.instance.entry("state"), json_bytes(record.to_json()))
        return outbox

    async def _send(self, outbox: Any) -> None:
        await asyncio.gather(*(item.send(self._client) for item in outbox))


def _entries(instance: _Instance) -> list[str]:
    endpoint = instance.flow_endpoint
    return [
        instance.entry("config_overrides"),
        instance.entry("state"),
        keys.flow(endpoint, "parallel_dispatch"),
        keys.flow(endpoint, "flow_class_name"),
    ]


def _error_reply(
    user_id: str,
    message: FlowMessage,
    message_key: str,
    error: BaseException,
    turn: _Turn | None = None,
) -> Outgoing:
    """Return the reply that a message could not be handled by any flow."""
    name = str(turn.config.get("name", "")) if turn else f"{user_id}:dispatch_worker"
    known = isinstance(error, EngineError)
    text = str(error) if known else f"{type(error).__name__}: {error}"
    reply = FlowMessage(
        data={
            "error": f"{name}: {text}" if turn else text,
            "error_type": type(error).__name__,
            "flow": name,
            "user_id": user_id,
            "flow_endpoint": turn.instance.flow_endpoint if turn else "",
            "flow_id": turn.instance.flow_id if turn else "",
            "where": "",
        },
        src_flow=name,
        dst_flow=message.src_flow,
        reply_data={**message.reply_data, "status": "error"},
        input_message_id=message.input_message_id,
        is_reply=True,
        user_id=user_id,
        message_id=derived_id(message_key, "error"),
    )
    return Outgoing(reply.message_id, reply.to_dict())
