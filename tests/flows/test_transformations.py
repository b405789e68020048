"""Protocol sheet §10, row by row; what was seen by running aiflows is marked [T] there."""

import logging

import pytest

from engine.flows import (
    AtomicFlow,
    EndOfInteraction,
    Json2Obj,
    KeyCopy,
    KeyDelete,
    KeyMatchInput,
    KeyRename,
    KeySelect,
    KeySet,
    Obj2Json,
    PrintPreviousMessages,
    RegexFirstOccurrenceExtractor,
    UnNesting,
)
from engine.flows.transformations import DataTransformation, flatten, unflatten


def test_flattening_gives_dotted_keys_and_keeps_lists_whole():
    assert flatten({"a": {"b": {"c": 1}}, "d": [{"e": 2}]}) == {"a.b.c": 1, "d": [{"e": 2}]}


def test_flattening_and_back_drops_empty_dicts():
    assert unflatten(flatten({"a": {}, "b": {"c": {}}, "d": 1})) == {"d": 1}


def test_flattening_and_back_nests_literal_dotted_keys():
    assert unflatten(flatten({"a.b": 1})) == {"a": {"b": 1}}


def test_flattening_refuses_keys_that_are_not_text():
    with pytest.raises(TypeError, match="not text: 3"):
        flatten({"a": {3: 1}})


class TestKeyRename:
    def test_moves_nested_values_and_leaves_the_emptied_parent(self):
        assert KeyRename({"a.b": "c"})(data_dict={"a": {"b": 1}}) == {"a": {}, "c": 1}

    def test_makes_dicts_for_a_new_nested_key(self):
        assert KeyRename({"a": "x.y.z"})(data_dict={"a": 1}) == {"x": {"y": {"z": 1}}}

    def test_moves_whole_dicts(self):
        assert KeyRename({"a": "b"})(data_dict={"a": {"c": 1}}) == {"b": {"c": 1}}

    def test_goes_in_the_order_of_the_map(self):
        assert KeyRename({"a": "b", "b": "c"})(data_dict={"a": 1}) == {"c": 1}

    def test_ignores_missing_and_unchanged_keys(self):
        assert KeyRename({"x": "y", "a": "a", "a.b.c": "d"})(data_dict={"a": 1}) == {"a": 1}

    def test_fails_for_a_path_below_the_keys_own_plain_value(self):
        with pytest.raises(TypeError, match=r"a\.b cannot be set"):
            KeyRename({"a": "a.b"})(data_dict={"a": 1})

    def test_not_nested_takes_dots_literally_at_the_top_level(self):
        data = {"a.b": 1, "c": {"d": 2}}
        renamed = KeyRename({"a.b": "e.f", "c.d": "g"}, nested_keys=False)(data_dict=data)
        assert renamed == {"e.f": 1, "c": {"d": 2}}


class TestKeyCopy:
    def test_copies_leaves(self):
        copied = KeyCopy({"a.b": "c.d"})(data_dict={"a": {"b": [1]}})
        assert copied == {"a": {"b": [1]}, "c": {"d": [1]}}
        assert copied["a"]["b"] is not copied["c"]["d"]

    def test_does_nothing_for_a_dict_when_flattening(self):
        assert KeyCopy({"a": "c"})(data_dict={"a": {"b": 1}}) == {"a": {"b": 1}}

    def test_copies_dicts_without_flattening(self):
        copied = KeyCopy({"a": "c"}, flatten_data_dict=False)(data_dict={"a": {"b": 1}})
        assert copied == {"a": {"b": 1}, "c": {"b": 1}}

    def test_ignores_missing_keys(self):
        assert KeyCopy({"x": "y"})(data_dict={"a": 1}) == {"a": 1}


class TestKeySet:
    def test_sets_nested_leaves(self):
        assert KeySet({"a.c": 2})(data_dict={"a": {"b": 1}}) == {"a": {"b": 1, "c": 2}}

    def test_replaces_a_dict_by_a_scalar(self):
        assert KeySet({"a": 5})(data_dict={"a": {"b": 1}}) == {"a": 5}

    def test_fails_below_a_scalar(self):
        with pytest.raises(TypeError, match=r"a\.b cannot be set"):
            KeySet({"a.b": 2})(data_dict={"a": 1})

    def test_without_flattening_takes_dots_literally(self):
        assert KeySet({"a.b": 2}, flatten_data_dict=False)(data_dict={"a": 1}) == {"a": 1, "a.b": 2}


class TestKeySelect:
    def test_keeps_only_the_paths_with_their_structure(self):
        data = {"a": {"b": 1, "c": 2}, "d": 3, "e": 4}
        assert KeySelect(["a.b", "d"])(data_dict=data) == {"a": {"b": 1}, "d": 3}

    @pytest.mark.parametrize("nested", [True, False])
    def test_fails_for_a_missing_key(self, nested):
        with pytest.raises(KeyError, match="x"):
            KeySelect(["x"], nested_keys=nested)(data_dict={"a": 1})

    def test_not_nested_takes_dots_literally(self):
        assert KeySelect(["a.b"], nested_keys=False)(data_dict={"a.b": 1, "a": 2}) == {"a.b": 1}


class TestKeyDelete:
    def test_removes_leaves_and_the_dicts_they_leave_empty(self):
        assert KeyDelete(["a.b", "c"])(data_dict={"a": {"b": 1}, "c": 2, "d": 3}) == {"d": 3}

    def test_leaves_a_dict_when_flattening(self):
        assert KeyDelete(["a"])(data_dict={"a": {"b": 1}}) == {"a": {"b": 1}}

    def test_removes_a_dict_without_flattening(self):
        assert KeyDelete(["a"], flatten_data_dict=False)(data_dict={"a": {"b": 1}}) == {}

    def test_ignores_missing_keys(self):
        assert KeyDelete(["x"])(data_dict={"a": 1}) == {"a": 1}


class TestKeyMatchInput:
    flow = AtomicFlow({"name": "f", "description": "", "input_interface": ["a", "b"]})

    def test_keeps_the_keys_of_the_flows_input_interface(self):
        data = {"a": 1, "b": {"c": 2}, "d": 3}
        assert KeyMatchInput()(data_dict=data, dst_flow=self.flow) == {"a": 1, "b": {"c": 2}}

    def test_fails_for_a_missing_key(self):
        with pytest.raises(KeyError, match="b"):
            KeyMatchInput()(data_dict={"a": 1}, dst_flow=self.flow)

    def test_needs_the_flow(self):
        with pytest.raises(KeyError, match="dst_flow"):
            KeyMatchInput()(data_dict={"a": 1, "b": 2})


class TestUnNesting:
    def test_merges_the_dict_into_the_top_level(self):
        data = {"a": {"b": 1, "c": 2}, "c": 0}
        assert UnNesting("a", "unused")(data_dict=data) == {"b": 1, "c": 2}

    def test_fails_for_a_missing_key(self):
        with pytest.raises(ValueError, match="x is not in the data"):
            UnNesting("x")(data_dict={"a": 1})


class TestRegexFirstOccurrenceExtractor:
    def extract(self, text, regex, **more):
        options = {"assert_unique": False, "strip": False} | more
        extractor = RegexFirstOccurrenceExtractor(
            regex=regex, output_key="out", input_key="in", **options
        )
        return extractor(data_dict={"in": text})

    def test_gives_the_first_match_and_keeps_the_input(self):
        assert self.extract("a1 b2", r"[a-z]\d") == {"in": "a1 b2", "out": "a1"}

    def test_gives_a_group(self):
        assert self.extract("id=7;", r"id=(\d)", match_group=1)["out"] == "7"

    def test_gives_none_without_a_match(self):
        assert self.extract("abc", r"\d")["out"] is None

    @pytest.mark.parametrize("fallback", [r"[a-z]", [r"\d", r"[a-z]"]])
    def test_tries_fallbacks_in_order(self, fallback):
        assert self.extract("abc", r"\d", regex_fallback=fallback)["out"] == "a"

    def test_strips_when_asked(self):
        assert self.extract("< a >", r"<(.*)>", match_group=1, strip=True)["out"] == "a"

    def test_assert_unique_is_about_the_patterns_groups_not_the_matches(self):
        assert self.extract("a a a", "(a)", assert_unique=True)["out"] == "a"
        with pytest.raises(AssertionError, match="it has 2"):
            self.extract("ab", "(a)(b)", assert_unique=True)
        with pytest.raises(AssertionError, match="it has 0"):
            self.extract("ab", "a", assert_unique=True)
        assert self.extract("zz", "(a)(b)", assert_unique=True)["out"] is None


class TestJson:
    def test_parses_and_keeps_the_input(self):
        assert Json2Obj("a", "b")(data_dict={"a": "[1]"}) == {"a": "[1]", "b": [1]}

    def test_writes_and_keeps_the_input(self):
        assert Obj2Json("a", "b")(data_dict={"a": [1]}) == {"a": [1], "b": "[1]"}

    def test_without_output_key_the_result_is_under_none(self):
        assert Json2Obj("a")(data_dict={"a": "1"}) == {"a": "1", None: 1}
        assert Obj2Json("a")(data_dict={"a": 1}) == {"a": 1, None: "1"}


@pytest.mark.parametrize(("text", "ends"), [("all DONE now", True), ("go on", False)])
def test_end_of_interaction_is_contains_in_any_case(text, ends):
    transformation = EndOfInteraction("end", "Done", "text")
    assert transformation(data_dict={"text": text}) == {"text": text, "end": ends}


def chat_flow():
    flow = AtomicFlow({"name": "chat", "description": ""})
    flow.flow_state["previous_messages"] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hi"},
    ]
    return flow


def test_print_previous_messages_logs_all_and_leaves_the_data(caplog):
    with caplog.at_level(logging.INFO):
        assert PrintPreviousMessages()(data_dict={"a": 1}, src_flow=chat_flow()) == {"a": 1}
    assert caplog.messages == ["[chat] user: hello", "[chat] assistant: hi"]


def test_print_previous_messages_logs_the_last_only(caplog):
    with caplog.at_level(logging.INFO):
        PrintPreviousMessages(last_message_only=True)(data_dict={}, src_flow=chat_flow())
    assert caplog.messages == ["[chat] assistant: hi"]


def test_the_base_class_transforms_nothing():
    with pytest.raises(NotImplementedError):
        DataTransformation()(data_dict={})
