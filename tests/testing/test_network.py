"""Users on a real core, as plugin authors have them."""

from pathlib import Path

import psutil
import pytest

from engine.flows import AtomicFlow, CompositeFlow, FlowFailedError, flow
from engine.model.errors import (
    DeadlineExceededError,
    FlowInstanceException,
    PluginError,
    UsageError,
)
from engine.testing import Network, ScriptedFlow, answers, raises, silent
from engine.testing.fixtures import network, world  # noqa: F401


@flow
def add(a: int, b: int = 0) -> dict[str, int]:
    return {"a": a + b}


class Counter(AtomicFlow):
    def set_up_flow_state(self):
        self.flow_state = {"by": {1, 2}, "count": 0}

    def run(self, input_message):
        self.flow_state["count"] += 1
        count = {"count": self.flow_state["count"]}
        self.send_message(self.package_output_message(input_message, count))

    __default_flow_config = {"name": "Counter", "description": ""}  # noqa: RUF012


class Patient(CompositeFlow):
    """Tries its subflow again until it answers; tells how often it tried."""

    __default_flow_config = {"name": "Patient", "description": "", "subflows_config": {}}  # noqa: RUF012

    async def run(self, input_message):
        tries, patience = 0, input_message.data["patience"]
        while True:
            tries += 1
            try:
                answer = await self.subflows["below"].ask({"try": tries}, timeout=patience)
                break
            except (FlowFailedError, DeadlineExceededError):
                continue
        self.send_message(self.package_output_message(input_message, {**answer, "tries": tries}))


def test_users_serve_and_ask_each_other(network):  # noqa: F811
    one, two = network.users
    assert (one.name, two.name) == ("user0", "user1")
    two.serve("add", add)
    one.serve(
        "line",
        "engine.SequentialFlow",
        {"mine": "add", "theirs": (two, "add")},
        topology=["mine", "theirs"],
    )
    one.serve("add", add, b=1)
    assert one.ask(one.mount("line"), {"a": 1, "b": 2}) == {"a": 3}
    assert one.ask(one.mount("add", two), {"a": 1}) == {"a": 1}
    with pytest.raises(UsageError, match="user0 serves a flow at add already"):
        one.serve("add", add)
    with pytest.raises(FlowInstanceException):
        one.mount("nothing", two)
    with pytest.raises(PluginError):
        one.serve("other", "engine.SequentalFlow")


def test_the_stored_state_can_be_looked_at(network):  # noqa: F811
    one, two = network.users
    two.serve("count", Counter, singleton=True)
    counter = one.mount("count", two)
    assert one.state_of(counter) == {}
    assert [one.ask(counter, {})["count"] for _ in range(2)] == [1, 2]
    assert one.state_of(counter) == {"by": {1, 2}, "count": 2}


def test_a_script_makes_a_subflow_of_another_user_fail(network):  # noqa: F811
    one, two = network.users
    script = [raises(OSError("no disk")), silent(), answers({"x": 1})]
    two.serve("flaky", ScriptedFlow, singleton=True, script=script)
    one.serve("patient", Patient, {"below": (two, "flaky")})
    assert one.ask(one.mount("patient"), {"patience": 2}) == {"x": 1, "tries": 3}
    received = one.state_of(one.mount("flaky", two))["received"]
    assert received == [{"try": 1}, {"try": 2}, {"try": 3}]


def test_scripts_in_memory(world):  # noqa: F811
    script = [raises(OSError("no disk")), answers({"late": True}, after=0.05), silent()]
    flaky = world.mount(ScriptedFlow, script=script)
    with pytest.raises(FlowFailedError, match="OSError: no disk") as caught:
        world.ask(flaky, {})
    assert caught.value.details["error_type"] == "OSError"
    assert world.ask(flaky, {}) == {"late": True}
    for _ in range(2):
        with pytest.raises(DeadlineExceededError):
            world.ask(flaky, {}, timeout=0.01)


def test_nothing_is_left_of_a_network():
    before = set(psutil.Process().children(recursive=True))
    with Network("only") as made:
        [only] = made.users
        assert made["only"] is only
        home = Path(made._home)
        children = set(psutil.Process().children(recursive=True)) - before
        assert home.exists()
        assert children
    assert not home.exists()
    assert not [child for child in children if child.is_running()]


def test_two_classes_of_one_name_are_refused():
    with Network("only") as made:
        made["only"].serve("one", Counter)
        with pytest.raises(UsageError, match="Two classes of this network are called Counter"):
            made["only"].serve("two", type("Counter", (AtomicFlow,), {}))
