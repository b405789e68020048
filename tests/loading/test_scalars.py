"""Unquoted words: accepted only when the readers of YAML agree."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from engine.loading.scalars import AmbiguousScalarError, plain, tagged

AGREED = """
null ~ true True FALSE 0 7 -7 +7 0x1F 1.5 .5 2. 1.e5 1e-3 +1.5 1e3 1.5e+3
a y n N a1 1a 1.2.3 -- + . .. 0x 1-2
2024-01-31 engine/v1 reverse_number.Flow 1_a :80 nul truely
"""
REFUSED = """
yes No on OFF 010 -010 0o17 09 1_000 12:30 -1:20:30 0b1 .inf -.INF .nan 1e999 0x_f
-.5 +.5e1 .5e3 ._5
"""


@pytest.mark.parametrize("text", AGREED.split())
def test_what_is_accepted_is_what_omegaconf_reads_in_a_class_s_defaults(text: str) -> None:
    assert plain(text) == OmegaConf.create(f"value: {text}").value


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("2024-01-31", "2024-01-31"), ("9" * 500, "9" * 500)],
)
def test_nothing_is_null_and_dates_are_text(text: str, value: Any) -> None:
    assert plain(text) == value


@pytest.mark.parametrize("text", REFUSED.split())
def test_words_that_mean_several_things_are_refused(text: str) -> None:
    with pytest.raises(AmbiguousScalarError) as caught:
        plain(text)
    assert text in caught.value.message


def test_explicit_tags() -> None:
    def read(text: str, kind: str) -> Any:
        return tagged(text, f"tag:yaml.org,2002:{kind}")

    assert (read("12", "str"), read("12", "int"), read("12", "float")) == ("12", 12, 12.0)
    assert (read("true", "bool"), read("", "null")) == (True, None)
    for text, kind in (("a", "int"), ("true", "int"), ("1.5", "int"), ("a", "float")):
        with pytest.raises(ValueError):
            read(text, kind)
    with pytest.raises(KeyError):
        read("x", "binary")
