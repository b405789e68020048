"""Composites that are declared: SequentialFlow, CircularFlow, BranchingFlow, ParallelFlow."""

import threading

import pytest

from engine.flows import AtomicFlow, FlowFailedError, FlowMessage
from engine.flows.patterns import BranchingFlow, CircularFlow, ParallelFlow, SequentialFlow
from engine.flows.topology import Pattern, read
from engine.flows.turn import fail_turn, run_turn
from engine.model.errors import UsageError

RENAME = {"_target_": "KeyInterface", "keys_to_rename": {"result": "n"}}


class Add(AtomicFlow):
    """Adds `step` to `n`, and counts what it was asked."""

    def run(self, input_message):
        self.flow_state["asked"] = self.flow_state.get("asked", 0) + 1
        result = input_message.data["n"] + self.flow_config["step"]
        self.send_message(self.package_output_message(input_message, {"result": result}))


class Sum(AtomicFlow):
    def run(self, input_message):
        output = {"result": sum(input_message.data.values())}
        self.send_message(self.package_output_message(input_message, output))


class Gate(AtomicFlow):
    """Answers once the test opens the gate."""

    opened = threading.Event()

    def run(self, input_message):
        type(self).opened.wait()
        self.send_message(self.package_output_message(input_message, {"result": "late"}))


@pytest.fixture
def gate():
    Gate.opened = threading.Event()
    yield Gate.opened
    Gate.opened.set()


@pytest.fixture
def add(world):
    return lambda step: world.mount(Add, step=step)


# --- one after the other --------------------------------------------------------------------


def test_steps_get_what_the_step_before_answered(world, add):
    topology = [{"flow": "one", "output_interface": RENAME}, "ten"]
    flow = world.mount(SequentialFlow, {"one": add(1), "ten": add(10)}, topology=topology)
    assert world.ask(flow, {"n": 5}) == {"result": 16}
    assert world.state_of(flow)["pending_runs"] == {}


def test_steps_take_from_the_caller_and_from_earlier_steps(world, add):
    topology = [
        {"flow": "one", "name": "first"},
        {"flow": "one", "name": "second", "take": {"n": "input.deep.n", "absent": "input.absent"}},
        {"flow": "one", "take": {"n": "first.result"}},
    ]
    answer = {"first": "first.result", "second": "second.result", "last": "one.result"}
    flow = world.mount(SequentialFlow, {"one": add(1)}, topology=topology, answer=answer)
    assert world.ask(flow, {"n": 1, "deep": {"n": 7}}) == {"first": 2, "second": 8, "last": 3}


def test_an_input_interface_shapes_what_a_step_is_asked(world, add):
    interface = {"_target_": "KeyInterface", "keys_to_copy": {"other": "n"}}
    topology = [{"flow": "one", "input_interface": interface}]
    flow = world.mount(SequentialFlow, {"one": add(1)}, topology=topology)
    assert world.ask(flow, {"other": 2}) == {"result": 3}


def test_callers_at_the_same_time_never_mix(world, add):
    topology = [{"flow": "one", "output_interface": RENAME}, "ten"]
    flow = world.mount(SequentialFlow, {"one": add(1), "ten": add(10)}, topology=topology)
    futures = [flow.get_reply_future(flow.package_input_message({"n": n})) for n in range(20)]
    assert [future.get_data()["result"] for future in futures] == [n + 11 for n in range(20)]


def test_an_error_tells_the_path_of_steps(world, add):
    inner = world.mount(SequentialFlow, {"one": add(1)}, topology=["one", "one"])
    outer = world.mount(
        SequentialFlow, {"inner": inner}, topology=[{"flow": "inner", "name": "counting"}]
    )
    with pytest.raises(FlowFailedError, match="the step counting failed") as caught:
        world.ask(outer, {"n": 1})
    assert caught.value.details["step_path"] == ["counting", "one"]
    assert "KeyError: 'n'" in caught.value.details["error"]
    assert world.state_of(outer)["pending_runs"] == {}


def test_an_interface_that_does_not_fit_names_its_step(world, add):
    interface = {"_target_": "KeyInterface", "keys_to_select": ["m"]}
    flow = world.mount(
        SequentialFlow,
        {"one": add(1)},
        topology=[{"flow": "one", "output_interface": interface}],
    )
    with pytest.raises(FlowFailedError, match="the output_interface of the step one failed") as e:
        world.ask(flow, {"n": 1})
    assert e.value.details["step_path"] == ["one"]


# --- a run is taken up again where it was ----------------------------------------------------


def made(flow_class, port, subflows, state=None, **config):
    """A flow built as a worker builds it: from its config, and the state that was stored."""
    config |= {"flow_id": "mine", "subflows_config": {key: {"flow_id": key} for key in subflows}}
    flow = flow_class.instantiate_from_config(flow_class.get_config(**config), port)
    flow.load_state(state)
    return flow


def caller(data):
    return FlowMessage(data, reply_data={"mode": "storage", "input_msg_path": "push_tasks:1:msg"})


def answer_to(question, data, **more):
    return FlowMessage(
        data,
        reply_data=question.reply_data | more,
        input_message_id=question.input_message_id,
        is_reply=True,
    )


async def test_a_run_goes_on_from_the_state_alone(port):
    config = {"topology": ["a", "b"], "answer": {"x": "a.x", "y": "b.y", "z": "input.z"}}
    first = made(SequentialFlow, port, ["a", "b"], **config)
    await run_turn(first, caller({"z": 3}))
    second = made(SequentialFlow, port, ["a", "b"], first.dump_state(), **config)
    await run_turn(second, answer_to(port.pushed[0][2], {"x": 1}))
    third = made(SequentialFlow, port, ["a", "b"], second.dump_state(), **config)
    await run_turn(third, answer_to(port.pushed[1][2], {"y": 2}))
    assert [flow_id for _, flow_id, _ in port.pushed] == ["a", "b"]
    assert [reply.data for reply in port.replies] == [{"x": 1, "y": 2, "z": 3}]


async def test_an_answer_that_comes_twice_is_passed_over(port):
    flow = made(SequentialFlow, port, ["a", "b"], topology=["a", "b"])
    await run_turn(flow, caller({}))
    for _ in range(2):
        await run_turn(flow, answer_to(port.pushed[0][2], {}))
    assert len(port.pushed) == 2


async def test_a_run_of_a_topology_that_is_no_more_is_told(port):
    old = made(SequentialFlow, port, ["a", "b"], topology=["a", "b"])
    await run_turn(old, caller({}))
    new = made(SequentialFlow, port, ["a", "b"], old.dump_state(), topology=["b"])
    with pytest.raises(UsageError, match="another topology now"):
        await run_turn(new, answer_to(port.pushed[0][2], {}))


# --- again and again -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("until", "rounds", "result"),
    [({"key": "n", "greater_than": 7}, 100, 8), (None, 4, 4), ({"key": "n", "equals": -1}, 3, 3)],
)
def test_a_circle_ends_by_its_condition_or_its_maximum(world, add, until, rounds, result):
    one = add(1)
    flow = world.mount(
        CircularFlow,
        {"one": one},
        topology=[{"flow": "one", "output_interface": RENAME}],
        until=until,
        max_rounds=rounds,
    )
    assert world.ask(flow, {"n": 0}) == {"n": result}
    assert world.state_of(one)["asked"] == result


def test_a_circle_hands_later_answers_back_to_its_first_step(world):
    topology = [
        {"flow": "sum", "name": "left", "take": {"a": "input.n", "b": "right.result"}},
        {"flow": "sum", "name": "right", "take": {"a": "input.n", "b": "left.result"}},
    ]
    subflows = {"sum": world.mount(Sum)}
    flow = world.mount(CircularFlow, subflows, topology=topology, max_rounds=3)
    assert world.ask(flow, {"n": 1}) == {"result": 6}  # in the first round `right` is not there yet


# --- one of many -----------------------------------------------------------------------------


def test_the_first_branch_whose_condition_holds_is_taken(world, add):
    topology = [
        {"flow": "one", "when": {"key": "n", "less_than": 10}},
        {"flow": "ten", "when": {"key": "n", "less_than": 100}, "output_interface": RENAME},
        "hundred",
    ]
    subflows = {"one": add(1), "ten": add(10), "hundred": add(100)}
    flow = world.mount(BranchingFlow, subflows, topology=topology)
    assert [world.ask(flow, {"n": n}) for n in (1, 10, 100)] == [
        {"result": 2},
        {"n": 20},
        {"result": 200},
    ]


def test_a_message_for_no_branch_is_told(world, add):
    topology = [{"flow": "one", "when": {"key": "n", "exists": True}}]
    flow = world.mount(BranchingFlow, {"one": add(1)}, topology=topology)
    with pytest.raises(FlowFailedError, match="No branch of BranchingFlow is for this message"):
        world.ask(flow, {"m": 1})


# --- at the same time ------------------------------------------------------------------------


def test_all_answers_are_joined_by_the_names_of_their_steps(world, add):
    topology = ["ten", {"flow": "one", "output_interface": RENAME}, {"flow": "one", "name": "two"}]
    flow = world.mount(ParallelFlow, {"one": add(1), "ten": add(10)}, topology=topology)
    answer = world.ask(flow, {"n": 0})
    assert answer == {"ten": {"result": 10}, "one": {"n": 1}, "two": {"result": 1}}
    assert list(answer) == ["ten", "one", "two"]
    assert world.state_of(flow) == {"pending_runs": {}, "joins": {}}


def test_one_that_fails_fails_all(world, add, gate):
    subflows = {"one": add(1), "gate": world.mount(Gate)}
    flow = world.mount(ParallelFlow, subflows, topology=["gate", "one"])
    with pytest.raises(FlowFailedError, match="the step one failed"):
        world.ask(flow, {})  # the other one has not answered by now
    assert world.state_of(flow) == {"pending_runs": {}, "joins": {}}


def test_the_first_answer_wins_and_errors_do_not(world, add, gate):
    subflows = {"one": add(1), "bad": add("not a number"), "gate": world.mount(Gate)}
    flow = world.mount(ParallelFlow, subflows, topology=["gate", "bad", "one"], join="first")
    assert world.ask(flow, {"n": 1}) == {"result": 2}
    gate.set()
    assert world.ask(flow, {"n": 2}) in ({"result": 3}, {"result": "late"})
    with pytest.raises(FlowFailedError, match="the step"):
        flow = world.mount(ParallelFlow, {"bad": subflows["bad"]}, topology=["bad"], join="first")
        world.ask(flow, {"n": 1})


def test_callers_of_a_parallel_flow_never_mix(world, add):
    topology = ["one", "ten"]
    flow = world.mount(ParallelFlow, {"one": add(1), "ten": add(10)}, topology=topology)
    futures = [flow.get_reply_future(flow.package_input_message({"n": n})) for n in range(20)]
    assert [future.get_data() for future in futures] == [
        {"one": {"result": n + 1}, "ten": {"result": n + 10}} for n in range(20)
    ]


async def test_a_join_that_fails_forgets_its_other_steps(port):
    flow = made(ParallelFlow, port, ["a", "b"], topology=["a", "b"])
    await run_turn(flow, caller({}))
    state = flow.dump_state()
    failed = answer_to(port.pushed[0][2], {"error": "no"}, status="error")
    with pytest.raises(FlowFailedError) as caught:
        await run_turn(flow, failed)
    reply = fail_turn(flow, failed, caught.value, state)
    assert reply.data["step_path"] == ["a"]
    assert flow.flow_state == {"pending_runs": {}, "joins": {}}
    await run_turn(flow, answer_to(port.pushed[1][2], {}))  # nobody needs it any more
    assert port.replies == []


# --- what cannot be followed -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "config", "path", "message"),
    [
        (Pattern.SEQUENCE, {}, ("topology",), "A list of steps is needed."),
        (Pattern.SEQUENCE, {"topology": [1]}, ("topology", 0), "A step names its flow."),
        (Pattern.SEQUENCE, {"topology": ["c"]}, ("topology", 0), "There is no subflow c."),
        (
            Pattern.SEQUENCE,
            {"topology": [{"flow": "a", "input": {}}]},
            ("topology", 0, "input"),
            "A step has no input.",
        ),
        (
            Pattern.SEQUENCE,
            {"topology": [{"flow": "a", "take": {"x": "b.x"}}, "b"]},
            ("topology", 0, "take", "x"),
            "b.x leads to nothing that is there by then.",
        ),
        (
            Pattern.SEQUENCE,
            {"topology": [{"flow": "a", "output_interface": {"_target_": "os.system"}}]},
            ("topology", 0, "output_interface"),
            "os.system is no known interface or transformation.",
        ),
        (
            Pattern.SEQUENCE,
            {"topology": [{"flow": "a", "when": {"key": "x", "exists": True}}]},
            ("topology", 0, "when"),
            "Only the steps of a BranchingFlow have a condition.",
        ),
        (
            Pattern.CIRCLE,
            {"topology": ["a"], "max_rounds": 0},
            ("max_rounds",),
            "max_rounds is a whole number of at least 1.",
        ),
        (
            Pattern.CIRCLE,
            {"topology": ["a"], "until": "done"},
            ("until",),
            "A condition is a mapping.",
        ),
        (
            Pattern.PARALLEL,
            {"topology": ["a", "a"]},
            ("topology", 1),
            "Two steps are called a.",
        ),
        (
            Pattern.PARALLEL,
            {"topology": ["a"], "join": "some"},
            ("join",),
            "some is no way to join.",
        ),
        (
            Pattern.PARALLEL,
            {"topology": ["a"], "answer": ["a.x"]},
            ("answer",),
            "A mapping of keys to where their values are is needed.",
        ),
    ],
)
def test_a_topology_that_cannot_be_followed_says_where_and_why(pattern, config, path, message):
    _, [problem] = read({"subflows_config": {"a": {}, "b": {}}, **config}, pattern)
    assert (problem.path, problem.message) == (path, message)


def test_a_flow_with_such_a_topology_cannot_be_made():
    with pytest.raises(UsageError, match=r"topology\.0: There is no subflow c"):
        SequentialFlow.instantiate_from_default_config(topology=["c"])
