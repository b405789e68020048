"""Code blocks of a page of documentation."""

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(r"^```([\w-]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language, its text, and the line where its text begins."""

    language: str
    text: str
    line: int


def blocks(page: Path, language: str = "") -> list[Block]:
    """Return the code blocks of `page`, of one language if it is given."""
    text = page.read_text()
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 2)
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if not language or block.language == language]
