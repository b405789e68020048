import asyncio

import pytest

from engine.flows import FlowFailedError, FlowMessage, KeyInterface, proxy
from engine.model.errors import DeadlineExceededError

FAILED = {"mode": "storage", "status": "error"}


@pytest.fixture
def future(port):
    rev = proxy("rev", "rev-id", port)
    return rev.get_reply_future(rev.package_input_message({}), timeout=0.01)


@pytest.fixture
def answer(port, future):
    def give(data, **fields):
        port.answers[future.response_key] = FlowMessage(data, is_reply=True, **fields)

    return give


def read_async(future):
    async def read():
        return await future

    return asyncio.run(read())


def test_an_answer_can_be_read_in_every_way_and_again(future, answer):
    answer({"a": 1})
    for _ in range(2):
        assert future.get_data() == future.get_message().data == {"a": 1}
        assert future.try_get_data() == future.try_get_message().data == {"a": 1}
        assert read_async(future) == {"a": 1}


def test_trying_before_the_answer_gives_none(future):
    assert future.try_get_message() is None
    assert future.try_get_data() is None


def test_waiting_ends_at_the_deadline(future):
    for read in (future.get_data, future.get_message, lambda: read_async(future)):
        with pytest.raises(DeadlineExceededError):
            read()
    with pytest.raises(DeadlineExceededError, match="3 s"):
        future.get_data(timeout=3)


def test_the_output_interface_is_applied_by_get_and_await_but_not_by_try(future, answer):
    answer({"a": 1})
    future.set_output_interface(KeyInterface(keys_to_rename={"a": "b"}))
    assert future.get_data() == future.get_message().data == read_async(future) == {"b": 1}
    assert future.try_get_data() == future.try_get_message().data == {"a": 1}


def test_an_error_reply_is_raised_by_get_and_await_and_shown_by_try(future, answer):
    answer({"error": "it broke", "flow": "rev"}, reply_data=FAILED)
    future.set_output_interface(lambda data: pytest.fail("no interface for errors"))
    for read in (future.get_data, future.get_message, lambda: read_async(future)):
        with pytest.raises(FlowFailedError, match="it broke") as failure:
            read()
        assert failure.value.details == {"error": "it broke", "flow": "rev"}
    assert future.try_get_message().failed
    assert future.try_get_data() == {"error": "it broke", "flow": "rev"}


def test_its_text_says_where_the_answer_will_be(future, port):
    assert str(future) == (
        f"FlowFuture(user_id={port.user_id}, response_key='{future.response_key}')"
    )
