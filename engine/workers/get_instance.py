"""The get_instance worker: both roles of the protocol `coflows_get_instances` (§9.4).

It runs no flow code; of a flow class it needs the default config only.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import decode_get_instances
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import json_bytes
from engine.serving import instances
from engine.serving.configuration import FlowClasses
from engine.serving.endpoints import decoded


async def run_get_instance_worker(
    client: Client,
    catalog: FlowClasses,
    *,
    concurrency: int = 1,
    ready: asyncio.Event | None = None,
) -> None:
    """Serve requests for instances, `concurrency` at once, until cancelled.

    A request that only waits for other users does not count, so requests that lead back to a user
    who is at work on one of them do not block each other.
    """

    async def answer(context: TaskContext) -> None:
        await _answer(context, catalog)

    handlers = {
        f"{instances.PROTOCOL}:initiator": _distribute,
        f"{instances.PROTOCOL}:receiver": answer,
    }
    operator = Operator(client, handlers, concurrency=concurrency, name="get_instance")
    await operator.run(ready)


async def _distribute(context: TaskContext) -> None:
    """Initiator: hand each user his calls, and gather the results in one entry."""
    client = context.client
    request_id = decode_get_instances(context.param)
    calls = decoded(await client.read(keys.get_instance_calls(request_id)))
    if not isinstance(calls, dict):
        return
    receivers = [user_id for user_id, role in context.participants if role == "receiver"]
    deadline = time.monotonic() + instances.TIMEOUT

    async def one(user_id: str) -> Mapping[str, Any]:
        asked = json_bytes(calls.get(user_id, []))
        await client.send_variable(context.task_id, instances.CALLS_VARIABLE, asked, user_id)
        payload = await client.recv_variable(
            context.task_id,
            instances.RESULTS_VARIABLE,
            user_id,
            max(0.0, deadline - time.monotonic()),
        )
        found = decoded(payload)
        return found if isinstance(found, dict) else {}

    async with context.slot_released():
        answers = await asyncio.gather(*(one(user_id) for user_id in receivers))
    results = {key: result for answer in answers for key, result in answer.items()}
    await client.create(keys.get_instances_results(request_id), json_bytes(results))


async def _answer(context: TaskContext, catalog: FlowClasses) -> None:
    """Receiver: get the instances that the initiator asks for, and tell him their ids."""
    client, initiator = context.client, context.participants[0][0]
    async with context.slot_released():
        payload = await client.recv_variable(
            context.task_id, instances.CALLS_VARIABLE, initiator, instances.TIMEOUT
        )
    requester = instances.Requester(
        client=client,
        catalog=catalog,
        deadline=time.monotonic() + instances.TIMEOUT,
        parent_task=context.task_id,
        waiting=context.slot_released,
    )
    results = await instances.answer_calls(requester, initiator, decoded(payload))
    await client.send_variable(
        context.task_id, instances.RESULTS_VARIABLE, json_bytes(results), initiator
    )
