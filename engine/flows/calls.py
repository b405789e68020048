"""Who waits for whom: the flows that a call came through, so that none waits for itself.

The path travels in `reply_data` (protocol sheet §9.6 allows no field of its own) and holds, for
each flow that waits, its name and a digest of its instance's id: whoever reads it can tell whether
he is in it, and can address nobody. A stock flow in between does not pass it on; there the deadline
ends the recursion.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from engine.kits.digest import digest
from engine.model.errors import UsageError
from engine.model.message import FlowMessage

CALL_PATH = "call_path"
DEEPEST = 64
"""So many flows may wait for one another."""
_LONGEST = 200
"""Characters that are kept of a name: what comes in is somebody else's text."""

Path = tuple[tuple[str, str], ...]
"""Name and mark of each flow, the outermost first."""

_enclosing: ContextVar[Path] = ContextVar("enclosing_call_path", default=())


def path_of(message: FlowMessage | None) -> Path:
    """Return the path that `message` carries; an empty one when it carries none that is one."""
    found = None if message is None else message.reply_data.get(CALL_PATH)
    if not isinstance(found, list) or len(found) > DEEPEST:
        return ()
    steps = [step for step in found if isinstance(step, list) and len(step) == 2]
    return tuple((str(name)[:_LONGEST], str(mark)[:_LONGEST]) for name, mark in steps)


@contextlib.contextmanager
def at_work(name: str, flow_id: str, caller: FlowMessage | None) -> Iterator[None]:
    """Let what is asked inside the block be asked by the flow `name`, `flow_id`.

    `caller` is the message whose sender waits for the flow meanwhile.
    """
    token = _enclosing.set((*path_of(caller), (name, digest(flow_id))))
    try:
        yield
    finally:
        _enclosing.reset(token)


def path_to(name: str, flow_id: str) -> list[list[str]]:
    """Return the path for a question of the flow at work to the instance `flow_id`, as JSON data.

    It is empty outside a turn. Raises UsageError, with the path, when the instance waits for this
    very question already, or when too many wait.
    """
    path, mark = _enclosing.get(), digest(flow_id)
    marks = [there for _, there in path]
    if mark in marks:
        names = [step for step, _ in path[marks.index(mark) :]]
        raise UsageError(
            f"{name} would wait for itself: {' -> '.join([*names, names[0]])}.",
            "Let the last of them ask another instance.",
        )
    if len(path) >= DEEPEST:
        raise UsageError(
            f"{name} is asked through more than {DEEPEST} flows that wait for one another.",
            f"The outermost is {path[0][0]}.",
        )
    return [list(step) for step in path]
