"""What an instance's configuration is made of, and what callers cannot change."""

from typing import Any

import pytest

from engine.model.errors import UsageError
from engine.model.secrets import wrap
from engine.serving import configuration
from engine.serving.configuration import Wish
from engine.serving.endpoints import EndpointRecord

ME, YOU, THEM = (f"0{digit}" * 33 for digit in "234")
DEFAULTS = {
    "_target_": "module.Class",
    "name": "Flow",
    "description": "",
    "size": 1,
    "deep": {"a": 1, "_target_": "x.Y"},
    "free": {},
    "key": wrap("${oc.env:KEY}"),
    "subflows_config": {
        "one": {"user_id": "local", "flow_endpoint": "ep", "name": "One", "singleton": True}
    },
}


def own(**overrides: Any) -> Any:
    return configuration.own_config(DEFAULTS, EndpointRecord(), overrides)


def requests(asked: Any, **overrides: Any) -> list[configuration.SubflowRequest]:
    config = own(**overrides)
    return list(configuration.subflow_requests(config, configuration.checked(asked, config), ME))


def test_the_layers_lie_over_each_other_in_order() -> None:
    record = EndpointRecord(
        config_overrides={"size": 2, "deep": {"a": 2}},
        subflows={"one": {"user_id": YOU, "flow_endpoint": "", "config_overrides": {"size": 9}}},
    )
    config = configuration.own_config(DEFAULTS, record, {"size": 3, "flow_id": "mine", "new": 1})
    assert config["size"] == 3
    assert config["deep"] == {"a": 2, "_target_": "x.Y"}
    assert config["new"] == 1
    assert "flow_id" not in config
    assert config["_target_"] == "module.Class"
    assert config["subflows_config"]["one"] == {
        "user_id": YOU,
        "flow_endpoint": "ep",
        "name": "One",
        "singleton": True,
        "size": 9,
    }


def test_what_an_endpoint_lets_in_and_out_is_the_servers_to_say() -> None:
    schemas = {"input_schema": {"type": "object", "required": ["n"]}}
    config = configuration.own_config(DEFAULTS, EndpointRecord(schemas=schemas), {})
    assert config["input_schema"] == schemas["input_schema"]
    assert configuration.checked(schemas, config) == schemas, "the same as it is"
    for asked in ({"input_schema": {"type": "object"}}, {"output_schema": {"type": "object"}}):
        with pytest.raises(UsageError, match=f"cannot change {next(iter(asked))}"):
            configuration.checked(asked, config)


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"_target_": "os.system"}, "_target_"),
        ({"flow_id": "x"}, "flow_id"),
        ({"nothing": 1, "no": 2}, "no, nothing"),
        ({"deep": {"b": 1}}, "deep.b"),
        ({"deep": {"_target_": "os.system"}}, "deep._target_"),
        ({"key": {"$other": 1}}, "key"),
        ({"subflows_config": {"two": {}}}, "subflows_config.two"),
        ({"subflows_config": {"one": 1}}, "subflows_config.one"),
        ({"subflows_config": {"one": {"flow_id": "x"}}}, "subflows_config.one.flow_id"),
        ({"subflows_config": {"one": {"_target_": "x"}}}, "subflows_config.one._target_"),
        ({"subflows_config": 1}, "not an object"),
        ({"name": wrap("${oc.env:KEY}")}, "environment"),
        ({"free": {"x": [{"$env": 1}]}}, "environment"),
    ],
)
def test_callers_cannot_reach_what_is_not_declared(asked: Any, refused: str) -> None:
    with pytest.raises(UsageError, match=refused):
        configuration.checked(asked, own())


def test_callers_change_what_is_declared() -> None:
    asked = {"size": 5, "name": "N", "deep": {"a": 7}, "free": {"x": 1}, "key": "my own"}
    assert configuration.checked(asked, own()) == asked
    same = {"deep": {"_target_": "x.Y"}}
    assert configuration.checked(same, own()) == same


def test_what_a_stock_composite_passes_on_is_accepted() -> None:
    passed = {"flow_class_name": "a.B", "singleton": True, "name": "N", "description": "D"}
    assert configuration.checked(passed, own()) == {"name": "N", "description": "D"}


def test_a_subflow_is_asked_for_with_all_but_its_place() -> None:
    (request,) = requests({})
    assert (request.key, request.user_id, request.flow_endpoint) == ("one", "local", "ep")
    assert request.wish == Wish(own={"name": "One", "singleton": True})
    assert not request.by_caller
    (request,) = requests({}, subflows_config={"one": {"user_id": ME}})
    assert request.user_id == "local"
    (request,) = requests({"subflows_config": {"one": {"size": 4}}})
    assert request.wish.asked == {"size": 4}
    assert request.overrides() == {"name": "One", "singleton": True, "size": 4}
    assert not request.by_caller


def test_who_changes_the_place_of_a_subflow_answers_for_all_of_it() -> None:
    (request,) = requests({"subflows_config": {"one": {"user_id": THEM}}})
    assert request.by_caller
    assert request.wish == Wish(asked={"name": "One", "singleton": True})


def test_a_subflow_without_a_place_is_an_error() -> None:
    with pytest.raises(UsageError, match="one lacks user_id or flow_endpoint"):
        requests({}, subflows_config={"one": {"flow_endpoint": None}})


def test_a_subflow_that_names_its_instance_is_left_alone() -> None:
    assert requests({}, subflows_config={"one": {"flow_id": "known"}}) == []


def test_instances_are_stored_as_aiflows_does() -> None:
    config = configuration.with_instances(own(), {"one": "id1"})
    assert config["subflows_config"]["one"] == {
        "user_id": "local",
        "flow_endpoint": "ep",
        "name": "One",
        "singleton": True,
        "_target_": "aiflows.base_flows.AtomicFlow.instantiate_from_default_config",
        "flow_id": "id1",
    }
