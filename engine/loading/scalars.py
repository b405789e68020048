"""What an unquoted word in YAML means.

YAML 1.1 (PyYAML, omegaconf) and 1.2 (editors, JSON Schema tools) read some words differently: `no`,
`010`, `12:30`. A manifest in which such a word stands unquoted would mean one thing to the editor
and another to the engine, so these words are refused, with both ways to write what is meant.
"""

import math
import re
from typing import Any, cast

Scalar = str | int | float | bool | None

_CONSTANTS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_OLD_BOOLEANS = {
    **dict.fromkeys(("yes", "Yes", "YES", "on", "On", "ON"), "true"),
    **dict.fromkeys(("no", "No", "NO", "off", "Off", "OFF"), "false"),
}
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_OCTAL = re.compile(r"([-+]?)0o?([0-7]+)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_OLD_NUMBER = re.compile(
    r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?"
    r"|[1-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|[0-9]*[0-9_]*\.[0-9_]*_[0-9_]*)"
    r"|[-+]\.[0-9]+|[-+]?\.[0-9]+[eE][-+]?[0-9]+"
)
_FIRST = frozenset("-+.0123456789~nNtTfFyYoO")


class AmbiguousScalarError(Exception):
    """The word means different things to different readers; `message` and `hint` for the fault."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def plain(text: str) -> Scalar:
    """Return the value of an unquoted scalar: null, boolean, number, or else the text itself.

    Raises AmbiguousScalarError when YAML 1.1 and 1.2 do not agree, or JSON has no such value.
    """
    if text and text[0] not in _FIRST:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text in _OLD_BOOLEANS:
        raise AmbiguousScalarError(
            f"{text} is a boolean to some readers of YAML, and text to others.",
            f'Write {_OLD_BOOLEANS[text]}, or "{text}" in quotes if text is meant.',
        )
    return _number(text)


def _number(text: str) -> Scalar:
    if len(text) > 400:
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    _refuse_old_numbers(text)
    if _NOT_JSON.fullmatch(text):
        raise AmbiguousScalarError(
            f"{text} is a number that JSON does not have.", f'Write "{text}" in quotes for text.'
        )
    if _FLOAT.fullmatch(text):
        number = float(text)
        if math.isinf(number):
            raise AmbiguousScalarError(f"{text} is too large a number.", "Put it in quotes.")
        return number
    return text


def _refuse_old_numbers(text: str) -> None:
    octal = _OCTAL.fullmatch(text)
    if octal:
        sign, digits = octal.groups()
        raise AmbiguousScalarError(
            f"{text} is an octal number to some readers of YAML, and not to others.",
            f'Write {sign}{int(digits, 8)}, or "{text}" in quotes if text is meant.',
        )
    if _LEADING_ZERO.fullmatch(text) or _OLD_NUMBER.fullmatch(text):
        raise AmbiguousScalarError(
            f"{text} is a number to some readers of YAML, and text to others.",
            f'Write a decimal number, or "{text}" in quotes if text is meant.',
        )


def tagged(text: str, tag: str) -> Scalar:
    """Return the value of a scalar with the explicit YAML tag `tag`, such as `!!int`.

    Raises ValueError when the text is not of that type, KeyError when the tag is not known, and
    AmbiguousScalarError as `plain` does.
    """
    if tag == "tag:yaml.org,2002:str":
        return text
    kinds: dict[str, Any] = {
        "tag:yaml.org,2002:int": int,
        "tag:yaml.org,2002:float": (int, float),
        "tag:yaml.org,2002:bool": bool,
        "tag:yaml.org,2002:null": type(None),
    }
    kind = kinds[tag]
    value = plain(text)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(text)
    return float(text) if tag.endswith(":float") else cast(Scalar, value)
