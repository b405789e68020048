"""What follows from a change, done after it in the same transaction: the built-in operators' work.

An effect that fails is undone alone and logged; the change that led to it stands.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from engine.core.store import Store

log = logging.getLogger(__name__)
Action = Callable[[], None]


class Effects:
    """A queue of actions, run in order until none is left; actions may add more."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._actions: deque[tuple[Action, Action | None]] = deque()
        self._later: set[asyncio.TimerHandle] = set()

    @property
    def pending(self) -> bool:
        """Tell whether there is anything to run."""
        return bool(self._actions)

    def add(self, action: Action, undo: Action | None = None) -> None:
        """Run `action` at the next `run`; `undo` is run after it failed and was rolled back."""
        self._actions.append((action, undo))

    def run(self) -> None:
        """Run all actions. Call it after each change, without awaiting in between."""
        first = list(self._actions)
        if not first:
            return
        try:
            with self._store.savepoint():
                while self._actions:
                    self._actions.popleft()[0]()
        except Exception:
            # Now each by itself, to undo no more than the one that fails.
            self._actions = deque(first)
            self._run_apart()

    def later(self, seconds: float, action: Action) -> None:
        """Run `action` after some time, in a transaction of its own; a stop of the core drops it.

        Called where a change is made that may still be undone, so it looks at what is then.
        """

        def act() -> None:
            self._later.discard(handle)
            self.add(action)
            self.run()

        handle = asyncio.get_running_loop().call_later(seconds, act)
        self._later.add(handle)

    def stop(self) -> None:
        """Drop what was to be done later."""
        for handle in self._later:
            handle.cancel()
        self._later.clear()

    def _run_apart(self) -> None:
        while self._actions:
            action, undo = self._actions.popleft()
            later = len(self._actions)
            try:
                with self._store.savepoint():
                    action()
            except Exception:
                log.exception("a built-in operator failed")
                while len(self._actions) > later:
                    self._actions.pop()
                if undo is not None:
                    undo()
