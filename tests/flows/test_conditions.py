import pytest

from engine.flows.conditions import holds, problems

DATA = {"n": 3, "done": True, "text": "to be", "list": [1, "a", {"x": 1}], "deep": {"a": None}}


@pytest.mark.parametrize(
    "condition",
    [
        {"key": "n", "equals": 3},
        {"key": "n", "equals": 3.0},
        {"key": "done", "equals": True},
        {"key": "deep", "equals": {"a": None}},
        {"key": "deep.a", "exists": True},
        {"key": "deep.b", "exists": False},
        {"key": "n", "greater_than": 2.5, "less_than": 4},
        {"key": "text", "contains": "be"},
        {"key": "list", "contains": {"x": 1}},
        {"key": "deep", "contains": "a"},
        {"any": [{"key": "n", "equals": 4}, {"key": "n", "equals": 3}]},
        {"all": [{"key": "n", "equals": 3}, {"not": {"key": "done", "equals": False}}]},
    ],
)
def test_it_holds(condition):
    assert list(problems(condition)) == []
    assert holds(condition, DATA)
    assert not holds({"not": condition}, DATA)


@pytest.mark.parametrize(
    "condition",
    [
        {"key": "done", "equals": 1},
        {"key": "list", "contains": True},
        {"key": "absent", "equals": None},
        {"key": "absent", "less_than": 9},
        {"key": "text", "greater_than": 1},
        {"key": "done", "greater_than": 0},
        {"key": "n.m", "exists": True},
        {"key": "n", "contains": "3"},
        {"key": "n", "greater_than": 2, "less_than": 3},
    ],
)
def test_it_does_not_hold(condition):
    assert list(problems(condition)) == []
    assert not holds(condition, DATA)


@pytest.mark.parametrize(
    ("condition", "path", "message"),
    [
        ("n > 2", (), "A condition is a mapping."),
        ({"equals": 3}, (), "A condition needs a key."),
        ({"key": "n"}, (), "This condition tests nothing."),
        ({"key": "n", "eval": "n > 2"}, ("eval",), "There is no test eval."),
        ({"key": "n", "less_than": "3"}, ("less_than",), "less_than needs a number."),
        ({"key": "n", "exists": 1}, ("exists",), "exists is true or false."),
        ({"any": []}, ("any",), "any needs a list of conditions."),
        ({"not": {"key": "n"}}, ("not",), "This condition tests nothing."),
        ({"all": [{"key": 1, "exists": True}]}, ("all", 0), "A condition needs a key."),
        ({"not": {}, "all": []}, (), "Nothing may stand beside all."),
    ],
)
def test_what_is_wrong_is_told_with_its_place(condition, path, message):
    [problem] = problems(condition)
    assert (problem.path, problem.message) == (path, message)
