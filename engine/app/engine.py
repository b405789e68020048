"""Starting the background engine from the command line, or running it in the foreground."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.daemon.client import ControlClient
from engine.daemon.lock import wait_released
from engine.model.composition import Composition
from engine.model.errors import EngineNotRunningError, LockHeldError, TransientError
from engine.model.home import Home

START_TIMEOUT = 20.0
"""Seconds that a background engine may take until it answers."""

DRAIN_TIMEOUT = 45.0
"""Seconds that an engine which is ending may take to let its workers finish."""
_LOOK = 0.1


def ensure(home: Path) -> ControlClient:
    """Return a client of the engine in `home`; start one in the background if none answers.

    An engine that is ending is waited for. Raises LockHeldError when one holds the lock and keeps
    silent, TransientError, with the engine's own last words, when it does not come up.
    """
    client = ControlClient(home)
    if _answers(client):
        return client
    layout = Home(home)
    if not _free_or_answering(client, layout):
        raise LockHeldError(
            f"The engine in {home} holds its lock and does not answer.",
            hint=f"It may be ending what still runs: try again. Its log is {layout.engine_log}.",
        )
    if _answers(client):
        return client
    layout.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    with layout.engine_log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "engine.app.background", str(home)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=home,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if _answers(client):
            return client
        # An engine that another terminal started at the same moment may hold the lock: its answer
        # counts too, so the end of ours is a failure only when nobody answers.
        if process.poll() is not None and not _somebody_starts(layout):
            break
        time.sleep(0.02)
    raise TransientError(
        f"The engine in {home} did not start: {_last_line(layout.engine_log)}",
        f"Its log is {layout.engine_log}.",
    )


def _free_or_answering(client: ControlClient, layout: Home) -> bool:
    """Wait for an engine that is starting to answer, or for one that is draining to end."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while not wait_released(layout.lock, _LOOK):
        if _answers(client):
            return True
        if time.monotonic() >= deadline:
            return False
    return True


def run_foreground(
    home: Path, manifests: Sequence[Composition], environment: Mapping[str, str]
) -> int:
    """Run the engine in this process, apply `manifests`, and stay until a signal; the exit code.

    Raises LockHeldError when an engine runs in `home` already.
    """
    from engine.app.background import serve  # heavy: gRPC and all; only this command needs it here

    return asyncio.run(serve(home, manifests, environment))


def _answers(client: ControlClient) -> bool:
    try:
        client.get("/v1/status")
    except EngineNotRunningError:
        return False
    return True


def _somebody_starts(layout: Home) -> bool:
    """Tell whether a live process is named in the lock file."""
    try:
        pid = int(layout.lock.read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return False
    return True


def _last_line(file: Path) -> str:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""
