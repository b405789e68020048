"""A child process is told what to do, tells how it is, and ends when its parent does."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import psutil

from engine.kits.parentage import ChildProcess

ECHO = """
import sys
from engine.kits.parentage import Parent
parent = Parent.adopt()
first = parent.read()
print("stdin is", sys.stdin.read(), flush=True)
parent.watch(lambda line: parent.tell({"again": line}))
parent.tell({"first": first})
import threading
threading.Event().wait()
"""

PARENT = f"""
import asyncio, sys
from pathlib import Path
from engine.kits.parentage import ChildProcess

async def main():
    child = await ChildProcess.start(
        [sys.executable, "-c", {ECHO!r}], log=Path(sys.argv[1])
    )
    await child.tell({{"n": 1}})
    await child.next_line()
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def start(tmp_path: Path) -> ChildProcess:
    return await ChildProcess.start([sys.executable, "-c", ECHO], log=tmp_path / "log")


async def test_lines_go_both_ways_and_the_child_s_own_stdin_is_empty(tmp_path: Path) -> None:
    child = await start(tmp_path)
    await child.tell({"n": 1})
    assert await child.next_line() == {"first": {"n": 1}}
    await child.tell({"n": 2})
    assert await child.next_line() == {"again": {"n": 2}}
    assert (tmp_path / "log").read_text() == "stdin is \n"
    child.kill()
    assert await child.wait() == -signal.SIGKILL


async def test_the_exit_code_is_told_and_telling_the_dead_is_no_error(tmp_path: Path) -> None:
    child = await ChildProcess.start(
        [sys.executable, "-c", "raise SystemExit(7)"], log=tmp_path / "log"
    )
    assert await child.next_line() is None
    assert await child.wait() == 7
    await child.tell({"n": 1})


async def test_the_log_is_for_the_owner_only(tmp_path: Path) -> None:
    child = await ChildProcess.start([sys.executable, "-c", ""], log=tmp_path / "log")
    await child.wait()
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600


async def test_a_child_dies_with_its_parent_however_that_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    assert await asyncio.to_thread(child.wait, 10) in {None, -signal.SIGKILL}
