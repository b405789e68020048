"""Composites that are declared and not written: what a manifest says is all there is to them.

Each asks its subflows through `ask_subflow` and waits for nothing: where a run stands is part of
the state, which is stored with every turn. So callers never mix, a run that is resumed repeats no
step that is done, and no worker is held, however deep composites are nested.
"""

import logging
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from engine.flows import topology
from engine.flows.composite import CompositeFlow, PendingRun
from engine.flows.conditions import holds
from engine.flows.config import Config
from engine.flows.flow import AtomicFlow
from engine.flows.port import FlowPort
from engine.flows.topology import CALLER, Data, Pattern, Step, taken
from engine.model.errors import FlowFailedError, UsageError
from engine.model.ids import new_id
from engine.model.message import FlowMessage

log = logging.getLogger(__name__)

_JOINS = "joins"


class TopologyFlow(CompositeFlow):
    """What the four have in common. A class of one's own may derive from one of them."""

    pattern: ClassVar[Pattern | None] = None

    __default_flow_config: ClassVar[Config] = {
        "subflows_config": {},
        "topology": [],
        "answer": None,
    }

    def __init__(
        self,
        flow_config: Config,
        subflows: Mapping[str, AtomicFlow] | None = None,
        port: FlowPort | None = None,
    ) -> None:
        super().__init__(flow_config, subflows, port)
        assert self.pattern is not None
        self.topology, problems = topology.read(flow_config, self.pattern)
        if problems:
            place = ".".join(map(str, problems[0].path))
            raise UsageError(f"{self.name}: {place}: {problems[0].message}", problems[0].hint)

    def run(self, input_message: FlowMessage) -> None:
        """Start a run for a caller's message, or go on with one for a step's answer."""
        if not input_message.is_reply:
            self.begin(input_message)
            return
        run = self.take_run(input_message)
        if run is None:
            # An answer that comes twice, or to a race that is decided.
            log.debug("%s needs the answer to %s no more", self.name, input_message.message_id)
            return
        self.go_on(run, input_message)

    def begin(self, caller: FlowMessage) -> None:
        """Start a run."""
        raise NotImplementedError

    def go_on(self, run: PendingRun, reply: FlowMessage) -> None:
        """Go on with a run, for the answer of a step."""
        raise NotImplementedError

    def ask_step(
        self, index: int, data: Data, caller: FlowMessage, known: Mapping[str, Data], **notes: Any
    ) -> None:
        """Ask the step at `index`; `known` has the answers of steps that are needed later."""
        step = self.topology.steps[index]
        try:
            question = step.question(data, {**known, CALLER: caller.data})
        except (KeyError, TypeError, ValueError) as error:
            raise _unfit(step, "input_interface", error) from error
        self.ask_subflow(step.flow, question, caller, step=index, known=dict(known), **notes)

    def step_of(self, run: PendingRun) -> Step:
        """Return the step that was asked; UsageError when the topology has changed meanwhile."""
        index = int(run.notes["step"])
        steps = self.topology.steps
        if index >= len(steps) or steps[index].flow != run.subflow:
            raise UsageError(f"{self.name} has another topology now; the run cannot go on.")
        return steps[index]

    def output_of(self, run: PendingRun, reply: FlowMessage) -> Data:
        """Return what the step gives; FlowFailedError, naming the step, when it failed."""
        step = self.step_of(run)
        if reply.failed:
            raise _failure(step, reply)
        try:
            return step.output(reply.data)
        except (KeyError, TypeError, ValueError) as error:
            raise _unfit(step, "output_interface", error) from error

    def finish(self, caller: FlowMessage, data: Data, known: Mapping[str, Data]) -> None:
        """Answer the caller: with `data`, or what `answer` says."""
        if self.topology.answer is not None:
            data = taken(self.topology.answer, {**known, CALLER: caller.data})
        self.send_message(self.package_output_message(caller, data))


class SequentialFlow(TopologyFlow):
    """Asks the flows of its `topology` one after the other, each with what the one before answered.

    It answers with what the last one answered, or what `answer` collects.
    """

    pattern = Pattern.SEQUENCE

    __default_flow_config: ClassVar[Config] = {
        "name": "SequentialFlow",
        "description": "Asks flows one after the other.",
    }

    def begin(self, caller: FlowMessage) -> None:
        """Ask the first step."""
        self.ask_step(0, caller.data, caller, {}, round=1)

    def go_on(self, run: PendingRun, reply: FlowMessage) -> None:
        """Ask the next step, or answer."""
        output = self.output_of(run, reply)
        known = dict(run.notes["known"])
        name = self.step_of(run).name
        if name in self.topology.kept:
            known[name] = output
        following, round_number = run.notes["step"] + 1, run.notes["round"]
        if following == len(self.topology.steps):
            if self.is_done(output, round_number):
                self.finish(run.message, output, known)
                return
            following, round_number = 0, round_number + 1
        self.ask_step(following, output, run.message, known, round=round_number)

    def is_done(self, output: Data, round_number: int) -> bool:
        """Tell whether nothing comes after the last step of this round."""
        return True


class CircularFlow(SequentialFlow):
    """Asks the flows of its `topology` in turn, again and again, until a condition holds.

    After each round it looks whether the last answer fulfils `until`; after `max_rounds` rounds it
    answers with what there is.
    """

    pattern = Pattern.CIRCLE

    __default_flow_config: ClassVar[Config] = {
        "name": "CircularFlow",
        "description": "Asks flows in turn until a condition holds.",
        "until": None,
        "max_rounds": 10,
    }

    def is_done(self, output: Data, round_number: int) -> bool:
        """Tell whether the condition holds, or the rounds are used up."""
        until = self.topology.until
        return round_number >= self.topology.max_rounds or (
            until is not None and holds(until, output)
        )


class BranchingFlow(TopologyFlow):
    """Asks the first flow of its `topology` whose condition `when` the caller's data fulfils.

    A step without `when` is for all the rest.
    """

    pattern = Pattern.BRANCHES

    __default_flow_config: ClassVar[Config] = {
        "name": "BranchingFlow",
        "description": "Asks the flow whose condition holds.",
    }

    def begin(self, caller: FlowMessage) -> None:
        """Ask the step that is for this message."""
        for index, step in enumerate(self.topology.steps):
            if step.when is None or holds(step.when, caller.data):
                self.ask_step(index, caller.data, caller, {})
                return
        raise UsageError(
            f"No branch of {self.name} is for this message.",
            "Let the last step of its topology have no `when`.",
        )

    def go_on(self, run: PendingRun, reply: FlowMessage) -> None:
        """Answer."""
        output = self.output_of(run, reply)
        self.finish(run.message, output, {self.step_of(run).name: output})


class ParallelFlow(TopologyFlow):
    """Asks all flows of its `topology` at the same time.

    With `join: all` it answers with the answers of all, by the names of the steps, and fails as
    soon as one does. With `join: first` it answers with the first answer that is no error.
    """

    pattern = Pattern.PARALLEL

    __default_flow_config: ClassVar[Config] = {
        "name": "ParallelFlow",
        "description": "Asks flows at the same time.",
        "join": "all",
    }

    def begin(self, caller: FlowMessage) -> None:
        """Ask all steps."""
        join = new_id()
        for index in range(len(self.topology.steps)):
            self.ask_step(index, caller.data, caller, {}, join=join)
        self._joins()[join] = {}

    def go_on(self, run: PendingRun, reply: FlowMessage) -> None:
        """Take in an answer, and answer if it decides the run."""
        if self.topology.first_wins:
            self._race(run, reply)
            return
        outputs = self._joins()[run.notes["join"]]
        outputs[self.step_of(run).name] = self.output_of(run, reply)
        if len(outputs) == len(self.topology.steps):
            # In the order of the topology, not of the answers.
            joined = {step.name: outputs[step.name] for step in self.topology.steps}
            self._end(run.notes["join"])
            self.finish(run.message, joined, joined)

    def _race(self, run: PendingRun, reply: FlowMessage) -> None:
        join = run.notes["join"]
        if reply.failed and self._waiting_for(join):
            return
        output = self.output_of(run, reply)
        self._end(join)
        self.finish(run.message, output, {self.step_of(run).name: output})

    def end_run(self, message: FlowMessage) -> None:
        """Forget the whole run, with the questions of its other steps."""
        entry = self._pending().get(message.input_message_id) if message.is_reply else None
        if entry is not None:
            self._end(entry["notes"]["join"])

    def _end(self, join: str) -> None:
        for question in self._waiting_for(join):
            del self._pending()[question]
        self._joins().pop(join, None)

    def _waiting_for(self, join: str) -> list[str | None]:
        """Return the ids of the questions of a run that are not answered yet."""
        return [key for key, entry in self._pending().items() if entry["notes"]["join"] == join]

    def _joins(self) -> dict[str, dict[str, Data]]:
        return cast(dict[str, dict[str, Data]], self.flow_state.setdefault(_JOINS, {}))

    def _forget_overdue(self) -> None:
        super()._forget_overdue()
        live = {entry["notes"]["join"] for entry in self._pending().values()}
        for join in self._joins().keys() - live:
            del self._joins()[join]


def _failure(step: Step, reply: FlowMessage) -> FlowFailedError:
    return FlowFailedError(
        f"the step {step.name} failed: {reply.data.get('error')}", reply.data, step.name
    )


def _unfit(step: Step, interface: str, error: Exception) -> FlowFailedError:
    text = str(error.args[0]) if error.args else type(error).__name__
    return FlowFailedError(f"the {interface} of the step {step.name} failed: {text}", {}, step.name)
