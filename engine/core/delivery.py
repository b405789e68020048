"""Delivery of tasks to participants: where they are, and how they are reached (§6.5).

Users of this core are reached by writing their copy in the same transaction; `Tasks` does that.
Every other place a participant may be (another core, a reverse connection, a forwarder) belongs
here. This core does not call other cores, so it refuses such tasks at once and says so, before
anything is written.
"""

from collections.abc import Callable, Iterable

from engine.colink import wire
from engine.core.refusals import conflict


class Delivery:
    """Knows who is on this core."""

    def __init__(self, is_local: Callable[[str], bool]) -> None:
        self._is_local = is_local

    def check(self, user_ids: Iterable[str]) -> None:
        """Refuse (INTERNAL, as upstream) unless each participant can be reached."""
        for user_id in user_ids:
            if not self._is_local(user_id):
                raise conflict(f"The user {user_id} is not on this core and cannot be reached.")

    def send(self, user_id: str, task: wire.Task) -> None:
        """Send a task to a participant elsewhere; refused when there is no way to him."""
        raise conflict(
            f"The user {user_id} has no copy of the task {task.task_id} on this core,"
            " and cannot be reached elsewhere."
        )
