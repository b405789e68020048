"""The topology of a composite that is declared and not written: its steps, as data.

`topology` in the configuration of one of the classes in `engine.flows.patterns` is a list of steps,
as in aiflows. A step is the key of a subflow, or a mapping with it as `flow`. Pure; `read` is used
by the classes themselves and, to find faults before anything runs, by `engine.loading`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from engine.flows import conditions
from engine.flows.conditions import MISSING, Problem, look_up
from engine.flows.interfaces import Transformation, build
from engine.model.errors import UsageError

Data = dict[str, Any]
Paths = Mapping[str, str]
CALLER = "input"
"""What the caller's data is called in `take` and `answer`."""
_STEP_KEYS = ("flow", "name", "take", "input_interface", "output_interface", "when")


class Pattern(StrEnum):
    """How the steps of a topology hang together."""

    SEQUENCE = "sequence"
    CIRCLE = "circle"
    BRANCHES = "branches"
    PARALLEL = "parallel"


def pattern_of(flow_class: Any) -> Pattern | None:
    """Return the pattern of a flow class, described or not; None for one that is written in code.

    Other classes may have an attribute of that name: only a Pattern counts.
    """
    pattern = getattr(flow_class, "pattern", None)
    return pattern if isinstance(pattern, Pattern) else None


@dataclass(frozen=True)
class Step:
    """One step: which subflow is asked, with what, and what becomes of its answer.

    `take` maps keys to where their values are: `input.<path>` in the caller's data, `<step>.<path>`
    in the newest answer of a step. Without it a step gets what the step before it answered.
    """

    flow: str
    name: str
    take: Paths | None = None
    input_interface: Transformation | None = None
    output_interface: Transformation | None = None
    when: Mapping[str, Any] | None = None

    def question(self, data: Data, known: Mapping[str, Data]) -> Data:
        """Return what the subflow is asked, where the step before answered `data`."""
        given = data if self.take is None else taken(self.take, known)
        return given if self.input_interface is None else self.input_interface(given)

    def output(self, answer: Data) -> Data:
        """Return what the step gives, where the subflow answered `answer`."""
        return answer if self.output_interface is None else self.output_interface(answer)


@dataclass(frozen=True)
class Topology:
    """The steps of a composite, and when it is done.

    `kept` are the names of the steps whose answers are needed later. `until` and `max_rounds` are
    for a circle, `first_wins` for steps that run at the same time.
    """

    steps: tuple[Step, ...]
    answer: Paths | None = None
    until: Mapping[str, Any] | None = None
    max_rounds: int = 1
    first_wins: bool = False
    kept: frozenset[str] = field(default=frozenset())


def taken(paths: Paths, known: Mapping[str, Data]) -> Data:
    """Return the values at `paths` in `known`; keys without a value are left out."""
    found = {key: look_up(known, path) for key, path in paths.items()}
    return {key: value for key, value in found.items() if value is not MISSING}


def read(config: Mapping[str, Any], pattern: Pattern) -> tuple[Topology, list[Problem]]:
    """Return the topology in a flow's configuration, and all that is wrong with it.

    Where something is wrong, the topology is not to be used.
    """
    reader = _Reader(config, pattern)
    return reader.topology(), reader.problems


class _Reader:
    def __init__(self, config: Mapping[str, Any], pattern: Pattern) -> None:
        self.problems: list[Problem] = []
        self._config = config
        self._pattern = pattern
        self._subflows = config.get("subflows_config") or {}

    def topology(self) -> Topology:
        entries = self._config.get("topology")
        if not isinstance(entries, list) or not entries:
            hint = "Such as topology: [first, second], with the keys of its subflows."
            self._add(("topology",), "A list of steps is needed.", hint)
            return Topology(())
        steps = [self._step(entry, ("topology", index)) for index, entry in enumerate(entries)]
        self._check_names(steps)
        answer = self._paths(self._config.get("answer"), ("answer",))
        self._check_takes(steps, answer)
        return Topology(
            steps=tuple(steps),
            answer=answer,
            until=self._condition(self._config.get("until"), ("until",)),
            max_rounds=self._max_rounds(),
            first_wins=self._first_wins(),
            kept=_needed([answer, *(step.take for step in steps)]),
        )

    def _add(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        self.problems.append(Problem(path, message, hint))

    # --- steps --------------------------------------------------------------------------------

    def _step(self, entry: Any, path: tuple[str | int, ...]) -> Step:
        step = {"flow": entry} if isinstance(entry, str) else entry
        if not isinstance(step, Mapping) or not isinstance(step.get("flow"), str):
            self._add(path, "A step names its flow.", "Write the key of a subflow, or flow: <key>.")
            return Step("", "")
        for key in step:
            if key not in _STEP_KEYS:
                known = f"A step has: {', '.join(_STEP_KEYS)}."
                self._add((*path, key), f"A step has no {key}.", known)
        flow, name = step["flow"], step.get("name", step["flow"])
        if flow not in self._subflows:
            place = path if isinstance(entry, str) else (*path, "flow")
            known = ", ".join(self._subflows)
            hint = f"Its subflows: {known}." if known else "Write it in subflows."
            self._add(place, f"There is no subflow {flow}.", hint)
        if not isinstance(name, str) or not name or "." in name or name == CALLER:
            self._add((*path, "name"), f"A step's name is text without a dot, and not {CALLER}.")
            name = flow
        return Step(
            flow=flow,
            name=name,
            take=self._paths(step.get("take"), (*path, "take")),
            input_interface=self._interface(step, "input_interface", path),
            output_interface=self._interface(step, "output_interface", path),
            when=self._when(step, path),
        )

    def _when(self, step: Mapping[str, Any], path: tuple[str | int, ...]) -> Any:
        if "when" in step and self._pattern is not Pattern.BRANCHES:
            self._add((*path, "when"), "Only the steps of a BranchingFlow have a condition.")
            return None
        return self._condition(step.get("when"), (*path, "when"))

    def _condition(self, condition: Any, path: tuple[str | int, ...]) -> Any:
        if condition is not None:
            self.problems += [found.below(*path) for found in conditions.problems(condition)]
        return condition

    def _interface(
        self, step: Mapping[str, Any], name: str, path: tuple[str | int, ...]
    ) -> Transformation | None:
        config = step.get(name)
        if config is None:
            return None
        if not isinstance(config, Mapping):
            self._add((*path, name), "An interface is a mapping with _target_.")
            return None
        try:
            return build({"_target_": "KeyInterface", **config})
        except (UsageError, TypeError, ValueError) as error:
            message, hint = (
                (error.message, error.hint) if isinstance(error, UsageError) else (f"{error}.", "")
            )
            self._add((*path, name), message, hint)
            return None

    # --- what is taken from where -------------------------------------------------------------

    def _paths(self, paths: Any, place: tuple[str | int, ...]) -> Paths | None:
        if paths is None:
            return None
        if isinstance(paths, Mapping) and all(isinstance(path, str) for path in paths.values()):
            return paths
        hint = f"Such as {{question: {CALLER}.question}}."
        self._add(place, "A mapping of keys to where their values are is needed.", hint)
        return None

    def _check_names(self, steps: list[Step]) -> None:
        """Check that no two steps have the same name, where names tell them apart."""
        seen: set[str] = set()
        for index, step in enumerate(steps):
            if step.name in seen and self._pattern is Pattern.PARALLEL:
                message = f"Two steps are called {step.name}."
                self._add(("topology", index), message, "Give one of them another name: name: ….")
            seen.add(step.name)

    def _check_takes(self, steps: list[Step], answer: Paths | None) -> None:
        """Check that what is taken comes from the caller or from a step that has run by then."""
        names = {step.name for step in steps}
        for index, step in enumerate(steps):
            before = {one.name for one in steps[:index]}
            if self._pattern is Pattern.CIRCLE:
                before = names
            elif self._pattern is not Pattern.SEQUENCE:
                before = set()
            self._check_paths(step.take, before, ("topology", index, "take"))
        self._check_paths(answer, names, ("answer",))

    def _check_paths(
        self, paths: Paths | None, before: set[str], place: tuple[str | int, ...]
    ) -> None:
        for key, path in (paths or {}).items():
            source = path.partition(".")[0]
            if source != CALLER and source not in before:
                known = ", ".join(f"{name}.…" for name in [CALLER, *sorted(before)])
                message = f"{path} leads to nothing that is there by then."
                self._add((*place, key), message, f"There is: {known}.")

    # --- when it is done ----------------------------------------------------------------------

    def _max_rounds(self) -> int:
        rounds = self._config.get("max_rounds", 1)
        if isinstance(rounds, int) and not isinstance(rounds, bool) and rounds > 0:
            return rounds
        self._add(("max_rounds",), "max_rounds is a whole number of at least 1.")
        return 1

    def _first_wins(self) -> bool:
        join = self._config.get("join", "all")
        if join not in ("all", "first"):
            self._add(("join",), f"{join} is no way to join.", "Write all or first.")
        return bool(join == "first")


def _needed(takes: list[Paths | None]) -> frozenset[str]:
    return frozenset(_sources(takes))


def _sources(takes: list[Paths | None]) -> Iterator[str]:
    for paths in takes:
        for path in (paths or {}).values():
            yield path.partition(".")[0]
