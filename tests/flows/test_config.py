import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.flows import AtomicFlow, CompositeFlow, Flow
from engine.flows.config import merge
from engine.model.errors import NotFoundError, PluginError, UsageError

ROOT = {
    "private_keys": [],
    "keys_to_ignore_for_hash_flow_config": [
        "name",
        "description",
        "api_keys",
        "api_information",
        "private_keys",
    ],
    "keys_to_ignore_for_hash_flow_state": [
        "name",
        "description",
        "api_keys",
        "api_information",
        "private_keys",
    ],
    "keys_to_ignore_for_hash_input_data": [],
    "clear_flow_namespace_on_run_end": True,
    "enable_cache": False,
}

FLOWS = """
    from engine.flows import AtomicFlow

    class Parent(AtomicFlow):
        pass

    class Child(Parent):
        pass

    class Private(AtomicFlow):
        __default_flow_config = {"name": "private", "options": {"depth": 1}}
"""


def test_dicts_are_merged_and_everything_else_replaces():
    base = {"a": {"b": 1, "c": [1, 2]}, "d": {"e": 1}, "f": 1}
    over = {"a": {"c": [3]}, "d": 2, "f": {"g": 1}, "h": {"i": 1}}
    assert merge(base, over) == {"a": {"b": 1, "c": [3]}, "d": 2, "f": {"g": 1}, "h": {"i": 1}}


JSON_OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), st.integers() | st.lists(st.integers()), max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(JSON_OBJECTS, JSON_OBJECTS)
def test_merging_changes_neither_side_and_the_overrides_win(base, overrides):
    base_before, overrides_before = repr(base), repr(overrides)
    merged = merge(base, overrides)
    assert merge(merged, overrides) == merged
    assert merge(base, {}) == base
    merged["new"] = 1
    assert (repr(base), repr(overrides)) == (base_before, overrides_before)


def test_the_root_defaults_are_those_of_aiflows():
    assert Flow.get_config() == AtomicFlow.get_config() == CompositeFlow.get_config() == ROOT


def test_nobody_can_change_the_defaults():
    AtomicFlow.get_config()["private_keys"].append("x")
    assert AtomicFlow.get_config() == ROOT


def test_yaml_files_are_merged_along_the_base_classes_under_the_overrides(make_package):
    flows = make_package(
        "inherit.flows",
        {
            "inherit/__init__.py": "",
            "inherit/flows.py": FLOWS,
            "inherit/Parent.yaml": "{name: parent, description: p, options: {a: 1, b: [1, 2]}}",
            "inherit/Child.yaml": "{name: child, options: {b: [3]}}",
        },
    )
    assert flows.Child.get_config(options={"c": 2}, enable_cache=True) == {
        **ROOT,
        "name": "child",
        "description": "p",
        "options": {"a": 1, "b": [3], "c": 2},
        "enable_cache": True,
    }


def test_without_a_file_the_private_attribute_counts(make_package):
    flows = make_package("private_flows", {"private_flows.py": FLOWS})
    assert flows.Private.get_config() == {**ROOT, "name": "private", "options": {"depth": 1}}
    flows.Private.get_config()["options"]["depth"] = 2
    assert flows.Private.get_config()["options"] == {"depth": 1}


def test_interpolation_within_the_file_is_resolved(make_package):
    text = "{name: x, description: '${name} it', more: {copy: '${name}'}}"
    flows = make_package("interpolated", {"interpolated.py": FLOWS, "Parent.yaml": text})
    config = flows.Parent.get_config()
    assert config["description"] == "x it"
    assert config["more"] == {"copy": "x"}


def test_values_of_the_environment_stay_expressions_until_the_flow_is_made(
    make_package, monkeypatch
):
    text = """
        name: x
        description: y
        home: /srv
        key: ${oc.env:FLOW_KEY}
        path: ${home}/${oc.env:FLOW_KEY}/end
        other: ${oc.env:FLOW_OTHER,none}
        again: ${key}
    """
    flows = make_package("secretive", {"secretive.py": FLOWS, "Parent.yaml": text})
    monkeypatch.delenv("FLOW_KEY", raising=False)
    config = flows.Parent.get_config()
    assert config["key"] == config["again"] == {"$env": "${oc.env:FLOW_KEY}"}
    assert config["path"] == {"$env": "/srv/${oc.env:FLOW_KEY}/end"}
    assert config["other"] == {"$env": "${oc.env:FLOW_OTHER,none}"}
    with pytest.raises(NotFoundError, match="FLOW_KEY is not set"):
        flows.Parent.instantiate_from_default_config()
    monkeypatch.setenv("FLOW_KEY", "s3cret")
    made = flows.Parent.instantiate_from_default_config().flow_config
    assert (made["key"], made["again"]) == ("s3cret", "s3cret")
    assert (made["path"], made["other"]) == ("/srv/s3cret/end", "none")
    assert "s3cret" not in str(flows.Parent.get_config())


def test_relative_targets_of_the_file_get_the_parent_package(make_package):
    text = """
        _target_: .flows.Parent.instantiate_from_default_config
        deep: {list: [{_target_: .a.B}], other: {_target_: full.c.D}}
        words: ['.not_a_target']
    """
    flows = make_package(
        "targets.flows",
        {"targets/__init__.py": "", "targets/flows.py": FLOWS, "targets/Parent.yaml": text},
    )
    config = flows.Parent.get_config(mine={"_target_": ".stays"})
    assert config["_target_"] == "targets.flows.Parent.instantiate_from_default_config"
    assert config["deep"] == {
        "list": [{"_target_": "targets.a.B"}],
        "other": {"_target_": "full.c.D"},
    }
    assert config["words"] == [".not_a_target"]
    assert config["mine"] == {"_target_": ".stays"}


def test_a_target_is_data_and_nothing_follows_it(make_package, tmp_path):
    text = f"{{name: x, description: y, _target_: os.mkdir, path: {tmp_path}/made}}"
    flows = make_package("followed", {"followed.py": FLOWS, "Parent.yaml": text})
    flow = flows.Parent.instantiate_from_default_config()
    assert type(flow) is flows.Parent
    assert not os.path.exists(tmp_path / "made")  # noqa: PTH110


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1\nb: 2\n", r"Parent\.yaml: line 2, column 2: "),
        ("- a\n- b\n", "a mapping of keys to values was expected"),
        ("a: ${nowhere}\n", "nowhere"),
        ("a: ${b}\nb: ${a}\n", "Parent.yaml"),
        ("a: 1\na: 2\n", "duplicate key"),
    ],
)
def test_a_broken_file_is_named_with_the_line(make_package, text, complaint):
    flows = make_package("broken_defaults", {"broken_defaults.py": FLOWS, "Parent.yaml": text})
    with pytest.raises(PluginError, match=complaint) as failure:
        flows.Parent.get_config()
    assert "Parent.yaml" in str(failure.value)
    assert "\n" not in str(failure.value)


def test_an_empty_file_declares_nothing(make_package):
    flows = make_package("empty_defaults", {"empty_defaults.py": FLOWS, "Parent.yaml": ""})
    assert flows.Parent.get_config() == ROOT


def test_a_file_that_changed_is_read_again(make_package, tmp_path):
    flows = make_package("changing", {"changing.py": FLOWS, "Parent.yaml": "name: before"})
    assert flows.Parent.get_config()["name"] == "before"
    (tmp_path / "Parent.yaml").write_text("name: afterwards")
    assert flows.Parent.get_config()["name"] == "afterwards"


@pytest.mark.parametrize(
    ("flow_class", "config", "missing"),
    [
        (AtomicFlow, {}, "name, description"),
        (AtomicFlow, {"name": "x"}, "description"),
        (CompositeFlow, {"name": "x", "description": "y"}, "subflows_config"),
    ],
)
def test_required_keys_are_demanded_when_a_flow_is_made(flow_class, config, missing):
    with pytest.raises(UsageError, match=f"lacks {missing}"):
        flow_class.instantiate_from_config(config)


def test_a_flow_has_a_copy_of_its_configuration():
    config = {"name": "x", "description": "y", "list": [1]}
    flow = AtomicFlow.instantiate_from_config(config)
    flow.flow_config["list"].append(2)
    assert config["list"] == [1]


def test_a_class_with_a_mixin_first_inherits_from_its_flow_class():
    class Mixin:
        pass

    class Mixed(Mixin, AtomicFlow):
        pass

    assert Mixed.get_config() == ROOT
