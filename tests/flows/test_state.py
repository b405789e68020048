import json
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.flows import AtomicFlow, FlowMessage
from engine.flows.state import decode_state, encode_state
from engine.model.errors import UsageError


@dataclass
class Point:
    x: int
    y: int = 7
    tags: list[str] = field(default_factory=lambda: ["fresh"])


@dataclass(frozen=True)
class Line:
    start: Point
    end: Point


@dataclass(slots=True)
class Watched:
    value: int

    def __post_init__(self):
        raise AssertionError("decoding must not run code of the class")


class Outer:
    @dataclass
    class Inner:
        value: int


class StatefulFlow(AtomicFlow):
    def set_up_flow_state(self):
        self.flow_state = {"count": 0, "seen": []}


@pytest.fixture(autouse=True)
def _as_plugin(monkeypatch):
    """Let this module be one of a plugin's package, whatever pytest calls it."""
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "a_plugin.models", module)
    for kind in (Point, Line, Watched, Outer, Outer.Inner, StatefulFlow):
        monkeypatch.setattr(kind, "__module__", "a_plugin.models")


def round_trip(state):
    return decode_state(json.loads(json.dumps(encode_state(state, StatefulFlow))), StatefulFlow)


def same(left, right):
    """Equal, of the same types all the way down."""
    assert type(left) is type(right)
    assert repr(left) == repr(right)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        3,
        -(2**70),
        2**64,
        1.5,
        "text",
        [1, [2]],
        {"a": {"b": []}},
        b"\x00\xff",
        (1, (2, [3])),
        {1, 2, 3},
        frozenset({"a"}),
        date(2024, 2, 29),
        datetime(2024, 2, 29, 12, 30, 1, 5),
        datetime(2024, 2, 29, tzinfo=UTC),
        datetime(2024, 2, 29, tzinfo=timezone(timedelta(hours=-3))),
        {1: "a", (2, 3): "b", None: "c"},
        {"$type": "bytes", "value": "AA=="},
        {"$type": {"$type": 1}},
        {"$env": "x", "class": "y", "value": 1},
        Point(1, 2, ["a"]),
        [Line(Point(1), Point(2))],
        Outer.Inner(5),
        float("inf"),
        float("nan"),
        "\ud800",
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_went(value):
    same(round_trip({"value": value}), {"value": value})


def test_plain_json_stays_as_it_is():
    state = {"a": [1, 2.5, "x", None, True], "b": {"c": {}}}
    assert encode_state(state) == state


def test_a_message_comes_back_without_its_private_keys():
    message = FlowMessage({"a": 1, "key": "s"}, src_flow="f", private_keys=["key"], is_reply=True)
    encoded = encode_state({"m": message})
    assert "'s'" not in str(encoded)
    back = decode_state(encoded, StatefulFlow)["m"]
    assert type(back) is FlowMessage
    assert back.to_dict() == message.to_dict()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
)
KEYS = st.text(max_size=5) | st.sampled_from(["$type", "value", "class"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.frozensets(SCALARS, max_size=3)
        | st.sets(SCALARS, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_every_state_survives_a_round_trip_through_json(state):
    encoded = encode_state(state)
    assert decode_state(json.loads(json.dumps(encoded)), StatefulFlow) == state
    assert json.dumps(encode_state(decode_state(encoded, StatefulFlow))) == json.dumps(encoded)


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"a": object()}, r"flow_state\['a'\] cannot be stored: it is a object"),
        ({"a": [1, {"b": print}]}, r"flow_state\['a'\]\[1\]\['b'\]"),
        ({"a": Line(Point(1), Point(2, 3, [object()]))}, r"flow_state\['a'\]\.end\.tags\[0\]"),
        ({"a": {object(): 1}}, r"flow_state\['a'\], key <object"),
        ({"a": FlowMessage({"x": {1j}})}, r"flow_state\['a'\]\['data'\]\['x'\]\{…\}"),
        ({"a": type("Sub", (dict,), {})()}, "it is a Sub"),
        ({"a": timedelta(1)}, "it is a timedelta"),
    ],
)
def test_a_value_that_cannot_be_stored_is_named_by_its_path(state, path):
    with pytest.raises(UsageError, match=path):
        encode_state(state, StatefulFlow)


def test_a_state_that_contains_itself_is_refused():
    state = {}
    state["self"] = state
    with pytest.raises(UsageError, match="contains itself"):
        encode_state(state)


def test_dataclasses_of_other_packages_are_refused_both_ways():
    @dataclass
    class Hidden:
        value: int

    foreign = {"$type": "dataclass", "class": "engine.model.status:Condition", "value": {}}
    with pytest.raises(UsageError, match="not of the package a_plugin"):
        decode_state({"a": foreign}, StatefulFlow)
    from engine.model.status import CoreStatus

    with pytest.raises(UsageError, match="status:CoreStatus"):
        encode_state({"a": CoreStatus("a", "b", True)}, StatefulFlow)
    Hidden.__module__ = "a_plugin.models"
    with pytest.raises(UsageError, match="<locals>"):
        encode_state({"a": Hidden(1)}, StatefulFlow)


@pytest.mark.parametrize(
    "name",
    [
        "a_plugin.models:NoSuch",
        "a_plugin.models:StatefulFlow",
        "a_plugin.models:sys",
        "a_plugin.models:sys.modules",
        "a_plugin.models:round_trip",
        "a_plugin.not_loaded:Point",
        "a_plugin.models",
        "",
    ],
)
def test_decoding_finds_only_loaded_dataclasses(name):
    before = set(sys.modules)
    with pytest.raises(UsageError, match=r"not a dataclass that is loaded|not of the package"):
        decode_state({"a": {"$type": "dataclass", "class": name, "value": {}}}, StatefulFlow)
    assert set(sys.modules) == before


def test_decoding_runs_no_code_of_the_class():
    data = {"$type": "dataclass", "class": "a_plugin.models:Watched", "value": {"value": 3}}
    assert decode_state({"a": data}, StatefulFlow)["a"].value == 3


def test_fields_that_a_newer_version_of_the_class_added_take_their_defaults():
    data = {"$type": "dataclass", "class": "a_plugin.models:Point", "value": {"x": 1, "gone": 2}}
    assert decode_state({"a": data}, StatefulFlow) == {"a": Point(1, 7, ["fresh"])}
    with pytest.raises(UsageError, match="lacks x"):
        decode_state({"a": {**data, "value": {}}}, StatefulFlow)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "text",
        {"$type": "tuple", "value": []},
        {"a": {"$type": "pickle", "value": "gASV"}},
        {"a": {"$type": []}},
        {"a": {"$type": "bytes"}},
        {"a": {"$type": "bytes", "value": "!"}},
        {"a": {"$type": "message", "value": {}}},
        {"a": {"$type": "dataclass", "class": 3, "value": {}}},
        {"a": {"$type": "datetime", "value": "yesterday"}},
        {"a": {"$type": "set", "value": [[1]]}},
    ],
    ids=repr,
)
def test_what_is_no_state_is_refused(data):
    with pytest.raises(UsageError):
        decode_state(data, StatefulFlow)


def test_a_loaded_state_is_laid_over_a_fresh_one():
    flow = StatefulFlow({"name": "f", "description": ""})
    flow.flow_state["count"] = 5
    flow.load_state({"seen": [{"$type": "tuple", "value": [1]}]})
    assert flow.get_flow_state() == {"count": 0, "seen": [(1,)]}
    assert flow.dump_state() == {"count": 0, "seen": [{"$type": "tuple", "value": [1]}]}
    flow.load_state(None)
    assert flow.flow_state == {"count": 0, "seen": []}
