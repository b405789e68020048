"""Time as an argument: the pure core never asks the machine what time it is."""

import time
from dataclasses import dataclass
from typing import Protocol


class Clock(Protocol):
    """Where a component takes the time from."""

    def now(self) -> float:
        """Return the wall-clock time, in seconds since the Unix epoch."""
        ...

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        ...


class SystemClock:
    """The machine's clocks."""

    def now(self) -> float:
        """Return the wall-clock time, in seconds since the Unix epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return time.monotonic()


@dataclass
class ManualClock:
    """A clock that a test moves by hand; both readings are `time`, in seconds."""

    time: float = 0.0

    def now(self) -> float:
        """Return the time set by hand."""
        return self.time

    def monotonic(self) -> float:
        """Return the time set by hand."""
        return self.time

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self.time += seconds
