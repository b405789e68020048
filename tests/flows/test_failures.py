"""What an error reply says, and what it takes over from those below."""

import pytest

from engine.flows.failures import failure_data
from engine.model.errors import BusyError, FlowFailedError, UsageError


def told(error: BaseException, flow: str = "Top") -> dict:
    return failure_data(error, flow=flow, user_id="02", flow_endpoint="ep", flow_id="f")


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_the_path_ends_where_it_failed():
    bottom = told(ValueError("bad"), "Bottom")
    middle = told(FlowFailedError("the subflow b failed", bottom), "Middle")
    top = told(raised_from(RuntimeError("given up"), FlowFailedError("m", middle)))
    assert [step["flow"] for step in top["path"]] == ["Top", "Middle", "Bottom"]
    assert top["cause"] == {"error_type": "ValueError", "message": "bad"}
    assert (top["error_type"], top["message"]) == ("RuntimeError", "given up")


def test_a_failure_of_one_of_several_is_followed():
    bottom = told(ValueError("bad"), "Bottom")
    several = ExceptionGroup("several", [FlowFailedError("x", bottom), ValueError("y")])
    assert [step["flow"] for step in told(several)["path"]] == ["Top", "Bottom"]


@pytest.mark.parametrize(
    "details",
    [
        {},
        {"error": "stock aiflows"},
        {"path": 1, "cause": [1]},
        {"path": [1, "x", {"flow": ["odd"]}], "cause": {"message": "m"}},
        {"path": [{"flow": "x" * 10**6}] * 1000, "cause": {"error_type": "T" * 10**6}},
    ],
)
def test_what_others_wrote_is_bounded(details):
    data = told(FlowFailedError("m", details))
    assert data["path"][0]["flow"] == "Top"
    assert len(data["path"]) <= 32
    assert len(str(data)) < 10**5


def test_an_error_of_ours_is_told_by_its_sentence_and_when_to_come_back():
    assert told(UsageError("No such thing."))["error"] == "Top: No such thing."
    assert told(ValueError("x"))["error"] == "Top: ValueError: x"
    assert told(BusyError("full", 2.5))["retry_after"] == 2.5


def test_a_chain_of_causes_that_goes_in_circles_comes_to_an_end():
    error = ValueError("x")
    error.__cause__ = error
    assert told(error)["cause"]["error_type"] == "ValueError"
