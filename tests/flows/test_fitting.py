"""Steps that do not fit together are found before anything runs; doubts are not told."""

import pytest

from engine.flows.fitting import Interface, misfits, unfit
from engine.flows.schemas import expanded
from engine.flows.topology import Pattern, read

NUMBER = expanded({"n": "integer"})
RESULT = expanded({"result": "integer"})
DEEP = expanded({"deep": {"type": "object", "properties": {"n": {"type": "string"}}}})


@pytest.mark.parametrize(
    ("given", "wanted", "told"),
    [
        (NUMBER, NUMBER, []),
        (NUMBER, {"n": "number"}, []),
        (NUMBER, ["n"], []),
        ({"n": "any"}, NUMBER, []),
        (NUMBER, {"m": "integer?"}, []),
        ({"n": "number"}, NUMBER, ["n is number where integer is needed."]),
        (RESULT, NUMBER, ["n is missing; there is: result."]),
        ({"type": "object"}, NUMBER, []),
        ({**RESULT, "additionalProperties": {}}, NUMBER, []),
        (
            {"n": {"type": ["integer", "null"]}},
            NUMBER,
            ["n is integer or null where integer is needed."],
        ),
        ({"n": {"anyOf": [{"type": "integer"}, {}]}}, NUMBER, []),
        ({"n": {"enum": [1, 2]}}, NUMBER, []),
        ({"n": {"const": "a"}}, NUMBER, ["n is string where integer is needed."]),
        (DEEP, {"deep": NUMBER}, ["deep.n is string where integer is needed."]),
        (
            {"properties": {"n": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "null"}}},
            NUMBER,
            ["n is null where integer is needed."],
        ),
    ],
)  # fmt: skip
def test_what_one_gives_and_another_needs(given, wanted, told):
    assert list(unfit(expanded(given), expanded(wanted))) == told


ANYTHING = Interface()


def found(pattern, config, own=ANYTHING, **subflows):
    topology, problems = read({**config, "subflows_config": subflows}, pattern)
    assert problems == []
    return [
        (problem.path, problem.message) for problem in misfits(topology, pattern, own, subflows)
    ]


ADD = Interface(NUMBER, RESULT)
TO_N = {"keys_to_rename": {"result": "n"}}


def test_each_step_of_a_line_needs_what_the_one_before_gives():
    assert found(Pattern.SEQUENCE, {"topology": ["add", "add"]}, add=ADD) == [
        (("topology", 1), "What add gives does not fit add: n is missing; there is: result.")
    ]
    topology = [{"flow": "add", "output_interface": TO_N}, "add"]
    assert found(Pattern.SEQUENCE, {"topology": topology}, add=ADD) == []


def test_the_first_step_needs_what_the_caller_sends():
    own = Interface(expanded({"n": "string"}))
    assert found(Pattern.SEQUENCE, {"topology": ["add"]}, own, add=ADD) == [
        (
            ("topology", 0),
            "What the caller sends does not fit add: n is string where integer is needed.",
        )
    ]


def test_what_is_taken_has_the_schema_of_where_it_is_taken_from():
    own = Interface(expanded({"a": {"type": "object", "properties": {"x": {"type": "string"}}}}))
    topology = ["any", {"flow": "add", "take": {"n": "input.a.x"}}]
    assert found(Pattern.SEQUENCE, {"topology": topology}, own, any=ANYTHING, add=ADD) == [
        (("topology", 1), "What it takes does not fit add: n is string where integer is needed.")
    ]
    topology[1] = {"flow": "add", "take": {"n": "any.whatever"}}
    assert found(Pattern.SEQUENCE, {"topology": topology}, own, any=ANYTHING, add=ADD) == []
    topology[1] = {"flow": "add", "take": {"n": "input.b"}}
    assert found(Pattern.SEQUENCE, {"topology": topology}, own, any=ANYTHING, add=ADD) == [
        (("topology", 1), "What it takes does not fit add: n is missing; there is: nothing.")
    ]


def test_a_circle_closes():
    assert found(Pattern.CIRCLE, {"topology": ["add"], "max_rounds": 2}, add=ADD) == [
        (
            ("topology", 0),
            "What add gives at the end of a round does not fit add: "
            "n is missing; there is: result.",
        )
    ]
    assert found(Pattern.CIRCLE, {"topology": ["add"], "max_rounds": 1}, add=ADD) == []


@pytest.mark.parametrize(
    ("interface", "fits"),
    [
        ({"keys_to_copy": {"result": "n"}}, True),
        ({"keys_to_set": {"n": 3}}, True),
        ({"keys_to_set": {"n": "3"}}, False),
        ({"keys_to_set": {"n": 3}, "keys_to_delete": ["n"]}, False),
        ({"keys_to_set": {"n": 3}, "keys_to_select": ["result"]}, False),
        ({"keys_to_rename": {"result": "m"}}, False),
        ({"keys_to_rename": {"a.b": "n"}}, True),
        ({"additional_transformations": [{"_target_": "UnNesting", "input_key": "result"}]}, True),
    ],
)
def test_interfaces_are_followed_as_far_as_they_move_keys(interface, fits):
    topology = ["add", {"flow": "add", "input_interface": interface}]
    assert (found(Pattern.SEQUENCE, {"topology": topology}, add=ADD) == []) is fits


def test_the_answer_fits_the_composites_own_output():
    own = Interface(None, expanded({"n": "integer"}))
    missing = "The answer does not fit the flow's output_schema: n is missing; there is: "
    assert found(Pattern.SEQUENCE, {"topology": ["add"]}, own, add=ADD) == [
        (("topology", 0), f"{missing}result.")
    ]
    branches = {"topology": ["add", {"flow": "add", "output_interface": TO_N}]}
    assert found(Pattern.BRANCHES, branches, own, add=ADD) == [
        (("topology", 0), f"{missing}result.")
    ]
    assert found(Pattern.PARALLEL, {"topology": ["add"]}, own, add=ADD) == [
        (("topology",), f"{missing}add.")
    ]
    answered = {"topology": ["add"], "answer": {"n": "add.result"}}
    assert found(Pattern.PARALLEL, answered, own, add=ADD) == []
    answered["answer"] = {"n": "input.n"}
    assert found(Pattern.PARALLEL, answered, own, add=ADD) == []


def test_an_answer_of_branches_has_only_what_the_branch_taken_gives():
    own = Interface(None, RESULT)
    config = {"topology": [{"flow": "add", "name": "one"}, {"flow": "add", "name": "two"}]}
    assert found(Pattern.BRANCHES, config, own, add=ADD) == []
    config["answer"] = {"result": "one.result"}
    missing = (
        "The answer does not fit the flow's output_schema: result is missing; there is: nothing."
    )
    assert found(Pattern.BRANCHES, config, own, add=ADD) == [(("answer",), missing)]
