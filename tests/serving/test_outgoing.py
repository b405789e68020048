"""Where messages and replies go, told from what others wrote (§9.5, §9.8)."""

from typing import Any

import pytest

from engine.flows import FlowMessage
from engine.serving.mounting import DONE_KEPT, Record
from engine.serving.outgoing import Outgoing, pushed, replied

ME, YOU = ("02" * 33, "03" * 33)
KEY = "push_tasks:11111111-2222-4333-8444-555555555555:msg"
RESPONSE = "push_tasks:11111111-2222-4333-8444-555555555555:response"


def reply(**reply_data: Any) -> Outgoing | None:
    return replied(ME, FlowMessage(data={}, reply_data=reply_data, is_reply=True), "new")


def test_a_message_to_oneself_has_one_participant() -> None:
    outgoing = pushed(ME, "local", "flow", FlowMessage(data={}), "id")
    param, participants = outgoing.task(ME) or (b"", [])
    assert param == b'{"flow_id": "flow", "message_id": "push_tasks:id:msg"}'
    assert participants == [(ME, "receiver")]
    assert list(outgoing.entry()) == ["push_tasks:id:msg"]


def test_a_message_to_another_user_has_two() -> None:
    outgoing = pushed(ME, YOU, "flow", FlowMessage(data={}), "id")
    assert (outgoing.task(ME) or (b"", []))[1] == [(ME, "initiator"), (YOU, "receiver")]


def test_a_reply_in_own_storage_needs_no_task() -> None:
    for user_id in (ME, "local"):
        outgoing = reply(mode="storage", user_id=user_id, input_msg_path=KEY)
        assert outgoing is not None
        assert outgoing.key == RESPONSE
        assert outgoing.task(ME) is None


def test_a_reply_in_another_users_storage_is_pushed_there() -> None:
    outgoing = reply(mode="storage", user_id=YOU, input_msg_path=KEY)
    assert outgoing is not None
    param, _ = outgoing.task(ME) or (b"", [])
    assert param == f'{{"flow_id": "storage", "message_id": "{RESPONSE}"}}'.encode()


def test_a_reply_by_push_is_a_message() -> None:
    outgoing = reply(mode="push", user_id=YOU, flow_id="flow")
    assert outgoing is not None
    assert (outgoing.key, outgoing.user_id, outgoing.flow_id) == ("push_tasks:new:msg", YOU, "flow")


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"mode": "no_reply"},
        {"mode": "unknown", "user_id": YOU},
        {"mode": "push", "user_id": YOU},
        {"mode": "push", "user_id": "somebody", "flow_id": "flow"},
        {"mode": "storage", "user_id": YOU},
        {"mode": "storage", "user_id": [YOU], "input_msg_path": KEY},
        {"mode": "storage", "user_id": YOU, "input_msg_path": "_internal:mq_uri"},
        {"mode": "storage", "user_id": YOU, "input_msg_path": "push_tasks:a:b:msg"},
    ],
)
def test_whatever_is_not_of_the_protocols_form_gets_no_reply(asked: dict[str, Any]) -> None:
    assert reply(**asked) is None


def test_a_record_comes_back_as_it_went() -> None:
    local, remote = Outgoing(RESPONSE, "{}"), Outgoing("push_tasks:x:msg", "{}", YOU, "flow")
    record = Record().after(KEY, {"count": 1}, (local, remote))
    again = Record.decode(record.encode())
    assert again.state == {"count": 1}
    assert again.outbox_of(KEY) == (local, Outgoing("push_tasks:x:msg", None, YOU, "flow"))
    assert again.outbox_of("push_tasks:other:msg") == ()


def test_a_record_keeps_the_newest_messages_done() -> None:
    record = Record()
    for number in range(DONE_KEPT + 5):
        record = record.after(str(number), None, ())
    assert len(record.done) == DONE_KEPT
    assert record.done[-1] == str(DONE_KEPT + 4)


@pytest.mark.parametrize("payload", [b"\x80\x04}\x94.", b"[]", b'{"engine": 2}'])
def test_a_state_of_somebody_else_is_no_record(payload: bytes) -> None:
    with pytest.raises(ValueError, match="not written by this engine"):
        Record.decode(payload)
