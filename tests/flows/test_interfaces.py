import pytest

from engine.flows import FlowMessage, KeyInterface, KeyRename, UnNesting, build
from engine.flows.interfaces import _MODULES
from engine.model.errors import UsageError


def test_the_steps_come_in_their_fixed_order():
    interface = KeyInterface(
        keys_to_delete=["kept.secret"],
        keys_to_select=["kept", "sum"],
        additional_transformations=[
            lambda data_dict, **_: {**data_dict, "sum": data_dict["b"] + data_dict["c"]}
        ],
        keys_to_set={"c": 10, "kept.secret": 1, "kept.open": 2},
        keys_to_copy={"b": "c"},
        keys_to_rename={"a": "b"},
    )
    assert interface({"a": 1}) == {"kept": {"open": 2}, "sum": 11}


def test_a_dict_is_left_alone_and_a_new_one_returned():
    data = {"a": {"b": [1]}}
    result = KeyInterface(keys_to_rename={"a.b": "c"})(data)
    assert data == {"a": {"b": [1]}}
    assert result["c"] is not data["a"]["b"]


def test_a_messages_data_is_replaced_and_the_message_returned():
    data = {"a": 1}
    message = FlowMessage(data=data)
    assert KeyInterface(keys_to_rename={"a": "b"})(message) is message
    assert message.data == {"b": 1}
    assert data == {"a": 1}


def test_the_calls_arguments_reach_additional_transformations():
    interface = KeyInterface(
        additional_transformations=[lambda data_dict, goal, **_: {**data_dict, "goal": goal}]
    )
    assert interface({"a": 1}, goal="win") == {"a": 1, "goal": "win"}


def test_an_empty_interface_copies():
    assert KeyInterface()({"a": 1}) == {"a": 1}


def test_yaml_describes_an_interface_with_transformations_in_it():
    interface = build(
        {
            "_target_": "aiflows.interfaces.KeyInterface",
            "_recursive_": False,
            "additional_transformations": [
                {"_target_": "aiflows.data_transformations.UnNesting", "input_key": "a"}
            ],
            "keys_to_select": ["b"],
        }
    )
    assert isinstance(interface, KeyInterface)
    assert isinstance(interface.transformations[0], UnNesting)
    assert interface({"a": {"b": 1, "c": 2}}) == {"b": 1}


@pytest.mark.parametrize("name", sorted(_MODULES))
@pytest.mark.parametrize(
    "form", ["{0}", "engine.flows.{0}", "aiflows.data_transformations.{0}", "long"]
)
def test_every_transformation_is_known_by_its_short_and_dotted_names(name, form):
    long = f"aiflows.data_transformations.{_MODULES[name]}.{name}"
    target = long if form == "long" else form.format(name)
    with pytest.raises(UsageError, match="do not fit") as refusal:
        build({"_target_": target, "no_such_argument": 1})
    assert target in str(refusal.value)


def test_an_instance_is_built_with_its_arguments():
    rename = build({"_target_": "KeyRename", "old_key2new_key": {"a": "b"}, "nested_keys": False})
    assert isinstance(rename, KeyRename)
    assert rename.nested_keys is False


@pytest.mark.parametrize(
    "target", ["os.system", "subprocess.Popen", "my.module.Thing", "engine.flows.Flow"]
)
def test_nothing_else_is_ever_built(target):
    with pytest.raises(UsageError, match="no known interface or transformation"):
        build({"_target_": target, "args": ["true"]})


def test_a_misspelt_name_is_guessed():
    with pytest.raises(UsageError, match="Did you mean KeyRename"):
        build({"_target_": "aiflows.data_transformations.KeyRenam"})


def test_a_mapping_without_target_is_refused():
    with pytest.raises(UsageError, match="None is no known"):
        KeyInterface(additional_transformations=[{"input_key": "a"}])
