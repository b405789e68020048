"""What PyYAML says of text that is not YAML, in words that tell what to do."""

import re
from typing import Any

import yaml

Place = tuple[int, int]
"""Line and column, both from 1; (0, 0) when the text as a whole is meant."""
Described = tuple[Place, str, str]

_QUOTE_INTERPOLATION = "Put ${…} in quotes when it stands inside { } or [ ], or has `: ` in it."
_INDENTATION = "Check how far this line and those above are indented, and what is not closed."
_SENTENCES = {
    "did not find expected ',' or '}'": ("The { of {opened} is not closed by a }.", _INDENTATION),
    "did not find expected ',' or ']'": ("The [ of {opened} is not closed by a ].", _INDENTATION),
    "did not find expected '-' indicator": (
        "A `- ` was expected here, as in the list from {opened} on.",
        _INDENTATION,
    ),
    "did not find expected key": ("A `key:` was expected here.", _INDENTATION),
    "did not find expected <document start>": (
        "This does not go on with what is above.",
        "Indent it as far as the first line.",
    ),
    "block sequence entries are not allowed in this context": (
        "A list cannot begin in the middle of a line.",
        "Put each `- ` on a line of its own, or write [a, b].",
    ),
    "found unexpected end of stream": (
        "The quote of {opened} is not closed.",
        "Close it where the text ends.",
    ),
    "found unexpected document indicator": (
        "The quote of {opened} is not closed.",
        "Close it where the text ends.",
    ),
    "found incompatible YAML document": (
        "This version of YAML is not known.",
        "Remove the %YAML line.",
    ),
    "did not find expected alphabetic or numeric character": (
        "A name was expected after this & or *.",
        "Put it in quotes if text that begins with it is meant.",
    ),
    "did not find expected node content": ("A value was expected here.", _INDENTATION),
    "could not find expected ':'": ("A `:` was expected after this key.", _INDENTATION),
}


def describe(error: yaml.YAMLError, text: str) -> Described:
    """Return place, message and hint for what PyYAML found wrong with `text`."""
    position = getattr(error, "position", None)
    if position is not None:
        before = text[:position]
        place = (before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1)
        code = ord(text[position]) if position < len(text) else 0
        message = f"The character U+{code:04X} is not allowed in YAML."
        return place, message, 'Remove it, or write it as an escape in "…".'
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error)
    if mark is None:
        return (0, 0), f"This is not YAML: {problem}.", ""
    lines = re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)
    line = lines[mark.line] if mark.line < len(lines) else ""
    place = (mark.line + 1, mark.column + 1)
    message, hint = _sentence(error, problem, line, mark.column)
    if "unexpected end of stream" in problem or "unexpected document" in problem:
        opened = getattr(error, "context_mark", None) or mark
        place = (opened.line + 1, opened.column + 1)
    elif mark.line >= len(lines) or not any(lines[mark.line :]):
        place, message = _at_the_end(lines, message)
    return place, message, hint


def _at_the_end(lines: list[str], message: str) -> tuple[Place, str]:
    last = max((number for number, line in enumerate(lines) if line.strip()), default=0)
    return (last + 1, len(lines[last].rstrip()) + 1), message.replace(
        " here", ", and the file ends"
    )


def _sentence(error: Any, problem: str, line: str, column: int) -> tuple[str, str]:
    opening = getattr(error, "context_mark", None)
    opened = f"line {opening.line + 1}, column {opening.column + 1}" if opening else "above"
    if "tab character" in problem or line[column : column + 1] == "\t":
        return "A tab cannot indent YAML.", "Use blanks."
    if problem == "found character that cannot start any token":
        first = line[column : column + 1]
        return f"A value cannot begin with {first}.", f'Put it in quotes: "{first}…".'
    if problem == "mapping values are not allowed in this context":
        return _second_colon(line, column)
    if "escape" in problem:
        return (
            "There is no such escape in a text in double quotes.",
            "Write \\\\ for a backslash, or use single quotes.",
        )
    message, hint = _SENTENCES.get(problem, (f"This is not YAML: {problem}.", _INDENTATION))
    if "${" in line:
        hint = _QUOTE_INTERPOLATION
    return message.replace("{opened}", opened), hint


def _second_colon(line: str, column: int) -> tuple[str, str]:
    if "${" in line[:column]:
        return "A `key: value` cannot stand here.", _QUOTE_INTERPOLATION
    if ": " in line[:column]:
        return "A second `: ` stands in one line.", 'Put the value in quotes: "…".'
    return (
        "A `key: value` cannot stand here.",
        "Indent it like its neighbours, and let a blank follow the `:` of the key above.",
    )
