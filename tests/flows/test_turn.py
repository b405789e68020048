import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.flows import AtomicFlow, CompositeFlow, FlowFailedError, FlowMessage, proxy
from engine.flows.turn import describe, fail_turn, run_turn, runs_async
from engine.model.errors import UsageError


class Plain(AtomicFlow):
    def run(self, input_message):
        self.thread = threading.current_thread().name
        proxy("other", "other-id", self.port).get_reply(input_message)


class Async(AtomicFlow):
    async def run(self, input_message):
        await asyncio.sleep(0)
        self.thread = threading.current_thread().name
        proxy("other", "other-id", self.port).get_reply(input_message)


class Returning(AtomicFlow):
    def run(self, input_message):
        return self.later()

    async def later(self):
        self.thread = "later"
        proxy("other", "other-id", self.port).get_reply(FlowMessage({}))


class Failing(AtomicFlow):
    def run(self, input_message):
        self.flow_state["half"] = "done"
        raise ValueError("bad luck")


class Relay(CompositeFlow):
    def run(self, input_message):
        if not input_message.is_reply:
            self.flow_state["asked"] = self.flow_state.get("asked", 0) + 1
            note = input_message.data.get("note")
            self.ask_subflow("inner", input_message.data, input_message, note=note)
            return
        run = self.resume(input_message)
        if input_message.data.get("explode"):
            raise RuntimeError("cannot go on")
        output = {"answer": input_message.data, "note": run.notes["note"], "by": run.subflow}
        self.send_message(self.package_output_message(run.message, output))


class Stepping(CompositeFlow):
    def run(self, input_message):
        caller = self.resume(input_message).message if input_message.is_reply else input_message
        self.ask_subflow("inner", {}, caller)


def make(flow_class, port, **config):
    config = {"name": flow_class.__name__, "description": "", "flow_id": "my-id", **config}
    flow = flow_class.instantiate_from_default_config(**config)
    flow.set_port(port)
    return flow


@pytest.fixture
def relay(port):
    return make(Relay, port, subflows_config={"inner": {"flow_id": "inner-id"}})


def from_caller(data, **reply_data):
    reply_data = {
        "mode": "storage",
        "user_id": "u",
        "input_msg_path": "push_tasks:1:msg",
    } | reply_data
    return FlowMessage(data, src_flow="caller", reply_data=reply_data)


def answer_to(question, data, **more):
    return FlowMessage(
        data,
        reply_data=question.reply_data | more,
        input_message_id=question.input_message_id,
        is_reply=True,
    )


@pytest.mark.parametrize("flow_class", [Plain, Async, Returning])
async def test_a_turn_runs_with_the_deadline_of_its_message(port, flow_class):
    flow = make(flow_class, port)
    deadline = time.time() + 7
    with ThreadPoolExecutor(1, "flow-thread") as executor:
        await run_turn(flow, from_caller({}, deadline=deadline), executor)
    [(_, _, sent)] = port.pushed
    assert sent.deadline == deadline
    assert flow.thread.startswith({Plain: "flow-thread", Async: "Main"}.get(flow_class, "later"))


async def test_turns_at_the_same_time_keep_their_own_deadlines(port):
    flow = make(Async, port)
    deadlines = [time.time() + 5 + n for n in range(5)]
    await asyncio.gather(*(run_turn(flow, from_caller({}, deadline=end)) for end in deadlines))
    assert sorted(sent.deadline for _, _, sent in port.pushed) == deadlines


def test_which_flows_run_without_a_thread(port):
    assert [runs_async(make(kind, port)) for kind in (Plain, Async)] == [False, True]


async def test_what_run_raises_leaves_the_turn(port):
    with pytest.raises(ValueError, match="bad luck"):
        await run_turn(make(Failing, port), from_caller({}))


async def test_a_flow_without_run_says_so(port):
    with pytest.raises(NotImplementedError, match="AtomicFlow has no run method"):
        await run_turn(make(AtomicFlow, port), from_caller({}))


async def fail(flow, message, state=None):
    try:
        await run_turn(flow, message)
    except Exception as error:
        return fail_turn(flow, message, error, state, flow_endpoint="the-endpoint")
    return pytest.fail("the turn did not fail")


async def test_a_composites_next_question_has_its_callers_deadline_not_the_last_questions(port):
    relay = make(Stepping, port, subflows_config={"inner": {"flow_id": "inner-id"}})
    deadline = time.time() + 30
    await run_turn(relay, from_caller({}, deadline=deadline))
    first = port.pushed[0][2]
    soon = {"mode": "push", "deadline": time.time() + 5}
    reply = FlowMessage({}, is_reply=True, input_message_id=first.input_message_id, reply_data=soon)
    await run_turn(relay, reply)
    assert [sent.deadline for _, _, sent in port.pushed] == [deadline, deadline]


async def test_a_failed_turn_is_answered_to_its_caller_and_leaves_the_state_as_it_was(port):
    flow = make(Failing, port)
    message = from_caller({}, deadline=5.0)
    reply = await fail(flow, message, {"kept": 1})
    assert flow.flow_state == {"kept": 1}
    assert reply.failed
    assert reply.is_reply
    assert reply.reply_data == message.reply_data | {"status": "error"}
    assert (reply.dst_flow, reply.input_message_id) == ("caller", message.message_id)
    where = reply.data.pop("where")
    assert where.split(":")[0].endswith("test_turn.py")
    step = {
        "flow": "Failing",
        "user_id": port.user_id,
        "flow_endpoint": "the-endpoint",
        "flow_id": "my-id",
    }
    assert reply.data == {
        "error": f"Failing: ValueError: bad luck ({where})",
        "error_type": "ValueError",
        "message": "bad luck",
        **step,
        "path": [step],
        "cause": {"error_type": "ValueError", "message": "bad luck"},
    }


async def test_where_names_the_flows_own_code_and_no_folder_of_the_machine(make_package, port):
    code = """
        import json
        from engine.flows import AtomicFlow

        class Parser(AtomicFlow):
            def run(self, input_message):
                json.loads("{")
    """
    module = make_package("parsing.flows", {"parsing/__init__.py": "", "parsing/flows.py": code})
    reply = await fail(make(module.Parser, port), from_caller({}))
    assert reply.data["where"] == "parsing/flows.py:7"
    top = make_package("topmost", {"topmost/__init__.py": code})
    assert (await fail(make(top.Parser, port), from_caller({}))).data["where"] == (
        "topmost/__init__.py:7"
    )


def test_an_exception_that_was_never_raised_is_nowhere(port):
    data = describe(make(Failing, port), ValueError("x"))
    assert (data["error"], data["where"]) == ("Failing: ValueError: x", "")


async def test_a_reply_that_an_atomic_flow_cannot_handle_is_answered_to_nobody(port):
    question = from_caller({})
    assert await fail(make(Failing, port), answer_to(question, {})) is None


async def test_a_composite_goes_on_with_the_run_that_the_reply_is_for(port, relay):
    caller = from_caller({"x": 1, "note": {"deep": [1]}})
    await run_turn(relay, caller)
    relay.load_state(relay.dump_state())
    [(_, _, question)] = port.pushed
    assert (question.data, question.reply_data["flow_id"]) == (caller.data, "my-id")
    await run_turn(relay, answer_to(question, {"y": 2}))
    [reply] = port.replies
    assert reply.data == {"answer": {"y": 2}, "note": {"deep": [1]}, "by": "inner"}
    assert (reply.reply_data, reply.input_message_id) == (caller.reply_data, caller.message_id)
    assert relay.flow_state == {"asked": 1, "pending_runs": {}}


async def test_an_error_reply_of_a_subflow_ends_the_run_with_an_error_that_names_it(port, relay):
    caller = from_caller({"x": 1})
    await run_turn(relay, caller)
    [(_, _, question)] = port.pushed
    failed = answer_to(question, {"error": "deep down"}, status="error")
    reply = await fail(relay, failed, relay.dump_state())
    assert reply.data["error"].startswith(
        "Relay: FlowFailedError: the subflow inner failed: deep down"
    )
    assert reply.reply_data == caller.reply_data | {"status": "error"}
    assert relay.flow_state == {"asked": 1, "pending_runs": {}}


async def test_a_composite_that_fails_on_a_reply_tells_the_caller_who_started_the_run(port, relay):
    callers = [from_caller({"x": n}) for n in range(2)]
    for caller in callers:
        await run_turn(relay, caller)
    question = port.pushed[1][2]
    reply = await fail(relay, answer_to(question, {"explode": True}), relay.dump_state())
    assert reply.input_message_id == callers[1].message_id
    assert reply.data["error_type"] == "RuntimeError"
    waiting = [entry["message"].data for entry in relay.flow_state["pending_runs"].values()]
    assert waiting == [{"x": 0}]


async def test_a_reply_that_comes_twice_is_answered_to_nobody(port, relay):
    await run_turn(relay, from_caller({}))
    reply = answer_to(port.pushed[0][2], {})
    await run_turn(relay, reply)
    with pytest.raises(UsageError, match="a reply that no run waits for"):
        await run_turn(relay, reply)
    assert await fail(relay, reply, relay.dump_state()) is None


async def test_runs_whose_callers_stopped_waiting_are_forgotten(port, relay):
    await run_turn(relay, from_caller({"x": "late"}, deadline=time.time() - 1))
    await run_turn(relay, from_caller({"x": "open"}))
    await run_turn(relay, from_caller({"x": "new"}, deadline=time.time() + 60))
    waiting = [entry["message"].data for entry in relay.flow_state["pending_runs"].values()]
    assert waiting == [{"x": "open"}, {"x": "new"}]


def test_asking_an_unknown_subflow_is_refused(relay):
    with pytest.raises(UsageError, match=r"Relay has no subflow 'outer'\. It has: inner\."):
        relay.ask_subflow("outer", {}, from_caller({}))


def test_resuming_an_error_raises_with_the_subflows_details(port, relay):
    relay.run(from_caller({}))
    failed = answer_to(port.pushed[0][2], {"error": "e", "flow": "f"}, status="error")
    with pytest.raises(FlowFailedError) as failure:
        relay.resume(failed)
    assert failure.value.details == {"error": "e", "flow": "f"}


def test_asking_needs_a_state_that_is_kept(relay):
    relay.keeps_state = False
    with pytest.raises(UsageError, match="served with parallel_dispatch and keeps no state"):
        relay.run(from_caller({}))
    assert relay.port.pushed == []
