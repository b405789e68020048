"""Whether the steps of a topology fit together, as far as their schemas tell. Pure.

A schema with `properties` is taken to name all keys that there are. Where nothing is declared, or
an interface does more than move and set keys, nothing is said.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engine.flows import transformations as known
from engine.flows.conditions import Problem
from engine.flows.interfaces import KeyInterface, Transformation
from engine.flows.schemas import JsonSchema, type_name
from engine.flows.topology import CALLER, Paths, Pattern, Topology

Schema = JsonSchema | None
_MORE = ("anyOf", "allOf", "oneOf", "patternProperties", "if")


@dataclass(frozen=True)
class Interface:
    """What a flow takes and gives; None where that is not declared."""

    input_schema: Schema = None
    output_schema: Schema = None


def misfits(
    topology: Topology, pattern: Pattern, own: Interface, subflows: Mapping[str, Interface]
) -> Iterator[Problem]:
    """Yield each place where what a step, or the caller, is given is not what it needs.

    `own` is the interface of the composite itself, `subflows` those of its subflows by key.
    """
    outputs = [
        _through(step.output_interface, subflows.get(step.flow, Interface()).output_schema)
        for step in topology.steps
    ]
    plan = _Plan(topology, pattern, own.input_schema, outputs)
    for index, step in enumerate(topology.steps):
        needed = subflows.get(step.flow, Interface()).input_schema
        for origin, given in plan.given(index):
            for text in unfit(_through(step.input_interface, given), needed):
                message = f"{origin} does not fit {step.flow}: {text}"
                yield Problem(("topology", index), message, "Use take, or an interface.")
    for place, answer in plan.answers():
        for text in unfit(answer, own.output_schema):
            yield Problem(place, f"The answer does not fit the flow's output_schema: {text}")


@dataclass(frozen=True)
class _Plan:
    """A topology, with what its caller sends and what each of its steps gives."""

    topology: Topology
    pattern: Pattern
    caller: Schema
    outputs: list[Schema]

    @property
    def is_line(self) -> bool:
        return self.pattern in (Pattern.SEQUENCE, Pattern.CIRCLE)

    def given(self, index: int) -> Iterator[tuple[str, Schema]]:
        """Yield what the step at `index` is given before its interface, and by whom."""
        steps = self.topology.steps
        take = steps[index].take
        if take is not None:
            # Of two steps with the same name, the newest answer counts.
            earlier = range(index) if self.pattern is not Pattern.CIRCLE else self._round(index)
            yield "What it takes", _taken(take, self._sources(earlier))
        elif self.is_line and index > 0:
            yield f"What {steps[index - 1].name} gives", self.outputs[index - 1]
        else:
            yield "What the caller sends", self.caller
            if self.pattern is Pattern.CIRCLE and self.topology.max_rounds > 1:
                yield f"What {steps[-1].name} gives at the end of a round", self.outputs[-1]

    def answers(self) -> Iterator[tuple[tuple[str | int, ...], Schema]]:
        """Yield what the flow may answer with, and where that is decided."""
        everything = range(len(self.outputs))
        joins = self.pattern is Pattern.PARALLEL and not self.topology.first_wins
        answer = self.topology.answer
        if answer is not None:
            for indexes in [everything] if self.is_line or joins else [[one] for one in everything]:
                yield ("answer",), _taken(answer, self._sources(indexes))
        elif joins:
            parts = {self.topology.steps[one].name: self.outputs[one] or {} for one in everything}
            yield ("topology",), {"type": "object", "properties": parts}
        else:
            for index in everything[-1:] if self.is_line else everything:
                yield ("topology", index), self.outputs[index]

    def _round(self, index: int) -> Iterable[int]:
        """Return all steps in the order of their answers, as the step at `index` finds them."""
        return [*range(index, len(self.outputs)), *range(index)]

    def _sources(self, indexes: Iterable[int]) -> dict[str, Schema]:
        found = {self.topology.steps[index].name: self.outputs[index] for index in indexes}
        return {CALLER: self.caller, **found}


# --- what schemas become ------------------------------------------------------------------------


def _taken(paths: Paths, sources: Mapping[str, Schema]) -> Schema:
    """Return the schema of what `take` makes; a key that cannot be there is left out."""
    properties = {}
    for key, path in paths.items():
        source, *parts = path.split(".")
        found: Schema = sources.get(source, _ABSENT)
        for part in parts:
            found = _property(found, part)
        if found is not _ABSENT:
            properties[key] = found or {}
    return {"type": "object", "properties": properties}


_ABSENT: JsonSchema = {"not": {}}


def _property(schema: Schema, key: str) -> Schema:
    """Return the schema of the value at `key`: None when unknown, _ABSENT when it has none."""
    if schema is None or schema is _ABSENT or not _is_complete(schema):
        return schema if schema is _ABSENT else None
    properties = schema["properties"]
    return _resolved(properties[key], schema) if key in properties else _ABSENT


def _resolved(schema: Any, root: JsonSchema) -> JsonSchema:
    """Return a part of `root` with its reference followed; definitions stay reachable."""
    if not isinstance(schema, Mapping):
        return {}
    name = str(schema.get("$ref", "")).removeprefix("#/$defs/")
    definitions = root.get("$defs", {})
    found = definitions.get(name, {}) if "$ref" in schema else schema
    return {**found, "$defs": definitions} if definitions else found


def _is_complete(schema: JsonSchema) -> bool:
    """Tell whether the schema is taken to name all keys."""
    more = schema.get("additionalProperties", False) is not False
    return "properties" in schema and not more and not any(word in schema for word in _MORE)


def _through(interface: Transformation | None, schema: Schema) -> Schema:
    """Return the schema of what the interface makes of data of `schema`."""
    if interface is None or schema is None:
        return schema
    if not isinstance(interface, KeyInterface) or not _is_complete(schema):
        return None
    properties = dict(schema["properties"])
    required = set(schema.get("required", ()))
    for step in interface.transformations:
        if not _applied(step, properties, required):
            return None
    return {**schema, "properties": properties, "required": sorted(required & set(properties))}


def _applied(step: Transformation, properties: dict[str, Any], required: set[str]) -> bool:
    """Let a transformation change the properties; False when it is more than can be followed."""
    if isinstance(step, known.KeyRename | known.KeyCopy):
        if _deep([*step.old_key2new_key, *step.old_key2new_key.values()]):
            return False
        for old, new in step.old_key2new_key.items():
            if old in properties and old != new:
                properties[new] = properties[old]
                required |= {new} if old in required else set()
                if isinstance(step, known.KeyRename):
                    del properties[old]
    elif isinstance(step, known.KeySet):
        if _deep(step.key2value):
            return False
        properties.update({key: {"const": value} for key, value in step.key2value.items()})
        required |= set(step.key2value)
    elif isinstance(step, known.KeySelect | known.KeyDelete):
        selects = isinstance(step, known.KeySelect)
        named = step.keys_to_select if isinstance(step, known.KeySelect) else step.keys_to_delete
        if _deep(named):
            return False
        for key in list(properties):
            if (key in named) is not selects:
                del properties[key]
    else:
        return False
    return True


def _deep(keys: Any) -> bool:
    return any("." in key for key in keys)


# --- whether one fits the other -----------------------------------------------------------------


def unfit(given: Schema, wanted: Schema, path: str = "") -> Iterator[str]:
    """Yield what of `wanted` data of the schema `given` cannot fulfil, in words."""
    if given is None or wanted is None:
        return
    properties = given.get("properties", {})
    if _is_complete(given):
        for key in wanted.get("required", ()):
            if key not in properties:
                there = ", ".join(properties) or "nothing"
                yield f"{path}{key} is missing; there is: {there}."
    for key, part in wanted.get("properties", {}).items():
        if key not in properties:
            continue
        have, need = _resolved(properties[key], given), _resolved(part, wanted)
        got, types = _types(have), _types(need)
        if got and types and not all(_accepts(types, kind) for kind in got):
            yield f"{path}{key} is {' or '.join(got)} where {' or '.join(types)} is needed."
        elif got == types == ["object"] and f"{path}".count(".") < _DEEPEST:
            yield from unfit(have, need, f"{path}{key}.")


_DEEPEST = 16
"""Levels that are compared: a type may contain itself."""


def _accepts(types: list[str], kind: str) -> bool:
    return kind in types or (kind == "integer" and "number" in types)


def _types(schema: JsonSchema) -> list[str]:
    """Return the JSON types that a value may have; empty when that is not said."""
    if "const" in schema:
        return [type_name(schema["const"])]
    if "type" in schema:
        kind = schema["type"]
        return [kind] if isinstance(kind, str) else list(kind)
    values = schema.get("enum", ())
    found = [type_name(value) for value in values]
    for part in schema.get("anyOf", ()):
        types = _types(_resolved(part, schema))
        if not types:
            return []
        found += types
    return sorted(set(found))
