"""Paths into a manifest, as tuples of keys and list positions, and how people read them."""

import json
import re

Path = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z0-9_$/-]+")


_STEP = re.compile(
    r'(?:^|\.)(?:(?P<name>[^."\[\]]+)|(?P<quoted>"(?:[^"\\]|\\.)*"))|\[(?P<index>\d+)\]'
)


def parse_path(text: str) -> Path:
    """Return the path that `path_text` shows as `text`; ValueError when it is none."""
    steps: list[str | int] = []
    position = 0
    while position < len(text):
        found = _STEP.match(text, position)
        if found is None:
            raise ValueError(f"it cannot be read from {text[position:]} on")
        if found["index"]:
            steps.append(int(found["index"]))
        else:
            steps.append(found["name"] or json.loads(found["quoted"]))
        position = found.end()
    if not steps:
        raise ValueError("it is empty")
    return tuple(steps)


def path_text(path: Path) -> str:
    """Return a path as text: `users.user0.allow[1]`; a key with a dot or blank is quoted."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _PLAIN.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            text += f".{name}" if text else name
    return text
