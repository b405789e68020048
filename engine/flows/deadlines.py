"""Until when an answer is waited for: never later than the message being worked on says."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

from engine.model.message import DEFAULT_TIMEOUT, FlowMessage

_enclosing_deadline: ContextVar[float | None] = ContextVar("enclosing_deadline", default=None)


@contextlib.contextmanager
def working_on(message: FlowMessage) -> Iterator[None]:
    """Bound every deadline set inside the block by the one of `message`."""
    token = _enclosing_deadline.set(message.deadline)
    try:
        yield
    finally:
        _enclosing_deadline.reset(token)


def deadline_after(timeout: float | None) -> float:
    """Return the Unix time in `timeout` seconds, or the enclosing one if that is earlier.

    Without a `timeout` it is the enclosing one; where there is none, in 60 seconds.
    """
    enclosing = _enclosing_deadline.get()
    if enclosing is not None and timeout is None:
        return enclosing
    wanted = time.time() + (DEFAULT_TIMEOUT if timeout is None else timeout)
    return wanted if enclosing is None else min(wanted, enclosing)


def seconds_until(deadline: float) -> float:
    """Return how many seconds are left until the Unix time `deadline`, at least 0."""
    return max(0.0, deadline - time.time())
