import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.colink import mailbox
from engine.colink.mailbox import Dispatch, Mailboxes, PushParam, Route
from engine.model.errors import UsageError

SERIAL, PARALLEL = Route("coflows_dispatch"), Route("coflows_dispatch", parallel=True)


def dispatch(*message_keys: str, flow_id: str = "f", point: str = "coflows_dispatch") -> Dispatch:
    return Dispatch(flow_id, message_keys, point)


def test_a_serial_instance_gets_one_message_at_a_time_in_order_of_arrival():
    boxes = Mailboxes()
    assert boxes.push("f", "1", SERIAL) == [dispatch("1")]
    assert boxes.push("f", "2", SERIAL) == []
    assert boxes.push("f", "3", SERIAL) == []
    assert boxes.finished("f", ["1"]) == [dispatch("2")]
    assert boxes.finished("f", ["2"]) == [dispatch("3")]
    assert boxes.finished("f", ["3"]) == []


def test_instances_do_not_wait_for_each_other():
    boxes = Mailboxes()
    boxes.push("f", "1", SERIAL)
    assert boxes.push("g", "2", SERIAL) == [dispatch("2", flow_id="g")]


def test_a_parallel_instance_gets_each_message_at_once():
    boxes = Mailboxes()
    assert boxes.push("f", "1", PARALLEL) == [dispatch("1")]
    assert boxes.push("f", "2", PARALLEL) == [dispatch("2")]


def test_idle_instances_are_forgotten():
    boxes = Mailboxes()
    boxes.push("f", "1", SERIAL)
    boxes.push("g", "2", PARALLEL)
    boxes.finished("f", ["1"])
    boxes.finished("g", ["2"])
    assert len(boxes) == 0


def test_unknown_and_repeated_reports_change_nothing():
    boxes = Mailboxes()
    assert boxes.finished("f", ["1", "2"]) == []
    boxes.push("f", "1", SERIAL)
    boxes.push("f", "2", SERIAL)
    assert boxes.finished("f", ["other"]) == []
    assert boxes.finished("f", ["1"]) == [dispatch("2")]
    assert boxes.finished("f", ["1"]) == []
    assert boxes.in_flight("f") == {"2"}


@pytest.mark.parametrize("route", [SERIAL, PARALLEL])
def test_a_message_delivered_twice_is_dispatched_once(route):
    boxes = Mailboxes()
    assert boxes.push("f", "1", route) == [dispatch("1")]
    assert boxes.push("f", "1", route) == []
    boxes.push("f", "2", SERIAL)
    assert boxes.push("f", "2", SERIAL) == []


def test_a_new_dispatch_point_counts_from_the_next_message():
    boxes = Mailboxes()
    boxes.push("f", "1", SERIAL)
    boxes.push("f", "2", Route("gpu_dispatch"))
    assert boxes.finished("f", ["1"]) == [dispatch("2", point="gpu_dispatch")]


def test_becoming_serial_waits_for_everything_in_flight():
    boxes = Mailboxes()
    boxes.push("f", "1", PARALLEL)
    boxes.push("f", "2", PARALLEL)
    assert boxes.push("f", "3", SERIAL) == []
    assert boxes.finished("f", ["1"]) == []
    assert boxes.finished("f", ["2"]) == [dispatch("3")]


def test_becoming_parallel_lets_the_waiting_ones_go():
    boxes = Mailboxes()
    boxes.push("f", "1", SERIAL)
    boxes.push("f", "2", SERIAL)
    assert boxes.push("f", "3", PARALLEL) == [dispatch("2"), dispatch("3")]


def test_a_dispatch_that_could_not_be_made_is_given_out_again_first():
    boxes = Mailboxes()
    (first,) = boxes.push("f", "1", SERIAL)
    boxes.push("f", "2", SERIAL)
    boxes.returned(first)
    assert boxes.due() == [dispatch("1")]
    assert boxes.due() == []


def test_a_restarted_scheduler_does_not_overtake_what_is_in_flight():
    boxes = Mailboxes()
    boxes.dispatched("f", ["1"], SERIAL)
    assert boxes.push("f", "1", SERIAL) == []
    assert boxes.push("f", "2", SERIAL) == []
    assert boxes.finished("f", ["1"]) == [dispatch("2")]


def test_messages_of_a_deleted_instance_are_dropped():
    boxes = Mailboxes()
    boxes.push("f", "1", SERIAL)
    boxes.push("f", "2", SERIAL)
    boxes.forget("f")
    assert boxes.finished("f", ["1"]) == []
    assert boxes.pending("f") == ()


@given(st.lists(st.tuples(st.sampled_from(["push", "finish", "fail"]), st.integers(0, 9))))
def test_serial_order_and_exclusion_hold_whatever_happens(events):
    boxes, pushed, ran, running = Mailboxes(), [], [], []
    for kind, number in events:
        key = str(number)
        if kind == "push":
            if key not in pushed:
                pushed.append(key)
            elif key in ran and key not in running:
                continue  # message ids are never used again
            made = boxes.push("f", key, SERIAL)
        elif running and kind == "finish":
            made = boxes.finished("f", [running.pop()])
        elif running:
            boxes.returned(dispatch(running.pop()))
            ran.pop()
            made = boxes.due()
        else:
            continue
        running += [key for found in made for key in found.message_keys]
        ran += [key for found in made for key in found.message_keys]
        assert len(running) <= 1
        assert ran == pushed[: len(ran)]
        assert [*ran, *boxes.pending("f")] == pushed


def test_params_are_written_as_the_protocol_says():
    assert mailbox.encode_push("f", "push_tasks:1:msg") == (
        b'{"flow_id": "f", "message_id": "push_tasks:1:msg"}'
    )
    assert mailbox.encode_dispatch("f", ["push_tasks:1:msg"]) == (
        b'{"flow_id": "f", "message_ids": ["push_tasks:1:msg"]}'
    )
    assert mailbox.encode_get_instances("r") == b'"r"'


def test_params_survive_and_extra_fields_do_no_harm():
    assert mailbox.decode_push(b'{"flow_id": "f", "message_id": "k", "more": 1}') == (
        PushParam("f", "k")
    )
    assert mailbox.decode_dispatch(mailbox.encode_dispatch("f", ["a", "b"])) == ("f", ("a", "b"))
    assert mailbox.decode_get_instances(mailbox.encode_get_instances("r")) == "r"


@pytest.mark.parametrize("param", [b"", b"\xff", b"[]", b"1", b"{}", b'{"flow_id": 1}'])
def test_params_that_are_something_else_are_refused(param):
    for decode in (mailbox.decode_push, mailbox.decode_dispatch, mailbox.decode_get_instances):
        with pytest.raises(UsageError):
            decode(param)


def test_message_ids_have_to_be_text():
    with pytest.raises(UsageError):
        mailbox.decode_dispatch(b'{"flow_id": "f", "message_ids": [1]}')


def test_a_message_that_waits_can_be_withdrawn():
    boxes = Mailboxes()
    for key in "123":
        boxes.push("f", key, SERIAL)
    assert boxes.unfinished("f") == 3
    assert boxes.withdraw("f", "2")
    assert not boxes.withdraw("f", "1"), "it is in flight"
    assert not boxes.withdraw("g", "1")
    assert [boxes.holds("f", key) for key in "123"] == [True, False, True]
    assert boxes.finished("f", ["1"]) == [dispatch("3")]


def test_what_is_restored_is_given_out_in_its_order_once_all_is_known():
    boxes = Mailboxes()
    boxes.restore("f", "1", SERIAL)
    boxes.restore("f", "2", SERIAL)
    assert boxes.pending("f") == ("1", "2")
    assert boxes.due() == [dispatch("1")]
    boxes.restore("f", "1", SERIAL)
    assert boxes.finished("f", ["1"]) == [dispatch("2")]
