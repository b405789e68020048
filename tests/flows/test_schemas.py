"""Typed interfaces: what they are written as, and what they let through."""

from typing import ClassVar

import pytest

from engine.flows import AtomicFlow, FlowFailedError, flow
from engine.flows.schemas import check, expanded
from engine.model.errors import InvalidMessageError, UsageError

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("short", "schema"),
    [
        (NUMBER, NUMBER),
        ({"n": "integer"}, NUMBER),
        (["n"], {"type": "object", "properties": {"n": {}}, "required": ["n"]}),
        (
            {"n": "integer?", "x": "any"},
            {
                "type": "object",
                "properties": {"n": {"type": "integer"}, "x": {}},
                "required": ["x"],
            },
        ),
        (
            {"type": "string"},
            {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]},
        ),
        (
            {"n": {"enum": [1, 2]}},
            {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]},
        ),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": NUMBER}},
            {"$ref": "#/$defs/a", "$defs": {"a": NUMBER}},
        ),
    ],
)
def test_the_forms_of_a_schema(short, schema):
    assert expanded(short) == schema


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("integer", "a list of keys, or a mapping"),
        ([1], "only text"),
        ({"n": "int"}, "n: int is no type. Known are: any, array"),
        ({"type": "object", "properties": {"n": {"type": "int"}}}, "properties.n.type"),
        ({"$ref": "https://example.org/schema"}, "leads out of the schema"),
        ({"n": {"items": [{"$ref": "other.json"}]}}, "leads out of the schema"),
    ],
)
def test_what_is_no_schema_is_told(wrong, told):
    with pytest.raises(UsageError, match=told.replace(".", r"\.")):
        expanded(wrong)


@pytest.mark.parametrize(
    ("schema", "data", "path", "told"),
    [
        (NUMBER, {}, "data.n", "data.n is missing"),
        (NUMBER, {"n": "secret"}, "data.n", "data.n is string where integer is needed"),
        (NUMBER, {"n": True}, "data.n", "data.n is boolean where integer is needed"),
        (
            {"list": {"items": {"type": ["integer", "null"]}}},
            {"list": [1, None, 1.5]},
            "data.list[2]",
            "data.list[2] is number where integer or null is needed",
        ),
        ({"n": {"maximum": 3}}, {"n": 4}, "data.n", "data.n breaks the rule maximum: 3"),
    ],
)
def test_what_does_not_fit_is_told_with_its_path_and_without_its_value(schema, data, path, told):
    with pytest.raises(InvalidMessageError) as caught:
        check(expanded(schema), data, "It")
    assert caught.value.data_path == path
    assert str(caught.value) == f"It does not fit its interface: {told}."


class Double(AtomicFlow):
    input_schema: ClassVar = {"n": "number"}
    output_schema: ClassVar = NUMBER

    def run(self, input_message):
        self.flow_state["runs"] = self.flow_state.get("runs", 0) + 1
        self.send_message(
            self.package_output_message(input_message, {"n": input_message.data["n"] * 2})
        )


@flow
def half(n: int) -> int:
    return n / 2  # not what the annotation says


def test_a_message_that_does_not_fit_is_refused_before_the_flow_runs(world):
    double = world.mount(Double)
    with pytest.raises(FlowFailedError, match="The message to Double does not fit") as caught:
        world.ask(double, {"n": "2"})
    details = caught.value.details
    assert (details["error_type"], details["data_path"]) == ("InvalidMessageError", "data.n")
    assert world.state_of(double) == {}


def test_an_answer_that_does_not_fit_is_not_sent_and_undoes_the_turn(world):
    double = world.mount(Double)
    assert world.ask(double, {"n": 2}) == {"n": 4}
    with pytest.raises(FlowFailedError, match="The answer of Double does not fit") as caught:
        world.ask(double, {"n": 1.25})
    assert caught.value.details["data_path"] == "data.n"
    assert world.state_of(double) == {"runs": 1}


def test_the_annotations_of_a_function_are_checked_both_ways(world):
    flow_of_it = world.mount(half)
    with pytest.raises(FlowFailedError, match=r"data\.n is missing"):
        world.ask(flow_of_it, {})
    with pytest.raises(FlowFailedError, match=r"data\.result is number where integer is needed"):
        world.ask(flow_of_it, {"n": 3})


def test_the_configuration_counts_more_than_the_class(world):
    double = world.mount(Double, input_schema=["n"], output_schema={"n": "string"})
    assert world.ask(double, {"n": "ab"}) == {"n": "abab"}


def test_a_class_with_a_schema_that_is_none_cannot_be_made():
    with pytest.raises(UsageError, match="n: int is no type"):
        type("Wrong", (AtomicFlow,), {"input_schema": {"n": "int"}})
