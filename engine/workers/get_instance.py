"""The get_instance worker: both roles of the protocol `coflows_get_instances` (§9.4).

It runs no flow code; of a flow class it needs the default config only.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import decode_get_instances
from engine.colink.operator import Operator, TaskContext
from engine.colink.payloads import json_bytes
from engine.model.errors import AlreadyExistsError, DeadlineExceededError, EngineError
from engine.serving import instances
from engine.serving.audit import Audit
from engine.serving.configuration import FlowClasses
from engine.serving.endpoints import decoded
from engine.serving.exchange import (
    CALLS_VARIABLE,
    PROTOCOL,
    RESULTS_VARIABLE,
    TIMEOUT,
    Requester,
    deadline_of,
)

log = logging.getLogger(__name__)
_EARLIER = 0.5
"""Seconds before a request's deadline at which an answer is given with what there is."""


async def run_get_instance_worker(
    client: Client,
    catalog: FlowClasses,
    *,
    concurrency: int = 1,
    ready: asyncio.Event | None = None,
    audit: Audit | None = None,
) -> None:
    """Serve requests for instances, `concurrency` at once, until cancelled.

    A request that only waits for other users does not count, so requests that lead back to a user
    who is at work on one of them do not block each other.
    """

    async def answer(context: TaskContext) -> None:
        await _answer(context, catalog, audit)

    handlers = {f"{PROTOCOL}:initiator": _distribute, f"{PROTOCOL}:receiver": answer}
    operator = Operator(client, handlers, concurrency=concurrency, name="get_instance")
    await operator.run(ready)


async def _distribute(context: TaskContext) -> None:
    """Initiator: hand each user his calls, and gather the results in one entry."""
    client, request_id = context.client, decode_get_instances(context.param)
    payload, deadline = await asyncio.gather(
        client.read(keys.get_instance_calls(request_id)), _deadline(context)
    )
    calls = decoded(payload)
    if not isinstance(calls, dict):
        log.warning("the request %s is not there any more", request_id)
        return
    receivers = [user_id for user_id, role in context.participants if role == "receiver"]
    async with context.slot_released():
        answers = await asyncio.gather(
            *(_consult(context, user_id, calls.get(user_id, []), deadline) for user_id in receivers)
        )
    results = {key: result for answer in answers for key, result in answer.items()}
    with contextlib.suppress(AlreadyExistsError):
        await client.create(keys.get_instances_results(request_id), json_bytes(results))


async def _consult(
    context: TaskContext, user_id: str, calls: Any, deadline: float
) -> Mapping[str, Any]:
    """Return a user's results for `calls`; when there are none, results that say why."""
    client, task_id = context.client, context.task_id
    try:
        await client.send_variable(task_id, CALLS_VARIABLE, json_bytes(calls), user_id)
        left = max(0.0, deadline - time.time())
        found = decoded(await client.recv_variable(task_id, RESULTS_VARIABLE, user_id, left))
    except DeadlineExceededError:
        return _no_answer(calls, "there was no answer: is a get_instance worker of theirs running?")
    except EngineError as error:
        return _no_answer(calls, str(error))
    return found if isinstance(found, dict) else _no_answer(calls, "the answer is no JSON object.")


def _no_answer(calls: Any, message: str) -> dict[str, Any]:
    return {
        str(call[0]): {"flow_id": "", "successful": False, "message": message}
        for call in calls
        if isinstance(call, list) and call
    }


async def _answer(context: TaskContext, catalog: FlowClasses, audit: Audit | None) -> None:
    """Receiver: get the instances that the initiator asks for, and tell him their ids."""
    client, initiator = context.client, context.participants[0][0]
    async with context.slot_released():
        try:
            payload, deadline = await asyncio.gather(
                client.recv_variable(context.task_id, CALLS_VARIABLE, initiator, TIMEOUT),
                _deadline(context),
            )
        except DeadlineExceededError:
            log.warning("%s did not say what he wants in %s", initiator, context.task_id)
            return
    requester = Requester(
        client=client,
        catalog=catalog,
        deadline=deadline,
        parent_task=context.task_id,
        waiting=context.slot_released,
    )
    results = await instances.answer_calls(requester, initiator, decoded(payload), audit)
    await client.send_variable(context.task_id, RESULTS_VARIABLE, json_bytes(results), initiator)


async def _deadline(context: TaskContext) -> float:
    """Return until when to answer: a little before who asked stops waiting."""
    task = await context.client.read_task(context.task_id)
    expiration_time = task.expiration_time if task is not None else 0
    return deadline_of(expiration_time) - _EARLIER
