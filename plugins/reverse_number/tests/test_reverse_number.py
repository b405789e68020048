"""The flows, run in memory: no core, no worker, no manifest."""

import asyncio
import json
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from reverse_number import (
    ReverseNumberAtomicFlow,
    ReverseNumberSequentialFlow,
    ReverseNumbersFlow,
)

from engine.flows import AtomicFlow, Flow, FlowFailedError
from engine.hooks import load_catalog
from engine.testing import LocalPort, RecordingPort


@pytest.fixture
def world():
    with LocalPort() as port:
        yield port


@pytest.fixture
def atomic(world):
    return world.mount(ReverseNumberAtomicFlow)


@pytest.fixture
def sequential(world, atomic):
    subflows = {"first_reverse_flow": atomic, "second_reverse_flow": atomic}
    return world.mount(ReverseNumberSequentialFlow, subflows)


def test_the_readme_tells_what_each_class_takes_and_answers(world, atomic, sequential):
    numbers = world.mount(ReverseNumbersFlow, {"reverse_flow": atomic})
    flows = {
        "ReverseNumberAtomicFlow": atomic,
        "ReverseNumberSequentialFlow": sequential,
        "ReverseNumbersFlow": numbers,
    }
    readme = Path(__file__).parents[1].joinpath("README.md").read_text()
    rows = re.findall(r"^\| `reverse_number\.(\w+)` \| `(.+?)` \| `(.+?)`", readme, re.MULTILINE)
    assert [name for name, _, _ in rows] == list(flows)
    for name, taken, answer in rows:
        assert world.ask(flows[name], json.loads(taken)) == json.loads(answer)


@pytest.mark.parametrize(
    ("number", "reversed_number"),
    [(1234, 4321), (100, 1), (0, 0), (-12, -21), (10**30 + 7, 7 * 10**30 + 1)],
)
def test_a_number_is_reversed(world, atomic, number, reversed_number):
    assert world.ask(atomic, {"id": 0, "number": number}) == {"output_number": reversed_number}


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ({}, "`number` is missing; the message has: nothing"),
        ({"id": 0}, "`number` is missing; the message has: id"),
        ({"number": "12"}, "`number` must be an integer, not '12'"),
        ({"number": 1.5}, "`number` must be an integer, not 1.5"),
        ({"number": True}, "`number` must be an integer, not True"),
        ({"number": None}, "`number` must be an integer, not None"),
    ],
)
def test_anything_but_an_integer_is_answered_with_an_error(world, atomic, data, complaint):
    with pytest.raises(FlowFailedError) as failure:
        world.ask(atomic, data)
    assert complaint in str(failure.value)
    assert failure.value.details["flow"] == "ReverseNumber"
    assert failure.value.details["error_type"] == "ValueError"
    assert failure.value.details["where"].startswith("reverse_number/flows.py:")


def test_a_number_is_reversed_twice(world, sequential):
    assert world.ask(sequential, {"id": 0, "number": 1234}) == {"output_number": 1234}


def test_callers_one_after_another_and_at_once_get_their_own_answers(world, sequential):
    assert world.ask(sequential, {"number": 12}) == {"output_number": 12}
    messages = [sequential.package_input_message({"number": 1 + 10 * n}) for n in range(30)]
    futures = [sequential.get_reply_future(message) for message in messages]
    answers = [future.get_data()["output_number"] for future in futures]
    assert answers == [1 + 10 * n for n in range(30)]
    assert world.state_of(sequential)["pending_runs"] == {}


def test_interleaved_replies_in_any_order_reach_the_right_callers():
    port = RecordingPort()
    flow = ReverseNumberSequentialFlow.instantiate_from_default_config(
        flow_id="sequential",
        subflows_config={
            "first_reverse_flow": {"flow_id": "first"},
            "second_reverse_flow": {"flow_id": "second"},
        },
    )
    flow.set_port(port)
    subflow = AtomicFlow({"name": "subflow", "description": ""}, port)
    callers = [flow.package_input_message({"number": number}) for number in (12, 34)]
    # Callers choose these ids; even two equal ones must not mix.
    callers[1].input_message_id = callers[0].input_message_id
    for caller in callers:
        flow.run(caller)
    to_first = [message for _, _, message in port.pushed]
    for question, output in ((to_first[1], 43), (to_first[0], 21)):
        flow.run(subflow.package_output_message(question, {"output_number": output}))
    to_second = [message for _, _, message in port.pushed[2:]]
    assert [message.data for message in to_second] == [{"number": 43}, {"number": 21}]
    for question, output in ((to_second[1], 12), (to_second[0], 34)):
        flow.run(subflow.package_output_message(question, {"output_number": output}))
    assert [reply.data for reply in port.replies] == [{"output_number": 12}, {"output_number": 34}]


@pytest.mark.parametrize("which", ["first_reverse_flow", "second_reverse_flow"])
def test_a_failing_subflow_ends_the_run_with_an_error_that_names_it(world, atomic, which):
    class Broken(AtomicFlow):
        def run(self, input_message):
            raise RuntimeError("no more digits")

    subflows = {"first_reverse_flow": atomic, "second_reverse_flow": atomic}
    sequential = world.mount(ReverseNumberSequentialFlow, subflows | {which: world.mount(Broken)})
    with pytest.raises(FlowFailedError, match=f"the subflow {which} failed: .*no more digits"):
        world.ask(sequential, {"number": 1})
    assert world.state_of(sequential)["pending_runs"] == {}


def test_a_subflow_that_answers_nonsense_is_an_error_for_the_caller(world, atomic):
    class Strange(AtomicFlow):
        def run(self, input_message):
            self.send_message(self.package_output_message(input_message, {"wrong": 1}))

    subflows = {"first_reverse_flow": atomic, "second_reverse_flow": world.mount(Strange)}
    sequential = world.mount(ReverseNumberSequentialFlow, subflows)
    with pytest.raises(FlowFailedError, match="`output_number` is missing"):
        world.ask(sequential, {"number": 1})


def test_many_numbers_are_reversed_at_once(world, atomic):
    many = world.mount(ReverseNumbersFlow, {"reverse_flow": atomic})
    numbers = list(range(10, 40))
    answer = world.ask(many, {"numbers": numbers})
    assert answer == {"output_numbers": [int(str(number)[::-1]) for number in numbers]}
    assert world.ask(many, {"numbers": []}) == {"output_numbers": []}


@pytest.mark.parametrize("data", [{}, {"numbers": 12}, {"numbers": [1, "x"]}])
def test_many_numbers_must_be_a_list_of_integers(world, atomic, data):
    many = world.mount(ReverseNumbersFlow, {"reverse_flow": atomic})
    with pytest.raises(FlowFailedError, match="must be a"):
        world.ask(many, data)


def test_a_future_can_be_awaited(world, atomic):
    async def ask():
        return await atomic.get_reply_future(atomic.package_input_message({"number": 12}))

    assert asyncio.run(ask()) == {"output_number": 21}


def test_the_engine_finds_the_plugin():
    catalog = load_catalog(Flow, entry_points(group="colink_engine", name="reverse_number"))
    assert [plugin.error for plugin in catalog.plugins] == [None]
    assert catalog.names() == (
        "reverse_number.ReverseNumberAtomicFlow",
        "reverse_number.ReverseNumberSequentialFlow",
        "reverse_number.ReverseNumbersFlow",
    )
    sequential = catalog.flow_class("reverse_number.ReverseNumberSequentialFlow")
    subflows = sequential.get_config()["subflows_config"]
    assert list(subflows) == ["first_reverse_flow", "second_reverse_flow"]
    assert {subflow["flow_endpoint"] for subflow in subflows.values()} == {"reverse_number_atomic"}
