"""Recursion is told at call time, with its path."""

import time

import pytest

from engine.flows import AtomicFlow, CompositeFlow, FlowFailedError, FlowMessage, proxy
from engine.flows.calls import CALL_PATH, DEEPEST, at_work, path_of, path_to
from engine.flows.deadlines import working_on
from engine.kits.digest import digest
from engine.model.errors import DeadlineExceededError, UsageError


class Asking(CompositeFlow):
    """Asks the instance that the message names, and answers with its answer."""

    async def run(self, input_message):
        data = input_message.data
        if "next" not in data:
            output = {"end": self.name}
        else:
            output = await proxy("next", data["next"][0], self.port).ask(
                {"next": data["next"][1:]} if data["next"][1:] else {}
            )
        self.send_message(self.package_output_message(input_message, output))


class Hanging(AtomicFlow):
    async def run(self, input_message):
        pass


def test_a_flow_that_would_wait_for_itself_is_refused_with_the_path(world):
    names = ["a", "b", "c"]
    flows = {name: world.mount(Asking, name=name, subflows_config={}) for name in names}
    ids = {name: flow.get_instance_id() for name, flow in flows.items()}
    assert world.ask(flows["a"], {"next": [ids["b"], ids["c"]]}) == {"end": "c"}
    with pytest.raises(FlowFailedError, match="would wait for itself: b -> c -> b") as caught:
        world.ask(flows["a"], {"next": [ids["b"], ids["c"], ids["b"]]})
    assert caught.value.details["step_path"] == ["Proxy_next", "Proxy_next"]


def test_a_path_names_nobody_s_instances():
    caller = FlowMessage({}, reply_data={CALL_PATH: [["outer", digest("outer-id")]]})
    with at_work("inner", "inner-id", caller):
        path = path_to("next", "next-id")
        assert path == [["outer", digest("outer-id")], ["inner", digest("inner-id")]]
        with pytest.raises(UsageError, match="outer -> inner -> outer"):
            path_to("outer", "outer-id")
    assert path_to("outer", "outer-id") == []


def test_a_path_without_end_is_refused():
    path = [[f"flow{n}", digest(str(n))] for n in range(DEEPEST)]
    with (
        at_work("last", "last-id", FlowMessage({}, reply_data={CALL_PATH: path})),
        pytest.raises(UsageError, match=f"more than {DEEPEST} flows"),
    ):
        path_to("next", "next-id")


@pytest.mark.parametrize("sent", [None, "a", {"a": 1}, [["a"]], ["ab"], [["a", "b"]] * 65])
def test_what_somebody_made_up_is_no_path(sent):
    assert path_of(FlowMessage({}, reply_data={CALL_PATH: sent})) == ()


async def test_what_a_flow_asks_may_take_as_long_as_its_caller_waits(port):
    deadline = time.time() + 300
    with working_on(FlowMessage({}, reply_data={"deadline": deadline})):
        flow = proxy("next", "next-id", port)
        flow.get_reply_future(flow.package_input_message({}))
        flow.get_reply_future(flow.package_input_message({}), 5)
    whole, short = (message.deadline for _, _, message in port.asked)
    assert whole == deadline
    assert short < time.time() + 6


async def test_ask_ends_at_its_deadline(world):
    hanging = world.mount(Hanging)
    with pytest.raises(DeadlineExceededError):
        await hanging.ask({}, timeout=0.01)
