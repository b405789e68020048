"""Operators that are programs of their own: started, watched, started again, ended (§7.4).

Each is the leader of a process group. Beside it a shell of two words waits for the end of a pipe
that only this core holds: so the whole group ends with the core, also when that is killed.
"""

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from engine.core.packages import Package
from engine.core.refusals import conflict
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.kits.files import private_folder

log = logging.getLogger(__name__)
_RAN_WELL = 60.0
"""Seconds after which an end is not counted together with those before."""
_GRACE = 3.0
_LAUNCHER = 'exec 3<&0 </dev/null; (read -r -u 3 _; kill -9 0) & exec 3<&-; exec bash -c "$1"'


class OperatorProcesses:
    """The processes of all instances, by instance id. Their output goes to files in `logs`."""

    def __init__(self, logs: Path, on_started: Callable[[str, int], None]) -> None:
        """`on_started` is told instance and process id at each start, the first one too."""
        self._logs = logs
        self._on_started = on_started
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def start(
        self, instance_id: str, package: Package, environment: Mapping[str, str]
    ) -> None:
        """Start an instance and keep it running; refused (INTERNAL) when it cannot be started."""
        try:
            process = await self._spawn(instance_id, package, environment)
        except OSError as error:
            raise conflict(f"The operator cannot be started: {error}.") from error
        self._watchers[instance_id] = asyncio.create_task(
            self._watch(instance_id, process, package, environment)
        )

    async def stop(self, instance_id: str) -> None:
        """End an instance and everything it has started; unknown ones are no error."""
        watcher = self._watchers.pop(instance_id, None)
        if watcher is not None:
            await cancel_and_wait([watcher])

    async def stop_all(self) -> None:
        """End all instances."""
        watchers, self._watchers = list(self._watchers.values()), {}
        await cancel_and_wait(watchers)

    async def _watch(
        self,
        instance_id: str,
        process: asyncio.subprocess.Process,
        package: Package,
        environment: Mapping[str, str],
    ) -> None:
        backoff, failures = Backoff(), 0
        while True:
            began = time.monotonic()
            try:
                code = await process.wait()
            finally:
                await _end(process)
            log.warning("operator %s ended with %d and is started again", instance_id, code)
            failures = 0 if time.monotonic() - began > _RAN_WELL else failures
            while True:
                failures += 1
                await asyncio.sleep(backoff.delay(failures))
                try:
                    process = await self._spawn(instance_id, package, environment)
                    break
                except OSError as error:
                    log.error("operator %s cannot be started again: %s", instance_id, error)

    async def _spawn(
        self, instance_id: str, package: Package, environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        path = private_folder(self._logs) / f"{package.folder.name}-{instance_id}.log"
        output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *("bash", "-c", _LAUNCHER, "operator", package.entrypoint),
                cwd=package.folder,
                env=dict(environment),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        finally:
            os.close(output)
        self._on_started(instance_id, process.pid)
        return process


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process group: in order, and after a while by force; reap its leader."""
    if process.returncode is None:
        _signal(process.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _GRACE)
    _signal(process.pid, signal.SIGKILL)
    await process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _signal(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
