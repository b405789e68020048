"""The event log: what the engine did and why, for `engine events`, newest last.

Events are kept in a file of bounded size and handed to whoever follows. They never hold secrets.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.kits.clock import Clock

_KEEP = 2_000
_FOLLOWER_LIMIT = 10_000


@dataclass(frozen=True)
class Event:
    """One thing that happened, to which resource of which manifest; `time` in Unix seconds."""

    time: float
    type: str
    manifest: str
    resource: str
    message: str


class EventLog:
    """Events of this ENGINE_HOME, those of earlier engines included."""

    def __init__(self, file: Path, clock: Clock) -> None:
        self._file = file
        self._clock = clock
        self._events: deque[Event] = deque(_read(file), maxlen=_KEEP)
        self._followers: set[asyncio.Queue[Event]] = set()
        self._written = len(self._events)

    def add(self, type_: str, message: str, *, manifest: str = "", resource: str = "") -> None:
        """Record an event; on a full disk it is kept in memory only, and the engine goes on."""
        event = Event(self._clock.now(), type_, manifest, resource, message)
        self._events.append(event)
        for follower in self._followers:
            if follower.qsize() < _FOLLOWER_LIMIT:
                follower.put_nowait(event)
        with contextlib.suppress(OSError):
            self._write(event)

    def recent(self) -> list[Event]:
        """Return the events that are kept, oldest first."""
        return list(self._events)

    async def follow(self, *, recent: bool = False) -> AsyncGenerator[Event, None]:
        """Yield every event from now on; with `recent`, those that are kept before, none left out.

        "Now" is when the first event is asked for.
        """
        queue: asyncio.Queue[Event] = asyncio.Queue()
        kept = self.recent() if recent else []
        self._followers.add(queue)
        try:
            for event in kept:
                yield event
            while True:
                yield await queue.get()
        finally:
            self._followers.discard(queue)

    def _write(self, event: Event) -> None:
        if self._written >= 2 * _KEEP:
            lines = [json.dumps(asdict(kept)) for kept in self._events]
            self._file.write_text("\n".join(lines) + "\n")
            self._written = len(lines)
            return
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(event)) + "\n")
        self._written += 1


def _read(file: Path) -> list[Event]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError):
            events.append(Event(**json.loads(line)))
    return events
