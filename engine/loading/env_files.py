"""Env files: `NAME=value` a line, for `${oc.env:NAME}`. What is in them is never told or stored."""

import re

from engine.loading.faults import Faults, Place

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EXPORT = re.compile(r"export[ \t]+")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_DOUBLE = re.compile(r'"((?:[^"\\]|\\.)*)"')
_SINGLE = re.compile(r"'([^']*)'")
_COMMENT = re.compile(r"\s+#.*|\s+")


def read_variables(text: str, file: str, faults: Faults) -> dict[str, str]:
    """Return the variables that `text` sets; a name that is set twice has its last value.

    Blank lines and lines that begin with `#` say nothing, `export` before a name neither. A value
    in single quotes is taken as it is; in double quotes backslashes escape, as in `\\n`; without
    quotes it ends before ` #`. Each line that is none of this is noted in `faults`.
    """
    variables: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        start = len(line) - len(line.lstrip())
        exported = _EXPORT.match(line, start)
        start = exported.end() if exported else start
        name = _NAME.match(line, start)
        if name is None or line[name.end() : name.end() + 1] != "=":
            hint = "Names have letters, digits and _, and no blank before the =."
            place: Place = (file, number, start + 1)
            faults.add(place, (), "This line is not of the form NAME=value.", hint)
            continue
        value = _value(line[name.end() + 1 :])
        if value is None:
            place = (file, number, name.end() + 2)
            faults.add(
                place,
                (),
                f"The value of {name.group()} has a quote that is not closed.",
                "Close it at the end of the line; only a comment may follow.",
            )
            continue
        variables[name.group()] = value
    return variables


def _value(written: str) -> str | None:
    """Return the value that is written after a `=`; None when its quotes are not well-formed."""
    text = written.strip()
    if not text.startswith(("'", '"')):
        return re.sub(r"(?:^|\s)#.*$", "", written).strip()
    quoted = (_SINGLE if text[0] == "'" else _DOUBLE).match(text)
    if quoted is None or (text[quoted.end() :] and not _COMMENT.fullmatch(text[quoted.end() :])):
        return None
    if text[0] == "'":
        return quoted.group(1)
    return re.sub(
        r"\\(.)", lambda found: _ESCAPES.get(found.group(1), found.group()), quoted.group(1)
    )
