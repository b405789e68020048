"""Flows from plain functions."""

from dataclasses import dataclass
from typing import Literal

import pytest

from engine.flows import AtomicFlow, FlowFailedError, flow
from engine.flows.catalog import describe
from engine.flows.flow import Flow
from engine.hooks import Catalog
from engine.model.errors import PluginError


@dataclass
class Item:
    name: str
    price: float = 0.0


@dataclass
class Bill:
    items: list[Item]
    total: float


@dataclass
class Tree:
    children: "list[Tree]"


@flow
def add(a: int, b: int = 0) -> dict[str, int]:
    """Add two numbers.

    Both are whole.
    """
    return {"sum": a + b}


@flow
async def bill(items: list[Item], currency: Literal["EUR", "USD"] = "EUR") -> Bill:
    return Bill(items, sum(item.price for item in items))


@flow
def length(text: str) -> int:
    return len(text)


@flow
def forget(text: str) -> None:
    pass


@flow
def collect(item, seen=[]):  # noqa: B006 - what is tested
    seen.append(item)
    return seen


@flow
def depth(tree: Tree) -> Tree:
    return tree


def test_a_function_is_a_flow_class(world):
    assert issubclass(add, AtomicFlow)
    assert (add.__name__, add.__module__) == ("add", __name__)
    config = add.get_config()
    assert (config["name"], config["description"]) == ("add", "Add two numbers.")
    flow_of_it = world.mount(add)
    assert world.ask(flow_of_it, {"a": 1, "b": 2}) == {"sum": 3}
    assert world.ask(flow_of_it, {"a": 1, "unknown": 2}) == {"sum": 1}
    assert add.function(3, 4) == {"sum": 7}


def test_a_coroutine_function_with_dataclasses(world):
    data = {"items": [{"name": "a", "price": 1.5}, {"name": "b"}]}
    items = [{"name": "a", "price": 1.5}, {"name": "b", "price": 0.0}]
    assert world.ask(world.mount(bill), data) == {"items": items, "total": 1.5}


def test_what_is_no_object_is_the_result(world):
    assert world.ask(world.mount(length), {"text": "four"}) == {"result": 4}
    assert world.ask(world.mount(forget), {"text": ""}) == {}


def test_defaults_are_not_shared_between_messages(world):
    collecting = world.mount(collect)
    assert [world.ask(collecting, {"item": n}) for n in (1, 2)] == [
        {"result": [1]},
        {"result": [2]},
    ]


def test_the_annotations_are_the_schemas():
    assert add.input_schema == {
        "title": "add",
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 0}},
        "required": ["a"],
    }
    assert add.output_schema == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert bill.input_schema["$defs"]["Item"]["required"] == ["name"]
    assert bill.output_schema["required"] == ["items", "total"]
    assert length.output_schema["properties"] == {"result": {"type": "integer"}}
    assert forget.output_schema == {"type": "object"}
    assert (Flow.input_schema, collect.output_schema) == (None, None)
    assert "Tree" in depth.output_schema["$defs"]


@pytest.mark.parametrize("data", [{}, {"a": "1"}, {"a": 1.5}, {"a": 1, "b": None}, {"a": True}])
def test_data_that_does_not_fit_is_an_error_that_names_the_argument(world, data):
    with pytest.raises(FlowFailedError, match=r"\b[ab]\b"):
        world.ask(world.mount(add), data)


def test_it_is_registered_like_a_class():
    catalog = Catalog(flow_classes={"sums.add": add})
    assert catalog.name_of(add) == "sums.add"
    assert describe(catalog)["classes"]["sums.add"]["description"].startswith("Add two numbers.")


def unnamed(*numbers: int) -> int:
    return sum(numbers)


def unknown(a: "Nowhere") -> int:  # type: ignore[name-defined] # noqa: F821
    return 0


def no_data(a: complex) -> int:
    return 0


@pytest.mark.parametrize("function", [unnamed, unknown, no_data])
def test_a_function_that_cannot_be_a_flow_is_told(function):
    with pytest.raises(PluginError, match=rf"\.{function.__name__} cannot be a flow"):
        flow(function)
