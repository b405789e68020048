"""Who is let in, decided from plain values."""

from typing import Any

import pytest

from engine.flows import FlowMessage
from engine.model.errors import AccessDeniedError, BusyError, EngineError, UsageError
from engine.serving.admission import (
    Arrival,
    Door,
    Envelope,
    cancelled,
    check_cancellation,
    check_message,
    check_reply,
)
from engine.serving.endpoints import EndpointRecord
from engine.serving.outgoing import cancelling, pushed

ME, YOU, THIRD = ("02" * 33, "03" * 33, "02" + "ab" * 32)
KEY, RESPONSE = "push_tasks:1:msg", "push_tasks:1:response"


def message(user_id: str | None = YOU, **fields: Any) -> bytes:
    return FlowMessage(data={}, user_id=user_id, **fields).serialize()


def arrival(payload: bytes, sender: str = YOU, key: str = KEY) -> Arrival:
    return Arrival(ME, sender, key, payload)


def outcome(found: Arrival, door: Door | None, unfinished: int = 0) -> type[EngineError] | None:
    """Return which error keeps a message out; None when it is let in."""
    try:
        check_message(found, door, unfinished)
    except EngineError as error:
        return type(error)
    return None


OPEN, SHUT = EndpointRecord(), EndpointRecord(send=())


@pytest.mark.parametrize(
    ("door", "is_reply", "expected"),
    [
        (None, False, None),
        (Door("ep", YOU), False, None),
        (Door("ep", "local"), False, None),
        (Door("ep", THIRD), False, AccessDeniedError),
        (Door("ep", THIRD, singleton=True), False, None),
        (Door("ep", YOU, record=SHUT), False, AccessDeniedError),
        (Door("ep", YOU, record=EndpointRecord(send=(YOU,))), False, None),
        (Door("ep", YOU, record=EndpointRecord(send=("any",))), False, None),
        (Door("ep", YOU, record=SHUT), True, AccessDeniedError),
        (Door("ep", THIRD, record=SHUT, servers=frozenset({YOU})), True, None),
        (Door("ep", THIRD, record=SHUT, servers=frozenset({YOU})), False, AccessDeniedError),
    ],
)
def test_who_may_send_what(
    door: Door | None, is_reply: bool, expected: type[EngineError] | None
) -> None:
    assert outcome(arrival(message(is_reply=is_reply)), door) is expected


def test_the_user_himself_may_always_send() -> None:
    own = arrival(message(ME), ME)
    assert outcome(own, Door("ep", THIRD, record=SHUT)) is None
    assert outcome(own, Door("ep", THIRD, record=EndpointRecord(mailbox_limit=1)), 1) is BusyError


def test_a_full_mailbox_takes_replies_all_the_same() -> None:
    door = Door("ep", YOU, record=EndpointRecord(mailbox_limit=2), servers=frozenset({YOU}))
    assert outcome(arrival(message()), door, 1) is None
    assert outcome(arrival(message()), door, 2) is BusyError
    assert outcome(arrival(message(is_reply=True)), door, 2) is None


def test_the_sender_is_who_brings_it() -> None:
    assert outcome(arrival(message(THIRD)), None) is AccessDeniedError
    for nobody in (None, "local"):
        stored = check_message(arrival(message(nobody)), None, 0)
        assert FlowMessage.deserialize(stored).user_id == YOU
    unchanged = message()
    assert check_message(arrival(unchanged), None, 0) == unchanged


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"1", b"\xff", b"{}", b'{"message_type": 1}', b"[" * 10**5]
)
def test_what_is_no_message_is_let_in_from_oneself_only(payload: bytes) -> None:
    assert outcome(arrival(payload), None) is UsageError
    assert outcome(arrival(payload, ME), None) is None, "a worker makes a dead letter of it"


def test_numbers_that_are_none_and_broken_text_are_messages_too() -> None:
    odd = FlowMessage(data={"nan": float("nan"), "text": "\ud800"}, user_id=YOU).serialize()
    assert Envelope.read(odd).user_id == YOU


def test_a_reply_in_storage_counts_once_asked_and_from_whom_it_was_asked() -> None:
    asked = FlowMessage(data={}, reply_data={"mode": "storage", "user_id": ME})
    question = (pushed(ME, YOU, "f", asked, "1").message or "").encode()
    reply = message(is_reply=True)
    assert check_reply(arrival(reply, YOU, RESPONSE), question) == reply
    for refused, known in (
        (arrival(reply, YOU, RESPONSE), None),
        (arrival(message(THIRD, is_reply=True), THIRD, RESPONSE), question),
        (arrival(reply, YOU, KEY), question),
        (arrival(message(THIRD, is_reply=True), YOU, RESPONSE), question),
    ):
        with pytest.raises(AccessDeniedError):
            check_reply(refused, known)
    stock = message(ME)
    assert check_reply(arrival(reply, YOU, RESPONSE), stock) == reply, "it names nobody"


def test_a_response_key_brings_no_message_to_an_instance() -> None:
    assert outcome(arrival(message(), YOU, RESPONSE), Door("ep", YOU)) is AccessDeniedError


def test_a_sender_gives_up_only_what_is_his() -> None:
    question = pushed(YOU, ME, "f", FlowMessage(data={}, user_id=YOU), "1")
    given_up = cancelling(YOU, question)
    found = arrival((given_up.message or "").encode(), YOU, given_up.key)
    assert cancelled(found) == ("f", KEY)
    check_cancellation(found, message(YOU))
    for stored in (None, b"[]", message(THIRD), message(None)):
        with pytest.raises(AccessDeniedError):
            check_cancellation(found, stored)
    with pytest.raises(UsageError):
        cancelled(arrival(message()))
