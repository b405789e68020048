"""All manifests of an engine: apply them, take them down, tell how they are.

Each applied manifest has a loop of its own (`ManifestLoop`), so that one that is stuck never stops
the others. This module starts and ends these loops, and hands their progress to the command line.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from engine.controller.applied import AppliedRecord, AppliedStore
from engine.controller.cores import Cores
from engine.controller.events import EventLog
from engine.controller.history import History
from engine.controller.manifest_files import renamed
from engine.controller.manifest_loop import ManifestLoop, World
from engine.controller.plugins import Plugins
from engine.controller.sessions import Sessions
from engine.controller.watch import FileWatch
from engine.controller.workloads import Workloads
from engine.flows.catalog import DescribedCatalog
from engine.kits.aio import map_limited
from engine.kits.clock import Clock
from engine.loading import Loaded, check_together, load_all
from engine.model.composition import Composition
from engine.model.errors import Fault, InvalidManifestError, NotFoundError, UsageError
from engine.model.home import Home
from engine.model.manifest import Manifest
from engine.model.status import EngineStatus
from engine.reconcile.steps import Plan
from engine.workers.supervisor import Supervisor

Line = dict[str, Any]

_CONVERGED, _FAILED, _FAILED_IN_PART, _TIMED_OUT = 0, 1, 4, 5
_TOLD = 20
"""So many failures of a manifest are part of a result; there may be as many as there are flows."""


class Controller:
    """The engine's manifests and their loops. Use as an async context manager."""

    def __init__(
        self,
        home: Home,
        clock: Clock,
        events: EventLog,
        supervisor: Supervisor,
        cores: Cores,
        sessions: Sessions,
        plugins: Plugins,
    ) -> None:
        self.events = events
        self.sessions = sessions
        self._cores = cores
        self._supervisor = supervisor
        self._plugins = plugins
        self._applied = AppliedStore(home.applied)
        self._world = World(
            clock=clock,
            events=events,
            cores=cores,
            sessions=sessions,
            workloads=Workloads(home, supervisor),
            plugins=plugins,
            applied=self._applied,
            history=History(home.history),
            manifests_of=self._manifests_of,
            manifests_but=self._manifests_but,
            environment=MappingProxyType(os.environ),
            read_anew=self._set_watch,
            claims_changed=self._wake_invalid,
        )
        self._loops: dict[str, ManifestLoop] = {}
        self._watch: FileWatch | None = None

    async def __aenter__(self) -> "Controller":
        """Take up every manifest that was applied before."""
        self._watch = FileWatch(self._wake_all)
        self._supervisor.on_change(self._process_changed)
        self._supervisor.on_audit(self._refused)
        for record in self._applied.all():
            self._add_loop(record, {})
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Stop the loops; what they made stays as it is."""
        if self._watch is not None:
            self._watch.close()
        await asyncio.gather(*(loop.close() for loop in self._loops.values()))

    def status(self) -> EngineStatus:
        """Return how everything is, processes as of this moment."""
        return EngineStatus(
            self._cores.status(), tuple(loop.status() for _, loop in sorted(self._loops.items()))
        )

    def now(self) -> float:
        """Return the time, in Unix seconds."""
        return self._world.clock.now()

    async def catalog(self) -> DescribedCatalog:
        """Return the description of the installed flow classes."""
        return await self._plugins.catalog()

    def manifests(self) -> dict[str, Manifest]:
        """Return the last good generation of every applied manifest, by name."""
        return {name: loop.manifest for name, loop in self._loops.items() if loop.manifest}

    async def plan(self, composition: Composition, environment: Mapping[str, str]) -> Plan:
        """Return what an apply of `composition` would do now; nothing is written or started.

        Raises InvalidManifestError with all faults.
        """
        (loaded,) = await self._load([composition], environment)
        loop = self._loops.get(loaded.manifest.name)
        users = loop.users if loop else frozenset[str]()
        draft = ManifestLoop.draft(self._world, loaded, users)
        return await draft.plan()

    async def apply(
        self,
        compositions: Sequence[Composition],
        environment: Mapping[str, str],
        *,
        wait: bool,
        timeout: float,
    ) -> AsyncIterator[Line]:
        """Take over manifests as they are now, and yield progress until all of them are converged.

        The last line is `{"type": "result", "exit_code", "message", "manifests"}`: 0 converged, 4
        some steps failed (they are tried again in the background), 5 `timeout` seconds passed.
        Raises InvalidManifestError, before anything is changed, when one of the files has faults.
        """
        found = await self._load(compositions, environment, fresh=True)
        loops = [
            self._take_over(loaded.manifest, composition, environment)
            for loaded, composition in zip(found, compositions, strict=True)
        ]
        names = [loop.name for loop in loops]
        if not wait:
            yield _result(_CONVERGED, f"{', '.join(names)}: taken over, not waited for.", names)
            return
        async for line in _follow(loops, timeout, "applied"):
            yield line

    async def down(
        self, names: Sequence[str], *, everything: bool, purge: bool, timeout: float
    ) -> AsyncIterator[Line]:
        """Remove what the manifests own, and yield progress as `apply` does.

        Without names and `everything`, the one applied manifest is meant. Raises NotFoundError for
        a name that is not applied, UsageError when several are and none is named.
        """
        if not names and not everything and len(self._loops) > 1:
            raise UsageError(
                f"Several manifests are applied: {', '.join(sorted(self._loops))}.",
                "Name those to take down, or use --all.",
            )
        chosen = list(names) or sorted(self._loops)
        if not chosen:
            yield _result(_CONVERGED, "Nothing was applied.", ())
            return
        for name in chosen:
            if name not in self._loops:
                known = ", ".join(sorted(self._loops)) or "none is"
                raise NotFoundError(f"No manifest {name} is applied.", f"Applied: {known}.")
        loops = [self._loops[name] for name in chosen]
        for loop in loops:
            loop.remove(purge=purge)
        async for line in _follow(loops, timeout, "taken down"):
            if line["type"] == "result":
                for loop in loops:
                    if loop.removed:
                        await self._drop_loop(loop.name)
                kept = [loop.name for loop in loops if not loop.removed]
                if kept and line["exit_code"] == _CONVERGED:
                    message = "not taken down: applied anew meanwhile."
                    yield _result(_FAILED, f"{', '.join(kept)}: {message}", line["manifests"])
                    return
            yield line

    async def _load(
        self,
        compositions: Sequence[Composition],
        environment: Mapping[str, str],
        *,
        fresh: bool = False,
    ) -> list[Loaded]:
        """Load manifests and check them together with what is applied already."""
        catalog = await self._plugins.catalog(fresh=fresh)
        loaded = await asyncio.to_thread(
            load_all, compositions, catalog, environment, inherited=self._world.environment
        )
        manifests = [found.manifest for found in loaded]
        faults = [fault for manifest in manifests if (fault := self._renamed(manifest))]
        if faults:
            raise InvalidManifestError(faults)
        names = {manifest.name for manifest in manifests}
        check_together([*self._manifests_but(names), *manifests])
        return loaded

    def _renamed(self, manifest: Manifest) -> Fault | None:
        """Return the fault of a file that is applied under another name than it has now."""
        for loop in self._loops.values():
            if loop.file == manifest.file and loop.name != manifest.name:
                return renamed(manifest, loop.name)
        return None

    def _manifests_but(self, names: Collection[str]) -> list[Manifest]:
        """Return what every applied manifest claims, but for those in `names`."""
        return [
            loop.claims
            for name, loop in self._loops.items()
            if name not in names and loop.claims is not None
        ]

    def _wake_invalid(self) -> None:
        """Let manifests with faults look again: what they claim may be free by now."""
        for loop in self._loops.values():
            if loop.invalid:
                loop.wake()

    def _take_over(
        self, manifest: Manifest, composition: Composition, environment: Mapping[str, str]
    ) -> ManifestLoop:
        """Make the loop of `manifest` follow its files, with `environment`, from now on."""
        loop = self._loops.get(manifest.name) or self._add_loop(
            # Generations are counted on from those of an earlier life.
            AppliedRecord(
                manifest.name, manifest.file, self._world.history.newest(manifest.name), ""
            ),
            environment,
        )
        loop.take_over(manifest, composition, environment)
        self._set_watch()
        return loop

    def _add_loop(self, record: AppliedRecord, environment: Mapping[str, str]) -> ManifestLoop:
        loop = ManifestLoop(self._world, record, environment)
        self._loops[record.name] = loop
        self._set_watch()
        loop.start()
        return loop

    async def _drop_loop(self, name: str) -> None:
        loop = self._loops.pop(name)
        await loop.close()
        self._applied.drop(name)
        self._set_watch()
        self._wake_invalid()

    def _set_watch(self) -> None:
        if self._watch is not None:
            loops = self._loops.values()
            self._watch.set_files(
                {Path(file) for loop in loops for file in loop.files},
                {Path(folder) for loop in loops for folder in loop.folders},
            )

    def _wake_all(self) -> None:
        for loop in self._loops.values():
            loop.wake()

    def _process_changed(self, name: str) -> None:
        """A process ended or got ready: the loops that it concerns look again."""
        owner = name.partition("/")[0]
        for loop in self._loops.values():
            if owner == loop.name or "/" not in name:
                loop.processes_changed()

    def _refused(self, line: Line) -> None:
        """A process refused what somebody wanted of a user of ours."""
        user, sender = (
            self.sessions.name_of(user_id) or user_id
            for user_id in (str(line.get("user_id")), str(line.get("sender")))
        )
        self.events.add(
            "Refused",
            f"{sender}: {line.get('type')}: {line.get('message')}",
            manifest=next(iter(self._manifests_of(user)), ""),
            resource=f"{user}/{line.get('resource')}",
        )

    def _manifests_of(self, user: str) -> tuple[str, ...]:
        return tuple(
            sorted(name for name, manifest in self.manifests().items() if user in manifest.users)
        )


async def _follow(loops: Sequence[ManifestLoop], timeout: float, done: str) -> AsyncIterator[Line]:
    """Yield the loops' progress until each has settled, then the result."""
    queue: asyncio.Queue[Line | None] = asyncio.Queue()

    async def settle(loop: ManifestLoop) -> int:
        try:
            async with asyncio.timeout(timeout):
                return _CONVERGED if await loop.settled() else _FAILED_IN_PART
        except TimeoutError:
            return _TIMED_OUT

    async def settle_all() -> list[int]:
        try:
            return await map_limited(settle, loops, max(1, len(loops)))
        finally:
            queue.put_nowait(None)

    for loop in loops:
        loop.followers.add(queue)
    waiting = asyncio.create_task(settle_all())
    try:
        while (line := await queue.get()) is not None:
            yield line
        codes = await waiting
        yield _result(max(codes), _summary(loops, codes, done), [loop.name for loop in loops])
    finally:
        waiting.cancel()
        for loop in loops:
            loop.followers.discard(queue)


def _summary(loops: Sequence[ManifestLoop], codes: Sequence[int], done: str) -> str:
    lines = []
    for loop, code in zip(loops, codes, strict=True):
        if code == _CONVERGED:
            lines.append(f"{loop.name}: {done}")
        elif code == _FAILED_IN_PART:
            failures = loop.failures()
            lines += [f"{loop.name}: {failure}" for failure in failures[:_TOLD]]
            if len(failures) > _TOLD:
                lines.append(f"{loop.name}: and {len(failures) - _TOLD} more. See engine events.")
        else:
            lines.append(f"{loop.name}: not {done} in time; the engine goes on. See engine status.")
    return "\n".join(lines)


def _result(code: int, message: str, names: Sequence[str]) -> Line:
    return {"type": "result", "exit_code": code, "message": message, "manifests": list(names)}
