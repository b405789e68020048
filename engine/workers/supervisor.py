"""Keeps child processes alive: starts them, restarts them when they die, replaces and drains them.

The supervisor decides nothing about *what* shall run; the controller tells it with `ensure` and
`remove`. It only sees to it that what shall run does, and tells how each process is.
"""

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.kits.clock import Clock, SystemClock
from engine.kits.parentage import ChildProcess, Line
from engine.model.errors import DeadlineExceededError, EngineError
from engine.model.status import State

CRASH_LOOP = 3
"""So many ends in a row, each soon after the start, make a crash loop."""
HEALTHY_AFTER = 10.0
"""Seconds of running after which earlier crashes are forgotten."""
DRAIN_TIMEOUT = 30.0
"""Seconds that a process may take to finish what it does before it is killed."""

_LAST_BYTES = 4096
_NOTE = re.compile(r"\S+ \S+ (?:DEBUG|INFO) ")
"""A line that our processes log when nothing is wrong; see the format in their `main`."""


@dataclass(frozen=True)
class ProcessSpec:
    """A process that shall run. `line` is what it is told at its start; it may hold secrets.

    Two specs with the same `digest` are the same; a spec whose `line` alone differs is passed on to
    the running process, one whose `digest` differs replaces it.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    digest: str = ""
    line: Mapping[str, Any] = field(default_factory=dict, repr=False)
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    folder: Path | None = None


@dataclass(frozen=True)
class ProcessStatus:
    """How a process is. `pid` is 0 while none runs; `told` is the newest line that it sent."""

    name: str
    digest: str
    pid: int = 0
    state: State = State.PENDING
    restarts: int = 0
    message: str = ""
    told: Mapping[str, Any] = field(default_factory=dict, repr=False)


class _Keeper:
    """One process and its restarts."""

    def __init__(
        self,
        spec: ProcessSpec,
        changed: Callable[[str], None],
        audited: Callable[[Line], None],
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self.spec = spec
        self._audited = audited
        self.status = ProcessStatus(spec.name, spec.digest)
        self.news = asyncio.Condition()
        self._changed = changed
        self._backoff = backoff
        self._clock = clock
        self._child: ChildProcess | None = None
        self._crashes = 0
        self._draining = False
        self._task = asyncio.create_task(self._keep(), name=f"keep {spec.name}")

    async def _set(self, **changes: Any) -> None:
        self.status = replace(self.status, **changes)
        async with self.news:
            self.news.notify_all()
        self._changed(self.spec.name)

    async def _keep(self) -> None:
        while not self._draining:
            started = self._clock.monotonic()
            cause = await self._run_once()
            if self._is_draining():
                return
            healthy = self._clock.monotonic() - started >= HEALTHY_AFTER
            self._crashes = 1 if healthy else self._crashes + 1
            delay = self._backoff.delay(self._crashes)
            looping = self._crashes >= CRASH_LOOP
            await self._set(
                pid=0,
                state=State.FAILED if looping else State.DEGRADED,
                restarts=self.status.restarts + 1,
                message=f"{'crash loop: ' if looping else ''}{cause}; next start in {delay:.1f} s",
            )
            await asyncio.sleep(delay)

    def _is_draining(self) -> bool:
        """Tell whether `drain` was called; it may have been while something was awaited."""
        return self._draining

    async def _run_once(self) -> str:
        """Start the process, follow it to its end, and return why it ended."""
        begin = _size(self.spec.log)
        try:
            self._child = child = await ChildProcess.start(
                self.spec.command,
                log=self.spec.log,
                environment=self.spec.environment,
                folder=self.spec.folder,
            )
        except OSError as error:
            return f"cannot be started: {error}"
        try:
            await child.tell(self.spec.line)
            await self._set(pid=child.pid)
            last = ""
            while (line := await child.next_line()) is not None:
                last = await self._heard(line) or last
            code = await child.wait()
            return f"{_ended(code)}: {last or _last_words(self.spec.log, begin)}".rstrip(": ")
        finally:
            child.kill()

    async def _heard(self, line: Line) -> str:
        """Take in what the process tells; return its error message, if it is one."""
        state = line.get("state")
        if isinstance(line.get("audit"), dict):
            self._audited(line["audit"])
        if state == "ready":
            await self._set(state=State.READY, message="", told=line)
        elif state == "error":
            message = str(line.get("message", ""))
            await self._set(state=State.DEGRADED, message=message)
            return message
        return ""

    async def tell(self, spec: ProcessSpec) -> None:
        """Pass a new line on to the process, and use it for its next start too."""
        if spec.line != self.spec.line:
            self.spec = spec
            if self._child is not None:
                await self._child.tell(spec.line)

    async def drain(self, timeout: float) -> None:
        """Let the process finish, and end it after `timeout` seconds at the latest."""
        self._draining = True
        await self._set(state=State.TERMINATING)
        if self._child is not None and self.status.pid:
            self._child.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._task), timeout)
            self._child.kill()
        await cancel_and_wait([self._task])


class Supervisor:
    """All child processes of the engine, by name.

    `changed` is called with a process's name whenever its status changes.
    """

    def __init__(
        self,
        changed: Callable[[str], None] = lambda name: None,
        backoff: Backoff | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._keepers: dict[str, _Keeper] = {}
        self._changed = changed
        self._audited: Callable[[Line], None] = lambda line: None
        self._backoff = backoff or Backoff()
        self._clock = clock or SystemClock()

    def on_change(self, changed: Callable[[str], None]) -> None:
        """Call `changed` from now on, in place of what was given at construction."""
        self._changed = changed

    def on_audit(self, audited: Callable[[Line], None]) -> None:
        """Call `audited` with what a process tells of a refused attempt (see `Audit`)."""
        self._audited = audited

    def statuses(self) -> dict[str, ProcessStatus]:
        """Return how every process is."""
        return {name: keeper.status for name, keeper in self._keepers.items()}

    def status(self, name: str) -> ProcessStatus | None:
        """Return how the process `name` is, or None if there shall be none."""
        keeper = self._keepers.get(name)
        return keeper.status if keeper else None

    def spec(self, name: str) -> ProcessSpec | None:
        """Return what the process `name` was told to be."""
        keeper = self._keepers.get(name)
        return keeper.spec if keeper else None

    async def ensure(self, spec: ProcessSpec, timeout: float = 30.0) -> ProcessStatus:
        """Make the process of `spec` run and return its status once it is ready.

        A running one with another digest is replaced: the new one is started first, and the old one
        drained only when the new one is ready. Raises EngineError with the process's own last words
        when it ends instead of getting ready, DeadlineExceededError after `timeout` seconds; the
        supervisor goes on trying in both cases, unless an old one still serves.
        """
        spec.log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        old = self._keepers.get(spec.name)
        if old is not None and old.spec.digest == spec.digest:
            await old.tell(spec)
            return await _wait(old, _is_ready, timeout)
        new = _Keeper(
            spec,
            lambda name: self._changed(name),
            lambda line: self._audited(line),
            self._backoff,
            self._clock,
        )
        if old is None:
            self._keepers[spec.name] = new
            return await _wait(new, _is_ready, timeout)
        try:
            status = await _wait(new, _is_ready, timeout)
        except EngineError:
            if old.status.state is State.READY:
                await new.drain(0)
                raise
            self._keepers[spec.name] = new
            await old.drain(0)
            raise
        self._keepers[spec.name] = new
        await old.drain(DRAIN_TIMEOUT)
        return status

    async def wait_until(
        self,
        name: str,
        holds: Callable[[ProcessStatus], bool],
        timeout: float,
    ) -> ProcessStatus:
        """Wait until `holds` is true of the process's status, and return that status.

        Raises EngineError when the process is in a crash loop or is no more, and
        DeadlineExceededError after `timeout` seconds.
        """
        keeper = self._keepers.get(name)
        if keeper is None:
            raise EngineError(f"{name} is not running.")
        return await _wait(keeper, holds, timeout)

    async def remove(self, name: str, timeout: float = DRAIN_TIMEOUT) -> None:
        """Drain the process `name` and forget it; nothing happens if there is none."""
        keeper = self._keepers.get(name)
        if keeper is None:
            return
        await keeper.drain(timeout)
        if self._keepers.get(name) is keeper:
            del self._keepers[name]
        self._changed(name)

    async def close(self, timeout: float = DRAIN_TIMEOUT) -> None:
        """Drain every process."""
        await asyncio.gather(*(self.remove(name, timeout) for name in list(self._keepers)))


def _is_ready(status: ProcessStatus) -> bool:
    return status.state is State.READY


async def _wait(
    keeper: _Keeper, holds: Callable[[ProcessStatus], bool], timeout: float
) -> ProcessStatus:
    """Wait for a status; give up early when the process is in a crash loop."""

    def decided() -> bool:
        return holds(keeper.status) or keeper.status.state is State.FAILED

    try:
        async with asyncio.timeout(timeout), keeper.news:
            await keeper.news.wait_for(decided)
    except TimeoutError as error:
        why = f": {keeper.status.message}" if keeper.status.message else "."
        raise DeadlineExceededError(
            f"{keeper.spec.name} is not ready after {timeout:.0f} s{why}",
            f"Its log is {keeper.spec.log}.",
        ) from error
    if not holds(keeper.status):
        raise EngineError(f"{keeper.spec.name}: {keeper.status.message}")
    return keeper.status


def _ended(code: int) -> str:
    return f"ended by signal {-code}" if code < 0 else f"exited with code {code}"


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _last_words(log: Path, begin: int) -> str:
    """Return the last line that the log has from `begin` on: in Python, the exception.

    Blank lines, and what a process only noted while all was well, do not count.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(begin, file.seek(0, 2) - _LAST_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    told = (line.strip() for line in reversed(lines))
    return next((line for line in told if line and not _NOTE.match(line)), "")
