"""The command line as a user runs it, in an ENGINE_HOME of its own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

TIMEOUT = 60


class EngineCommand:
    """Runs `engine ...` against one ENGINE_HOME and remembers nothing."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment: dict[str, str] = {}

    def __call__(
        self, *arguments: str | Path, expect: int | None = 0, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run a command; fail the test when its exit code is not `expect` (None: any)."""
        done = subprocess.run(
            self.command(*arguments),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TIMEOUT * 2,
            env=self.variables(),
            check=False,
        )
        assert expect is None or done.returncode == expect, self._report(done)
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *arguments: str | Path) -> Any:
        """Run a command with `-o json` and return what it prints."""
        return json.loads(self(*arguments, "-o", "json").stdout)

    def command(self, *arguments: str | Path) -> list[str]:
        """Return the command line of `engine` in this Python."""
        return [sys.executable, "-m", "engine.cli.main", *map(str, arguments)]

    def variables(self) -> dict[str, str]:
        """Return the environment that commands run with."""
        return os.environ | {"ENGINE_HOME": str(self.home), "NO_COLOR": "1"} | self.environment

    def status(self) -> Any:
        """Return `engine status -o json`."""
        return self.json("status")

    def manifest(self, name: str) -> Any:
        """Return the status of one manifest."""
        return next(m for m in self.status()["manifests"] if m["name"] == name)

    def until(self, holds: Callable[[Any], bool], timeout: float = 60) -> Any:
        """Read the status until `holds`, and return it; fail after `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            status = self.status()
            if holds(status):
                return status
            assert time.monotonic() < end, json.dumps(status, indent=1)
            # The status is what a user polls; there is no event of it to wait for.
            time.sleep(0.1)

    def processes(self) -> list[psutil.Process]:
        """Return all live processes that were started for this ENGINE_HOME."""
        return [process for process in psutil.process_iter() if self._ours(process)]

    def pids(self) -> dict[str, int]:
        """Return the pid of each worker, as `user/worker`."""
        return {
            f"{user}/{worker['name']}": worker["pid"]
            for manifest in self.status()["manifests"]
            for user, found in manifest["users"].items()
            for worker in found["workers"]
        }

    def _ours(self, process: psutil.Process) -> bool:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                return False
            return (
                str(self.home) in " ".join(process.cmdline())
                or process.environ().get("ENGINE_HOME") == str(self.home)
                or process.cwd().startswith(str(self.home))
            )
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False

    def _report(self, done: subprocess.CompletedProcess[str]) -> str:
        log = self.home / "logs" / "engine.log"
        tail = log.read_text()[-4000:] if log.exists() else ""
        return (
            f"{done.args}\n{done.returncode}\n{done.stdout}\n{done.stderr}\n--- engine.log\n{tail}"
        )


@contextmanager
def engine_home() -> Iterator[EngineCommand]:
    """Give a command with a fresh home; at the end nothing of it is left, or the test fails."""
    # Not pytest's tmp_path: a Unix socket's path must be short.
    home = Path(tempfile.mkdtemp(prefix="engine-"))
    engine = EngineCommand(home)
    try:
        yield engine
        engine("down", "--all", expect=None)
        _gone = psutil.wait_procs(engine.processes(), timeout=20)[1]
        assert not _gone, f"left behind: {[p.cmdline() for p in _gone]}"
    finally:
        for process in engine.processes():
            process.kill()
        shutil.rmtree(home, ignore_errors=True)
