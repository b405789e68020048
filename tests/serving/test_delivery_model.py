"""Mailbox, state and outbox as one model: whatever dies when, each message counts once, in order.

The rules play senders, scheduler and workers with the real pure parts (`Mailboxes`, `Record`,
`Outgoing`), on a disk that survives and memory that does not. A turn takes three steps (commit,
bring, finish), and a process may die between any two.
"""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.colink import keys
from engine.colink.mailbox import Dispatch, Mailboxes, Route
from engine.flows import FlowMessage
from engine.model.ids import derived_id
from engine.serving.mounting import Record
from engine.serving.outgoing import Outgoing, pushed, replied

ME = "02" * 33
FLOWS = ("first", "second")
"""Each tells the second one, which tells nobody, of every message it gets from outside."""
ROUTE = Route()


@dataclass
class Push:
    """A push task: finished once its message's dispatch task exists.

    `taken` is in memory: whether the scheduler that lives has put its message into a mailbox.
    """

    flow_id: str
    message_key: str
    started: bool = True
    taken: bool = False


@dataclass
class Turn:
    """A dispatch task at work: what was read, and how far it has come."""

    task_id: int
    flow_id: str
    message_key: str
    outbox: list[Outgoing] = field(default_factory=list)
    committed: bool = False


class Delivery(RuleBasedStateMachine):
    """The world: entries, push tasks and dispatch tasks on disk; mailboxes and turns in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[str, bytes] = {}
        self.pushes: list[Push] = []
        self.dispatches: dict[int, tuple[Dispatch, bool]] = {}
        self.arrived: dict[str, list[str]] = {flow_id: [] for flow_id in FLOWS}
        self.boxes = Mailboxes()
        self.turns: dict[int, Turn] = {}
        self.sent = 0

    # --- senders --------------------------------------------------------------------------------

    @rule(flow_id=st.sampled_from(FLOWS))
    def send(self, flow_id: str) -> None:
        self.sent += 1
        reply_data = {"mode": "storage", "user_id": ME}
        message = FlowMessage(data={"outside": True}, reply_data=reply_data)
        self.push(pushed(ME, ME, flow_id, message, f"m{self.sent}"))

    def push(self, outgoing: Outgoing) -> None:
        """Write a message and make its push task. One that repeats changes nothing that counts."""
        if outgoing.key not in self.arrived[outgoing.flow_id]:
            self.arrived[outgoing.flow_id].append(outgoing.key)
        self.entries |= outgoing.entry()
        self.pushes.append(Push(outgoing.flow_id, outgoing.key))

    # --- scheduler ------------------------------------------------------------------------------

    @precondition(lambda self: self.waits())
    @rule(data=st.data())
    def take_in(self, data: st.DataObject) -> None:
        """Take in the next push; its task may be finished now, or only at its next delivery."""
        push = next(push for push in self.pushes if push.started and not push.taken)
        self.accept(push)
        if data.draw(st.booleans(), "the scheduler dies before it finishes the push"):
            self.scheduler_dies()
        self.finish_pushes()

    @precondition(lambda self: self.waits())
    @rule()
    def take_in_all(self) -> None:
        """Take in all pushes there are: those that wait are finished when they are dispatched."""
        for push in self.pushes:
            if push.started and not push.taken:
                self.accept(push)
        self.finish_pushes()

    def waits(self) -> bool:
        """Tell whether there is a push that no scheduler has taken in."""
        return any(push.started and not push.taken for push in self.pushes)

    def accept(self, push: Push) -> None:
        push.taken = True
        self.dispatch(self.boxes.push(push.flow_id, push.message_key, ROUTE))

    @rule()
    def scheduler_dies(self) -> None:
        """Lose the mailboxes, and make them anew from what is on disk."""
        self.boxes = Mailboxes()
        for dispatch, started in self.dispatches.values():
            if started:
                self.boxes.dispatched(dispatch.flow_id, dispatch.message_keys, ROUTE)
        for push in self.pushes:
            push.taken = push.started
            if push.started:
                self.boxes.restore(push.flow_id, push.message_key, ROUTE)
        self.dispatch(self.boxes.due())
        self.finish_pushes()

    def dispatch(self, dispatches: list[Dispatch]) -> None:
        for made in dispatches:
            self.dispatches[len(self.dispatches)] = (made, True)

    def finish_pushes(self) -> None:
        for push in self.pushes:
            if push.taken and push.message_key not in self.boxes.pending(push.flow_id):
                push.started = False

    # --- workers --------------------------------------------------------------------------------

    def free(self) -> list[int]:
        """Return the dispatch tasks that no worker is at."""
        started = [task_id for task_id, (_, started) in self.dispatches.items() if started]
        return [task_id for task_id in started if task_id not in self.turns]

    @precondition(lambda self: self.free())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.free()), "task")
        made, _ = self.dispatches[task_id]
        self.turns[task_id] = Turn(task_id, made.flow_id, made.message_keys[0])

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        turn = self.turns[data.draw(st.sampled_from(sorted(self.turns)), "turn")]
        if not turn.committed:
            self.commit(turn)
        elif turn.outbox:
            self.push(turn.outbox.pop(0))
        else:
            del self.turns[turn.task_id]
            made, _ = self.dispatches[turn.task_id]
            self.dispatches[turn.task_id] = (made, False)
            self.dispatch(self.boxes.finished(made.flow_id, made.message_keys, ROUTE))
            self.finish_pushes()

    def commit(self, turn: Turn) -> None:
        """Run the flow and write its record, the messages and the reply, all in one step."""
        record = self.record(turn.flow_id)
        if turn.message_key in record.done:
            outbox = record.outbox_of(turn.message_key)
        else:
            outbox = self.run(turn)
            state = [*(record.state or []), turn.message_key]
            self.entries[turn.flow_id] = record.after(turn.message_key, state, outbox).encode()
            for outgoing in outbox:
                self.entries |= outgoing.entry()
        turn.outbox = [outgoing for outgoing in outbox if outgoing.user_id]
        turn.committed = True

    def run(self, turn: Turn) -> tuple[Outgoing, ...]:
        message = FlowMessage.deserialize(self.entries[turn.message_key])
        if not message.data.get("outside"):
            return ()
        asked = {**message.reply_data, "input_msg_path": turn.message_key}
        answer = FlowMessage(data={}, reply_data=asked, is_reply=True)
        reply = replied(ME, answer, derived_id(turn.message_key, "1"))
        told = pushed(ME, ME, "second", FlowMessage(data={}), derived_id(turn.message_key, "2"))
        assert reply is not None
        return (reply, told) if turn.flow_id == "first" else (reply,)

    @precondition(lambda self: self.turns)
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        del self.turns[data.draw(st.sampled_from(sorted(self.turns)), "turn")]

    # --- what holds -----------------------------------------------------------------------------

    def record(self, flow_id: str) -> Record:
        return Record.decode(self.entries.get(flow_id))

    @invariant()
    def an_instance_has_one_message_at_work(self) -> None:
        for flow_id in FLOWS:
            started = [
                made
                for made, started in self.dispatches.values()
                if started and made.flow_id == flow_id
            ]
            assert len(started) <= 1

    @invariant()
    def messages_count_once_and_in_order(self) -> None:
        for flow_id in FLOWS:
            counted = self.record(flow_id).state or []
            assert counted == self.arrived[flow_id][: len(counted)]

    def teardown(self) -> None:
        """Let everybody finish; then nothing is missing, and every question has its answer."""
        self.turns.clear()
        self.scheduler_dies()
        while self.free() or self.waits():
            self.take_in_all()
            for task_id in self.free():
                made, _ = self.dispatches[task_id]
                turn = self.turns[task_id] = Turn(task_id, made.flow_id, made.message_keys[0])
                self.commit(turn)
                for outgoing in turn.outbox:
                    self.push(outgoing)
                del self.turns[task_id]
                self.dispatches[task_id] = (made, False)
                self.dispatch(self.boxes.finished(made.flow_id, made.message_keys, ROUTE))
                self.finish_pushes()
        for flow_id in FLOWS:
            assert (self.record(flow_id).state or []) == self.arrived[flow_id]
        told = {keys.push_message(derived_id(key, "2")) for key in self.arrived["first"]}
        assert told <= set(self.arrived["second"])
        for number in range(1, self.sent + 1):
            assert keys.push_response(keys.push_message(f"m{number}")) in self.entries
        assert len(self.boxes) == 0


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
