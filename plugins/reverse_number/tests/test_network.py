"""The flows of two users on a real core."""

import pytest
from reverse_number import (
    ReverseNumberAtomicFlow,
    ReverseNumberSequentialFlow,
    ReverseNumbersFlow,
)

from engine.flows import FlowFailedError
from engine.testing import ScriptedFlow, answers, raises
from engine.testing.fixtures import network  # noqa: F401


@pytest.fixture
def users(network):  # noqa: F811
    return network.users


def test_another_user_reverses(users):
    server, client = users
    server.serve("reverse", ReverseNumberAtomicFlow, singleton=True)
    reverse = (server, "reverse")
    subflows = {"first_reverse_flow": reverse, "second_reverse_flow": reverse}
    client.serve("twice", ReverseNumberSequentialFlow, subflows)
    client.serve("all", ReverseNumbersFlow, {"reverse_flow": reverse})
    assert client.ask(client.mount("twice"), {"number": 1234}) == {"output_number": 1234}
    answer = client.ask(client.mount("all"), {"numbers": [12, 34, 100]})
    assert answer == {"output_numbers": [21, 43, 1]}


def test_a_reversal_that_fails_ends_only_its_own_run(users):
    server, client = users
    script = [
        answers({"output_number": 21}),
        raises(OSError("no disk")),
        answers({"output_number": 5}),
    ]
    server.serve("reverse", ScriptedFlow, singleton=True, script=script)
    reverse = (server, "reverse")
    subflows = {"first_reverse_flow": reverse, "second_reverse_flow": reverse}
    client.serve("twice", ReverseNumberSequentialFlow, subflows)
    twice = client.mount("twice")
    with pytest.raises(FlowFailedError, match=r"second_reverse_flow failed: .*no disk") as failure:
        client.ask(twice, {"number": 12})
    assert failure.value.details["step_path"] == ["second_reverse_flow"]
    assert client.ask(twice, {"number": 5}) == {"output_number": 5}
    received = client.state_of(client.mount("reverse", server))["received"]
    assert received == [{"number": 12}, {"number": 21}, {"number": 5}, {"number": 5}]
