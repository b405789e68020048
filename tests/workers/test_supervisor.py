"""Processes are started, restarted, replaced and drained; and it is told how they are."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from engine.kits.backoff import Backoff
from engine.model.errors import DeadlineExceededError, EngineError
from engine.model.status import State
from engine.workers.supervisor import ProcessSpec, Supervisor

SERVES = """
import signal, sys, threading
from engine.kits.parentage import Parent
parent = Parent.adopt()
line = parent.read()
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
parent.watch(lambda line: parent.tell({"state": "ready", "n": line["n"]}))
parent.tell({"state": "ready", "n": line["n"]})
while not stop.wait(60):
    pass
print("drained", flush=True)
"""
DIES = "raise SystemExit('out of luck')"
NEVER_READY = "import time; time.sleep(60)"


class Changes:
    """Awaits a status among those that a supervisor reports."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.supervisor = Supervisor(
            lambda _: self.news.set(), Backoff(first=0.01, limit=0.05, jitter=0)
        )

    async def until(self, name: str, state: State, pid_not: int = -1) -> int:
        async with asyncio.timeout(20):
            while True:
                status = self.supervisor.status(name)
                if status is not None and status.state is state and status.pid != pid_not:
                    return status.pid
                self.news.clear()
                await self.news.wait()


@pytest.fixture
async def changes() -> AsyncIterator[Changes]:
    changes = Changes()
    yield changes
    await changes.supervisor.close(timeout=5)


def spec(tmp_path: Path, script: str, digest: str = "1", n: int = 1) -> ProcessSpec:
    command = (sys.executable, "-c", script)
    return ProcessSpec("worker", command, tmp_path / "log", digest, {"n": n})


async def test_a_process_is_ready_when_it_says_so(changes: Changes, tmp_path: Path) -> None:
    status = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    assert (status.state, status.told["n"], status.restarts) == (State.READY, 1, 0)
    assert psutil.pid_exists(status.pid)


async def test_a_killed_process_is_started_again(changes: Changes, tmp_path: Path) -> None:
    first = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    os.kill(first.pid, signal.SIGKILL)
    second = await changes.until("worker", State.READY, pid_not=first.pid)
    assert second != first.pid
    status = changes.supervisor.status("worker")
    assert status is not None
    assert status.restarts == 1
    assert status.message == ""


async def test_a_crash_loop_is_told_with_the_last_words(changes: Changes, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="crash loop: exited with code 1: out of luck"):
        await changes.supervisor.ensure(spec(tmp_path, DIES))
    status = changes.supervisor.status("worker")
    assert status is not None
    assert status.state is State.FAILED
    assert "next start in" in status.message


async def test_what_an_earlier_process_said_or_a_mere_note_is_no_last_word(
    changes: Changes, tmp_path: Path
) -> None:
    (tmp_path / "log").write_text("ZeroDivisionError: long ago\n")
    note = "import os; print('2026-01-01 00:00:00,000 INFO main: ready', flush=True); os._exit(3)"
    with pytest.raises(EngineError, match="crash loop: exited with code 3; next start"):
        await changes.supervisor.ensure(spec(tmp_path, note))


async def test_the_same_process_only_gets_the_new_line(changes: Changes, tmp_path: Path) -> None:
    first = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    await changes.supervisor.ensure(spec(tmp_path, SERVES, n=2))
    second = await changes.supervisor.wait_until("worker", lambda s: s.told["n"] == 2, timeout=10)
    assert second.pid == first.pid


async def test_another_digest_replaces_the_process_and_drains_it(
    changes: Changes, tmp_path: Path
) -> None:
    first = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    second = await changes.supervisor.ensure(spec(tmp_path, SERVES, digest="2"))
    assert second.pid != first.pid
    assert not psutil.pid_exists(first.pid)
    assert (tmp_path / "log").read_text() == "drained\n"


async def test_a_replacement_that_fails_leaves_the_old_one_serving(
    changes: Changes, tmp_path: Path
) -> None:
    first = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    with pytest.raises(EngineError, match="out of luck"):
        await changes.supervisor.ensure(spec(tmp_path, DIES, digest="2"))
    status = changes.supervisor.status("worker")
    assert status is not None
    assert (status.pid, status.state) == (first.pid, State.READY)


async def test_waiting_for_readiness_has_an_end(changes: Changes, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceededError, match=r"worker is not ready after 0 s.*log"):
        await changes.supervisor.ensure(spec(tmp_path, NEVER_READY), timeout=0.2)


async def test_removing_drains_and_forgets(changes: Changes, tmp_path: Path) -> None:
    status = await changes.supervisor.ensure(spec(tmp_path, SERVES))
    await changes.supervisor.remove("worker")
    assert changes.supervisor.statuses() == {}
    assert not psutil.pid_exists(status.pid)
    assert (tmp_path / "log").read_text() == "drained\n"


async def test_a_program_that_is_not_there_is_a_crash_loop(
    changes: Changes, tmp_path: Path
) -> None:
    nowhere = ProcessSpec("worker", ("/no/such/program",), tmp_path / "log")
    with pytest.raises(EngineError, match="cannot be started"):
        await changes.supervisor.ensure(nowhere)
