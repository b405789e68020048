"""Where all printing goes: colours at a terminal only, nothing that could steer the terminal."""

import contextlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TextIO

import typer

_COLOURS = {
    "Ready": typer.colors.GREEN,
    "Converged": typer.colors.GREEN,
    "Pending": typer.colors.YELLOW,
    "Converging": typer.colors.YELLOW,
    "Terminating": typer.colors.YELLOW,
    "Degraded": typer.colors.YELLOW,
    "Failed": typer.colors.RED,
    "broken": typer.colors.RED,
    "error:": typer.colors.RED,
}
_WORDS = re.compile(r"(?<![\w./-])(?:" + "|".join(map(re.escape, _COLOURS)) + r")(?![\w/-])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_STEERING = re.compile(r"(?!\x1b\[[0-9;]*m)" + _CONTROL.pattern)
"""Control characters other than those that begin a colour."""


def coloured(stream: TextIO) -> bool:
    """Tell whether `stream` is a terminal that shall have colours (NO_COLOR says no)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def printable(text: str) -> str:
    """Return `text` with control characters spelled out: messages and keys may come from others."""
    return _CONTROL.sub(_spelled_out, text)


def _spelled_out(found: re.Match[str]) -> str:
    return f"\\x{ord(found.group()):02x}"


def paint(text: str) -> str:
    """Return `text` with the names of states, and `error:`, coloured."""
    return _WORDS.sub(
        lambda found: typer.style(found.group(), fg=_COLOURS[found.group()]), printable(text)
    )


def show(text: str) -> None:
    """Print `text` on standard output at once, so that who reads a pipe sees it too."""
    _write(text, sys.stdout)


def show_lines(lines: Iterable[str]) -> None:
    """Print lines of a log as they are; a terminal gets their colours, but no other commands."""
    terminal = sys.stdout.isatty()
    for line in lines:
        sys.stdout.write((_STEERING.sub(_spelled_out, line) if terminal else line) + "\n")
    sys.stdout.flush()


def complain(text: str) -> None:
    """Print `text` on standard error."""
    _write(text, sys.stderr)


def _write(text: str, stream: TextIO) -> None:
    stream.write((paint(text) if coloured(stream) else printable(text)) + "\n")
    stream.flush()


def show_json(value: Any) -> None:
    """Print JSON data on standard output: over many lines at a terminal, else on one."""
    pretty = sys.stdout.isatty()
    text = json.dumps(value, indent=2, ensure_ascii=False) if pretty else json.dumps(value)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_json_line(value: Any) -> None:
    """Print JSON data on one line, for output that is a stream of objects."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


@contextlib.contextmanager
def live(doing: str) -> Iterator[Callable[[str], None]]:
    """Yield a function that prints a line; at a terminal a spinner with `doing` stands below."""
    if not coloured(sys.stdout):
        yield show
        return
    from rich.console import Console  # 0.1 s that only a waiting terminal has to spare
    from rich.text import Text

    console = Console()
    with console.status(doing):
        yield lambda line: console.print(Text.from_ansi(paint(line)), soft_wrap=True)


@contextlib.contextmanager
def replacing() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text in place of the one before, or below it in a pipe."""
    if not sys.stdout.isatty():
        yield show
        return
    from rich.live import Live  # 0.1 s that only a watched terminal has to spare
    from rich.text import Text

    with Live(auto_refresh=False, vertical_overflow="visible") as screen:
        yield lambda text: screen.update(Text.from_ansi(paint(text)), refresh=True)


def interactive() -> bool:
    """Tell whether somebody is there who can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
