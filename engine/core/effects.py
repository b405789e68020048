"""What follows from a change, done after it in the same transaction: the built-in operators' work.

An effect that fails is undone alone and logged; the change that led to it stands.
"""

import logging
from collections import deque
from collections.abc import Callable

from engine.core.store import Store
from engine.core.subscriptions import Subscriptions

log = logging.getLogger(__name__)


class Effects:
    """A queue of actions, run in order until none is left; actions may add more."""

    def __init__(self, store: Store, subscriptions: Subscriptions) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._actions: deque[tuple[Callable[[], None], Callable[[], None] | None]] = deque()

    def add(self, action: Callable[[], None], undo: Callable[[], None] | None = None) -> None:
        """Run `action` at the next `run`; `undo` repairs what it left in memory when it fails."""
        self._actions.append((action, undo))

    def run(self) -> None:
        """Run all actions. Call it after each change, without awaiting in between."""
        while self._actions:
            action, undo = self._actions.popleft()
            mark, later = self._subscriptions.mark(), len(self._actions)
            try:
                with self._store.savepoint():
                    action()
            except Exception:
                log.exception("a built-in operator failed")
                self._subscriptions.forget_after(mark)
                while len(self._actions) > later:
                    self._actions.pop()
                if undo is not None:
                    undo()

    @property
    def pending(self) -> bool:
        """Tell whether there is anything to run."""
        return bool(self._actions)
