"""What ends a run of the benchmark with one message instead of a traceback."""


class BenchmarkError(Exception):
    """Something that the benchmark needs failed; the message says what, and what to do."""


def tail(text: str, lines: int = 15) -> str:
    """Return the last lines of what a failed command printed."""
    return "\n".join(text.strip().splitlines()[-lines:])
