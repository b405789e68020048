"""What flows and proxies put into their messages: protocol sheet §9.6, §9.8, §9.10."""

import re
import time
import uuid

import pytest

from engine.flows import AtomicFlow, CompositeFlow, FlowMessage, proxy
from engine.flows.deadlines import working_on
from engine.model.errors import UsageError
from engine.testing.ports import USER_ID

OTHER_USER = "03" + "a" * 64
NO_REPLY = {"mode": "no_reply"}
FIELD_ORDER = [
    "message_id",
    "created_at",
    "message_type",
    "created_by",
    "data",
    "src_flow_id",
    "reply_data",
    "src_flow",
    "dst_flow",
    "input_message_id",
    "is_reply",
    "user_id",
]


def fields(message):
    """The fields on the wire without those that are new in every message."""
    sent = message.to_dict()
    assert list(sent) == FIELD_ORDER
    assert uuid.UUID(sent.pop("message_id")).version == 4
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{9}", sent.pop("created_at"))
    return sent


def deadline(message):
    return message.reply_data.pop("deadline")


@pytest.fixture
def caller(port):
    config = AtomicFlow.get_config(name="Caller", description="", flow_id="caller-id")
    return AtomicFlow.instantiate_from_config(config, port)


@pytest.fixture
def rev(port):
    return proxy("rev", "rev-id", port, OTHER_USER)


def test_a_proxy_has_the_configuration_of_an_instance_somewhere_else(rev):
    assert isinstance(rev, AtomicFlow)
    assert rev.flow_config == {
        **AtomicFlow.get_config(),
        "name": "Proxy_rev",
        "description": "Proxy of rev",
        "user_id": OTHER_USER,
        "flow_id": "rev-id",
        "flow_endpoint": "rev",
    }


def test_a_proxy_of_ones_own_flow_says_local(port):
    assert proxy("rev", "rev-id", port, USER_ID).flow_config["user_id"] == "local"
    assert proxy("rev", "rev-id", port).flow_config["user_id"] == "local"


def test_an_input_message_carries_the_id_of_the_proxy_which_is_the_targets(rev):
    message = rev.package_input_message({"number": 1}, dst_flow="somewhere")
    assert fields(message) == {
        "message_type": "FlowMessage",
        "created_by": "Proxy_rev",
        "data": {"number": 1},
        "src_flow_id": "rev-id",
        "reply_data": NO_REPLY,
        "src_flow": "Proxy_rev",
        "dst_flow": "somewhere",
        "input_message_id": message.message_id,
        "is_reply": False,
        "user_id": USER_ID,
    }


def test_an_input_message_of_a_flow_that_is_not_connected_or_mounted():
    flow = AtomicFlow.instantiate_from_default_config(name="f", description="")
    message = flow.package_input_message({}, reply_data={"mode": "push"})
    assert (message.src_flow_id, message.dst_flow, message.user_id) == ("unknown", "unknown", None)
    assert message.reply_data == {"mode": "push"}


def test_packaging_copies_the_data(rev):
    data = {"list": [1]}
    message = rev.package_input_message(data)
    reply = rev.package_output_message(message, data)
    data["list"].append(2)
    assert message.data == reply.data == {"list": [1]}


def test_get_reply_asks_to_push_the_answer_to_the_flow_that_packaged_the_message(port, caller, rev):
    message = caller.package_input_message({"number": 1})
    before = time.time()
    assert rev.get_reply(message) is None
    [(user_id, flow_id, sent)] = port.pushed
    assert (user_id, flow_id) == (OTHER_USER, "rev-id")
    assert before + 60 <= deadline(sent) <= time.time() + 60
    assert sent.message_id != message.message_id
    assert fields(sent) == {
        "message_type": "FlowMessage",
        "created_by": "Proxy_rev",
        "data": {"number": 1},
        "src_flow_id": "caller-id",
        "reply_data": {"mode": "push", "user_id": USER_ID, "flow_id": "caller-id"},
        "src_flow": "Proxy_rev",
        "dst_flow": "rev-id",
        "input_message_id": message.message_id,
        "is_reply": False,
        "user_id": USER_ID,
    }


def test_get_reply_future_asks_to_store_the_answer(port, caller, rev):
    message = caller.package_input_message({"number": 1})
    future = rev.get_reply_future(message, timeout=5)
    [(user_id, flow_id, sent)] = port.asked
    assert (user_id, flow_id) == (OTHER_USER, "rev-id")
    assert future.response_key == f"push_tasks:{sent.message_id}:response"
    assert future.deadline == deadline(sent)
    assert abs(future.deadline - time.time() - 5) < 1
    assert fields(sent) == {
        "message_type": "FlowMessage",
        "created_by": "Proxy_rev",
        "data": {"number": 1},
        "src_flow_id": "caller-id",
        "reply_data": {"mode": "storage", "user_id": USER_ID},
        "src_flow": "Proxy_rev",
        "dst_flow": "rev-id",
        "input_message_id": message.message_id,
        "is_reply": False,
        "user_id": USER_ID,
    }


def test_an_output_message_goes_back_the_way_the_input_says(port, caller, rev):
    reply_data = {"mode": "storage", "user_id": USER_ID, "input_msg_path": "push_tasks:1:msg"}
    message = FlowMessage({"number": 1}, "Proxy_rev", "rev-id", "rev-id", reply_data)
    message.input_message_id = "the-first"
    output = caller.package_output_message(message, {"output_number": 2})
    assert fields(output) == {
        "message_type": "FlowMessage",
        "created_by": "Caller",
        "data": {"output_number": 2},
        "src_flow_id": "caller-id",
        "reply_data": reply_data,
        "src_flow": "Caller",
        "dst_flow": "Proxy_rev",
        "input_message_id": "the-first",
        "is_reply": True,
        "user_id": USER_ID,
    }
    assert output.reply_data is not reply_data


def test_an_output_message_may_take_its_data_from_a_message(caller):
    message = caller.package_input_message({})
    assert caller.package_output_message(message, FlowMessage({"a": 1})).data == {"a": 1}


def test_the_error_status_of_a_message_is_not_passed_on(caller):
    failed = FlowMessage({}, reply_data={"mode": "push", "status": "error", "deadline": 3.0})
    output = caller.package_output_message(failed, {})
    assert output.reply_data == {"mode": "push", "deadline": 3.0}


def test_send_message_replies_with_replies_and_pushes_everything_else(port, caller, rev):
    message = rev.package_input_message({"number": 1})
    rev.send_message(message)
    [(user_id, flow_id, pushed)] = port.pushed
    assert (user_id, flow_id, pushed.to_dict()) == (OTHER_USER, "rev-id", message.to_dict())
    reply = caller.package_output_message(message, {"a": 1})
    rev.send_message(reply)
    assert [sent.to_dict() for sent in port.replies] == [reply.to_dict()]
    assert len(port.pushed) == 1


def test_private_keys_never_leave(port):
    config = AtomicFlow.get_config(
        name="f", description="", flow_id="id", private_keys=["api_key", "user_id"]
    )
    flow = AtomicFlow.instantiate_from_config(config, port)
    message = flow.package_input_message({"api_key": "s", "text": "t"})
    assert message.data["api_key"] == "s"
    flow.get_reply(message)
    flow.get_reply_future(message)
    flow.send_message(flow.package_output_message(message, {"api_key": "s", "text": "t"}))
    for sent in (port.pushed[0][2], port.asked[0][2], port.replies[0]):
        assert sent.data == {"text": "t"}
        assert sent.user_id is None


def test_without_a_port_nothing_can_be_sent():
    flow = AtomicFlow.instantiate_from_default_config(name="f", description="", flow_id="id")
    message = flow.package_input_message({})
    for send in (flow.send_message, flow.get_reply, flow.get_reply_future):
        with pytest.raises(UsageError, match="f cannot send: it is not connected"):
            send(message)


def test_a_flow_that_is_no_instance_cannot_get_a_message(port):
    flow = AtomicFlow.instantiate_from_default_config(name="f", description="")
    flow.set_port(port)
    with pytest.raises(UsageError, match="no flow_id"):
        flow.get_reply(flow.package_input_message({}))


def test_subflows_are_proxies_named_by_their_keys(port):
    class Pair(CompositeFlow):
        pass

    stored = {
        "user_id": OTHER_USER,
        "flow_endpoint": "rev",
        "name": "ReverseNumberFirst",
        "description": "d",
        "singleton": True,
        "_target_": "aiflows.base_flows.AtomicFlow.instantiate_from_default_config",
        "flow_id": "rev-id",
    }
    pair = Pair.instantiate_from_config(
        {"name": "pair", "description": "", "flow_id": "pair-id", "subflows_config": {"a": stored}},
        port,
    )
    assert {key: type(flow) for key, flow in pair.subflows.items()} == {"a": AtomicFlow}
    assert pair.subflows["a"].flow_config == {**AtomicFlow.get_config(), **stored, "name": "a"}
    assert pair.flow_config["subflows_config"]["a"]["name"] == "ReverseNumberFirst"
    message = pair.package_input_message({"number": 1})
    assert (message.src_flow, message.src_flow_id) == ("pair", "pair-id")
    pair.subflows["a"].get_reply(message)
    [(user_id, flow_id, sent)] = port.pushed
    assert (user_id, flow_id) == (OTHER_USER, "rev-id")
    assert (sent.src_flow, sent.created_by, sent.src_flow_id) == ("a", "a", "pair-id")
    assert (sent.dst_flow, sent.reply_data["flow_id"]) == ("rev-id", "pair-id")


def test_no_deadline_is_later_than_that_of_the_message_at_work(port, rev):
    message = rev.package_input_message({})
    enclosing = FlowMessage({}, reply_data={"mode": "storage", "deadline": time.time() + 10})
    with working_on(enclosing):
        rev.get_reply(message)
        rev.get_reply_future(message, timeout=5)
    rev.get_reply(message, timeout=100)
    sent = (port.pushed[0][2], port.asked[0][2], port.pushed[1][2])
    limited, short, free = (message.deadline - time.time() for message in sent)
    assert 9 < limited <= 10
    assert 4 < short <= 5
    assert 99 < free <= 100


def test_the_type_names_are_those_of_aiflows():
    assert (AtomicFlow.type(), CompositeFlow.type()) == ("AtomicFlow", "CompositeFlow")


def test_the_interface_description_is_what_the_configuration_says():
    flow = AtomicFlow({"name": "f", "description": "", "input_interface": ["a"]})
    assert flow.get_interface_description() == {"input": ["a"], "output": None}
