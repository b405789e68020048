"""Refused attempts, told to whoever runs this process; a flood of them becomes a few lines."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger(__name__)

_PERIOD = 10.0
"""Seconds in which one sender's attempts of one kind on one user are told once."""
_REMEMBERED = 1_000
_LONGEST = 300

Tell = Callable[[Mapping[str, Any]], None]


def _nobody(line: Mapping[str, Any]) -> None:
    """Tell nobody: the process runs for itself, and its log is enough."""


class Audit:
    """Tells of refused attempts: `{"audit": {"type", "user_id", "sender", "resource", "message"}}`.

    The message is that of the error, and never the content of what was refused.
    """

    def __init__(self, tell: Tell = _nobody, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._known: OrderedDict[tuple[str, str, str], tuple[float, int]] = OrderedDict()

    def refused(self, user_id: str, sender: str, error: Exception, resource: str) -> None:
        """Note that `user_id` refused what `sender` wanted of `resource`, because of `error`."""
        key = (user_id, sender, type(error).__name__)
        since, silent = self._known.get(key, (float("-inf"), 0))
        if self._clock() - since < _PERIOD:
            self._known[key] = since, silent + 1
            return
        self._known[key] = self._clock(), 0
        self._known.move_to_end(key)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        message = _short(f"{error}") + (f" ({silent} more like it before)" if silent else "")
        resource = _short(resource)
        log.warning("%s refused %s at %s: %s", user_id, sender, resource, message)
        told = {"type": key[2], "user_id": user_id, "sender": sender, "resource": resource}
        self._tell({"audit": {**told, "message": message}})


def _short(text: str) -> str:
    """Return `text`, part of which others may have written, on one line of bounded length."""
    return " ".join(text[:_LONGEST].split())
