"""The short way of reading an interpolation gives what omegaconf gives."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from engine.loading import expressions
from engine.loading.interpolation import Interpolation
from engine.loading.suggestions import Suggestions

DATA: dict[str, Any] = {"a": 1, "b": {"c": "x", "d": [True, None]}, "e": {}}


@pytest.mark.parametrize(
    "text",
    [
        "${a}",
        "${.a}",
        "${b.c}",
        "v-${a}-${b.c}",
        "${b}",
        "${b.d}",
        "${b.d[0]}",
        "${b.d.1}",
        "${b['c']}".replace("'", ""),
        "${[b][c]}",
        "$${a}",
        "\\${a}",
        "\\\\${a}",
        "a $ { b }",
        "${oc.env:NAME}",
        "<${oc.env:NAME}>",
        "${oc.env:UNSET,7}",
        "${oc.env:UNSET,null}",
        "${oc.env:UNSET,'a b'}",
        "${oc.env: NAME }",
        "${oc.decode:'[1, {k: 2.5}]'}",
        "${oc.decode:${oc.env:NUMBER}}",
        "${oc.create:{k: [1, ${a}]}}",
        "${oc.dict.keys:b}",
        "${oc.dict.values:e}",
        "${oc.select:b.c}",
        "${oc.select:nothing,${a}}",
        "line\n${a}\n",
    ],
)
def test_values_are_those_of_omegaconf(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"NAME": "name", "NUMBER": "3"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    theirs = OmegaConf.to_container(OmegaConf.create({**DATA, "text": text}), resolve=True)
    ours = Interpolation({**DATA, "text": text}, {}, environment, Suggestions())
    assert ours.resolve() == theirs
    assert ours.problems == {}


@pytest.mark.parametrize("text", ["${null}", "${oc.env:null}", "${oc.env:nan}", "x${a.b}y${..c}"])
def test_the_short_way_is_taken_only_where_it_is_the_same(text: str) -> None:
    def seen(evaluated: str) -> list[Any]:
        calls: list[Any] = []
        expressions.evaluate(
            evaluated,
            lambda keys, dots: calls.append((keys, dots)),
            lambda name, arguments: calls.append((name, arguments)),
        )
        return calls

    assert repr(seen(text)) == repr(seen(text + "\\"))  # nan is not nan


def test_a_file_without_interpolation_needs_no_grammar() -> None:
    value = {"a": ["b", {"c": None}]}
    assert Interpolation(value, {}, {}, Suggestions()).resolve() == value
