"""Paths into a manifest, as tuples of keys and list positions, and how people read them."""

import json
import re

Path = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z0-9_$/-]+")


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
