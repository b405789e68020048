"""Asking other users for instances: the client's part of `coflows_get_instances` (§9.4)."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.mailbox import encode_get_instances
from engine.colink.payloads import json_bytes
from engine.flows.config import Config
from engine.model.errors import (
    DeadlineExceededError,
    EngineError,
    FlowInstanceException,
)
from engine.model.ids import is_user_id, new_id
from engine.serving.configuration import FlowClasses
from engine.serving.endpoints import decoded
from engine.serving.messages import outcome

PROTOCOL = "coflows_get_instances"
CALLS_VARIABLE = "user_get_instance_calls"
RESULTS_VARIABLE = "get_instances_results"
TIMEOUT = 60.0
"""Seconds that getting an instance may take when nobody said otherwise."""
_SLACK = 30
"""Seconds by which clocks of two machines may differ without a request expiring too early."""

Call = tuple[str, str, Config]
"""What is asked of a user: under which key, which endpoint, with which overrides."""


@dataclass(frozen=True)
class Requester:
    """In whose name, with which classes and until when instances are got.

    `deadline` is in Unix seconds. `waiting` surrounds the time in which nothing is done here but
    waiting for other users.
    """

    client: Client
    catalog: FlowClasses
    deadline: float
    parent_task: str = ""
    waiting: Callable[[], AbstractAsyncContextManager[None]] = nullcontext

    def seconds_left(self) -> float:
        """Return how long may still be waited."""
        return max(0.0, self.deadline - time.time())


def deadline_of(expiration_time: int) -> float:
    """Return until when a request is to be answered, in Unix seconds.

    `expiration_time` is its task's: a request that leads to others hands on what time is left, so
    that one which leads back to where it began comes to an end.
    """
    return min(time.time() + TIMEOUT, float(expiration_time - _SLACK))


def failure(flow_endpoint: str, user_id: str, error: object) -> FlowInstanceException:
    """Return the error that an instance could not be had, because of `error`.

    The reason of a FlowInstanceException is taken over as it is: it says where it lies.
    """
    reason = error.reason if isinstance(error, FlowInstanceException) else str(error)
    return FlowInstanceException(flow_endpoint, user_id, reason)


async def get_remote(
    requester: Requester, calls: Mapping[str, Sequence[Call]]
) -> dict[str, str | FlowInstanceException]:
    """Ask users (hex ids) for instances, all in one task.

    Returns by key the instance's id, or the error that tells why there is none.
    """
    for user_id, asked in calls.items():
        if not is_user_id(user_id):
            raise failure(asked[0][1], user_id, "that is no user id.")
    try:
        results = await _results(requester, calls)
    except EngineError as error:
        return {
            key: failure(endpoint, user_id, error)
            for user_id, asked in calls.items()
            for key, endpoint, _ in asked
        }
    return {
        key: _flow_id(results.get(key), endpoint, user_id)
        for user_id, asked in calls.items()
        for key, endpoint, _ in asked
    }


async def _results(requester: Requester, calls: Mapping[str, Sequence[Call]]) -> Mapping[str, Any]:
    client, request_id = requester.client, new_id()
    participants = [(client.user_id, "initiator"), *((user_id, "receiver") for user_id in calls)]
    async with client.expect(keys.get_instances_results(request_id)) as expectation:
        asked = {user_id: list(of_user) for user_id, of_user in calls.items()}
        await client.create(keys.get_instance_calls(request_id), json_bytes(asked))
        task_id = await client.run_task(
            PROTOCOL,
            encode_get_instances(request_id),
            participants,
            True,
            expiration_time=math.ceil(requester.deadline) + _SLACK,
            parent_task=requester.parent_task,
        )
        async with requester.waiting():
            results = await _told(client, expectation, task_id, requester.seconds_left())
    value = decoded(results)
    return value if isinstance(value, dict) else {}


async def _told(client: Client, expectation: Any, task_id: str, timeout: float) -> bytes:
    """Return the results; say what to look at when there are none in time."""
    try:
        return await outcome(client, expectation, task_id, timeout)
    except DeadlineExceededError as error:
        raise DeadlineExceededError(
            f"there was no answer within {timeout:.0f} s.",
            "Are the get_instance workers of all users involved running?",
        ) from error


def _flow_id(result: Any, flow_endpoint: str, user_id: str) -> str | FlowInstanceException:
    if not isinstance(result, dict):
        return failure(flow_endpoint, user_id, "the answer says nothing about it.")
    if result.get("successful") is not True or not isinstance(result.get("flow_id"), str):
        return failure(flow_endpoint, user_id, result.get("message"))
    return str(result["flow_id"])
