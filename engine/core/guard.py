"""Turns away what is too large or comes too often, before anything is done for it."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from engine.colink import wire
from engine.core.limits import Limits
from engine.core.refusals import exhausted, malformed

_IDLE_CALLERS = 10_000
"""From so many callers on, those that have not called for a while are forgotten."""


class Guard:
    """Looks at each request before anything is done for it."""

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def admit(self, caller: str, request: Any) -> None:
        """Refuse a call of `caller` that comes too soon, or a request that is too large."""
        if self._limits.max_calls_per_second > 0:
            self._count(caller)
        check = _CHECKS.get(type(request))
        if check is not None:
            for name, payload in check(request):
                self.check(name, payload)

    def check(self, name: str, payload: bytes = b"") -> None:
        """Refuse a name (of a key, protocol or role) or a payload that is too long."""
        limits = self._limits
        size, depth = limits.max_key_bytes, limits.max_key_depth
        # A character has four bytes at most: short names, nearly all, are not encoded for this.
        if 0 < size < len(name) * 4 and len(name.encode()) > size:
            raise malformed(f"The name {name[:40]!r}… is longer than {size:g} bytes.")
        if 0 < depth < len(name) and name.count(":") > depth:
            raise malformed(f"The name {name[:40]!r}… has more than {depth:g} colons.")
        if 0 < limits.max_payload_bytes < len(payload):
            raise exhausted(f"The payload is larger than {limits.max_payload_bytes:.0f} bytes.")

    def _count(self, caller: str) -> None:
        """Take a call off the caller's bucket, which fills again with time."""
        rate, now = self._limits.max_calls_per_second, self._clock()
        left, since = self._buckets.get(caller, (rate * 10, now))
        left = min(rate * 10, left + (now - since) * rate) - 1
        if left < 0:
            raise exhausted(f"You call more than {rate:g} times a second. Try again later.")
        if len(self._buckets) >= _IDLE_CALLERS and caller not in self._buckets:
            self._buckets = {k: v for k, v in self._buckets.items() if now - v[1] < 10}
        self._buckets[caller] = (left, now)


_Named = Iterator[tuple[str, bytes]]


def _of_entry(entry: wire.StorageEntry) -> _Named:
    yield entry.key_name, entry.payload


def _of_entries(request: wire.StorageEntries) -> _Named:
    for entry in request.entries:
        yield entry.key_name, entry.payload


def _of_task(task: wire.Task) -> _Named:
    yield task.protocol_name, task.protocol_param
    yield task.task_id, b""
    yield task.parent_task, b""
    for participant in task.participants:
        yield participant.role, b""
        yield participant.user_id, b""
    for decision in task.decisions:
        yield decision.reason, b""


def _of_decision(request: wire.ConfirmTaskRequest) -> _Named:
    yield request.decision.reason, b""


def _of_subscription(request: wire.SubscribeRequest) -> _Named:
    yield request.key_name, b""


def _of_operator(request: wire.StartProtocolOperatorRequest) -> _Named:
    yield request.protocol_name, b""
    yield request.source, b""


_CHECKS: dict[type, Callable[[Any], _Named]] = {
    wire.StorageEntry: _of_entry,
    wire.StorageEntries: _of_entries,
    wire.Task: _of_task,
    wire.ConfirmTaskRequest: _of_decision,
    wire.SubscribeRequest: _of_subscription,
    wire.StartProtocolOperatorRequest: _of_operator,
}
