import asyncio
import threading

import pytest

from engine.flows import AtomicFlow, CompositeFlow, FlowFailedError
from engine.model.errors import DeadlineExceededError, UsageError
from engine.testing import LocalPort


class Counter(AtomicFlow):
    def set_up_flow_state(self):
        self.flow_state = {"seen": ()}

    def run(self, input_message):
        self.flow_state["seen"] += (input_message.data["n"],)
        if input_message.data["n"] < 0:
            self.send_message(self.package_output_message(input_message, {"sent": "too early"}))
            raise ValueError("negative")
        output = {"count": len(self.flow_state["seen"]), "name": self.name}
        self.send_message(self.package_output_message(input_message, output))


class Silent(AtomicFlow):
    def run(self, input_message):
        pass


class Unstorable(AtomicFlow):
    def run(self, input_message):
        self.flow_state["lock"] = threading.Lock()
        self.send_message(self.package_output_message(input_message, {}))


class Blocking(CompositeFlow):
    """Waits for its subflow inside the turn."""

    def run(self, input_message):
        message = self.package_input_message(input_message.data)
        data = self.subflows["inner"].get_reply_future(message).get_data()
        self.send_message(self.package_output_message(input_message, data))


@pytest.fixture
def world():
    with LocalPort() as world:
        yield world


def test_an_instance_keeps_its_state_from_turn_to_turn(world):
    counter = world.mount(Counter)
    assert world.ask(counter, {"n": 1}) == {"count": 1, "name": "Counter"}
    assert world.ask(counter, {"n": 2}) == {"count": 2, "name": "Counter"}
    assert world.state_of(counter) == {"seen": (1, 2)}


def test_overrides_reach_the_instance(world):
    counter = world.mount(Counter, name="mine")
    assert world.ask(counter, {"n": 1})["name"] == "mine"


def test_an_instance_handles_messages_in_the_order_they_came(world):
    counter = world.mount(Counter)
    futures = [counter.get_reply_future(counter.package_input_message({"n": n})) for n in range(20)]
    assert [future.get_data()["count"] for future in futures] == list(range(1, 21))
    assert world.state_of(counter) == {"seen": tuple(range(20))}


def test_a_turn_that_fails_sends_an_error_and_nothing_else_and_keeps_the_state(world):
    counter = world.mount(Counter)
    world.ask(counter, {"n": 1})
    with pytest.raises(FlowFailedError, match="Counter: ValueError: negative"):
        world.ask(counter, {"n": -1})
    assert world.state_of(counter) == {"seen": (1,)}


def test_state_that_cannot_be_stored_is_an_error_as_with_the_engine(world):
    with pytest.raises(FlowFailedError, match=r"flow_state\['lock'\] cannot be stored"):
        world.ask(world.mount(Unstorable), {})


def test_data_that_is_not_json_is_refused_as_with_the_engine(world):
    with pytest.raises(UsageError, match="cannot be sent"):
        world.ask(world.mount(Counter), {"n": {1, 2}})


def test_no_answer_is_told_when_the_time_is_up(world):
    with pytest.raises(DeadlineExceededError):
        world.ask(world.mount(Silent), {}, timeout=0.05)


def test_an_instance_that_is_not_there_is_an_error(world):
    counter = world.mount(Counter)
    counter.flow_config["flow_id"] = "gone"
    with pytest.raises(FlowFailedError, match="There is no instance gone"):
        world.ask(counter, {"n": 1})


def test_another_users_instance_is_out_of_reach(world):
    counter = world.mount(Counter)
    counter.flow_config["user_id"] = "02" + "f" * 64
    with pytest.raises(UsageError, match="There is no user"):
        world.ask(counter, {"n": 1})


def test_a_flow_may_wait_for_another_inside_its_turn(world):
    blocking = world.mount(Blocking, {"inner": world.mount(Counter)})
    assert world.ask(blocking, {"n": 1}) == {"count": 1, "name": "Counter"}


def test_an_awaited_answer_does_not_block_the_loop(world):
    counter = world.mount(Counter)

    async def ask_many():
        futures = [
            counter.get_reply_future(counter.package_input_message({"n": n})) for n in range(5)
        ]
        return [(await future)["count"] for future in futures]

    assert asyncio.run(ask_many()) == [1, 2, 3, 4, 5]
