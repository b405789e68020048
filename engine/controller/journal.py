"""Writing the history of one manifest while its loop goes on."""

from dataclasses import replace
from typing import Any

import structlog

from engine.controller.history import CONVERGED, Generation, History

log = structlog.get_logger(__name__)


class Journal:
    """Keeps in a history how the newest generation of one manifest goes, until it has converged.

    A full disk costs the history, never the healing.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._record: Generation | None = None

    def resume(self, manifest: str, generation: int) -> None:
        """Go on with a generation that an earlier engine began."""
        found = (g for g in self._history.all(manifest) if g.generation == generation)
        self._record = next(found, None)

    def begin(self, generation: Generation) -> None:
        """Go on with a new generation."""
        self._record = generation

    def note(self, **changes: Any) -> None:
        """Keep changes of the generation's record; `steps` are added to those already there."""
        record = self._record
        if record is None or record.result == CONVERGED:
            return
        if "steps" in changes:
            changes["steps"] = tuple(dict.fromkeys((*record.steps, *changes["steps"])))
        self._record = replace(record, **changes)
        if self._record != record:
            try:
                self._history.put(self._record)
            except OSError as error:
                log.warning("the history is not written", error=str(error))
