"""Serving, getting instances and asking, on one user and across two."""

import time

import pytest

from engine.model.errors import FlowInstanceException
from engine.serving import endpoints, messages
from engine.serving.instances import get_instance
from tests.serving.conftest import Network

ATOMIC = "reverse_number.ReverseNumberAtomicFlow"
TWICE = "reverse_number.ReverseNumberSequentialFlow"


def subflows_of(user_id: str) -> dict[str, object]:
    at = {"user_id": user_id, "flow_endpoint": "reverse_number_atomic"}
    return {"subflows_config": {"first_reverse_flow": at, "second_reverse_flow": at}}


async def test_an_own_flow_answers(network: Network) -> None:
    await endpoints.serve(network.user0, "atomic", ATOMIC)
    instance = await get_instance(network.user0, network.catalog, "atomic")
    reply = await messages.ask(network.user0, "local", instance.flow_id, {"number": 1234})
    assert reply.data == {"output_number": 4321}


async def test_a_composite_with_two_subflows_of_another_user(network: Network) -> None:
    user0, user1 = network.user0, network.user1
    await endpoints.serve(user0, "reverse_number_atomic", ATOMIC, singleton=True)
    await endpoints.serve(user1, "twice", TWICE)
    overrides = subflows_of(user0.user_id)
    instance = await get_instance(user1, network.catalog, "twice", config_overrides=overrides)
    reply = await messages.ask(user1, "local", instance.flow_id, {"number": 1234})
    assert reply.data == {"output_number": 1234}
    for target, number in (("local", 0), (user0.user_id, 1)):
        took = []
        flow_id = instance.flow_id
        if number:
            remote = await get_instance(
                user1, network.catalog, "reverse_number_atomic", user_id=user0.user_id
            )
            flow_id = remote.flow_id
        for _ in range(50):
            started = time.perf_counter()
            await messages.ask(user1, target, flow_id, {"number": 1234})
            took.append(time.perf_counter() - started)
        print(target[:5], sorted(took)[25] * 1000)


async def test_a_flow_that_is_not_served_is_told(network: Network) -> None:
    with pytest.raises(FlowInstanceException, match="Not serving at nothing"):
        await get_instance(network.user1, network.catalog, "nothing", user_id=network.user0.user_id)
