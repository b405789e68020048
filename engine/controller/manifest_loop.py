"""The loop of one manifest: look at file and world, plan the difference, make it so, again.

It is level-triggered: whatever wakes it (a saved file, a process that ended, a timer), it reads
everything anew and plans from that. A turn that failed in part is tried again after a growing
pause; a turn that was cut short is finished by the next one.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import structlog

from engine.controller.applied import AppliedRecord, AppliedStore
from engine.controller.cores import Cores
from engine.controller.events import EventLog
from engine.controller.execute import Executor
from engine.controller.history import CONVERGED, FAILED, History
from engine.controller.journal import Journal
from engine.controller.manifest_files import ManifestFiles
from engine.controller.observe import observe
from engine.controller.plugins import Plugins
from engine.controller.sessions import Sessions
from engine.controller.workloads import Workloads
from engine.flows.catalog import DescribedCatalog
from engine.kits.aio import cancel_and_wait
from engine.kits.backoff import Backoff
from engine.kits.clock import Clock
from engine.kits.digest import digest
from engine.loading import Loaded
from engine.model.composition import Composition
from engine.model.errors import EngineError, Fault, InvalidManifestError
from engine.model.manifest import Manifest
from engine.model.status import ManifestStatus
from engine.reconcile.conditions import conditions
from engine.reconcile.desired import desired as desired_of
from engine.reconcile.planner import plan as make_plan
from engine.reconcile.planner import plan_removal
from engine.reconcile.state import Desired, Observed
from engine.reconcile.steps import Plan
from engine.reconcile.text import step_text

log = structlog.get_logger(__name__)

RESYNC = 15.0
"""Seconds after which a loop that nothing woke looks for drift."""
_ROUNDS = 4
"""So often a turn plans; what the last of these plans would still do is a failure."""
_JOIN = 0.05
"""Seconds in which several wake-ups count as one."""


@dataclass(frozen=True)
class World:
    """What the loops of an engine share."""

    clock: Clock
    events: EventLog
    cores: Cores
    sessions: Sessions
    workloads: Workloads
    plugins: Plugins
    applied: AppliedStore
    history: History
    manifests_of: Callable[[str], tuple[str, ...]]
    """The names of the applied manifests that name a user."""
    manifests_but: Callable[[Collection[str]], Sequence[Manifest]]
    """The applied manifests but those of these names."""
    claims_changed: Callable[[], None]
    """Called when a manifest may have given up what another one wants."""
    environment: Mapping[str, str]
    """What this process inherited; it goes behind env files and what an apply brings."""
    read_anew: Callable[[], None]
    """Called when a loop has read its files, which may be others than before."""


class ManifestLoop:
    """Keeps what one manifest declares as it declares it."""

    def __init__(self, world: World, record: AppliedRecord, environment: Mapping[str, str]) -> None:
        self.name = record.name
        self.manifest: Manifest | None = None
        """The generation that is kept up, None until it is loaded."""
        self.claims: Manifest | None = None
        """The newest valid generation, perhaps not taken up yet: it counts against the others'."""
        self.users = frozenset(record.users)
        self.followers: set[asyncio.Queue[dict[str, Any] | None]] = set()
        self.removed = False
        self._world = world
        self._files = ManifestFiles(record, environment, world.environment)
        self._referenced: Mapping[str, str] = {}
        self._generation = record.generation
        self._made = 0
        self._journal = Journal(world.history)
        self._removing = record.removing
        self._faults: tuple[Fault, ...] = ()
        self._failures: dict[str, str] = {}
        self._observed: Observed | None = None
        self._desired: Desired | None = None
        self._status: ManifestStatus | None = None
        self._wake = asyncio.Event()
        self._asked = 0
        self._answered = asyncio.Condition()
        self._answer = -1
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def draft(cls, world: World, loaded: Loaded, users: frozenset[str]) -> "ManifestLoop":
        """Return a loop that only plans: it is never started and stores nothing."""
        manifest = loaded.manifest
        loop = cls(world, AppliedRecord(manifest.name, manifest.file, 0, ""), {})
        loop.manifest, loop._referenced = manifest, loaded.environment
        loop.users = users
        return loop

    @property
    def file(self) -> str:
        """Return the path of the manifest's own file."""
        return self._files.composition.file

    @property
    def files(self) -> frozenset[str]:
        """Return the paths of all files on which the manifest depends."""
        return self._files.files

    @property
    def folders(self) -> frozenset[str]:
        """Return the paths of the folders whose fragments it includes."""
        return self._files.folders

    def start(self) -> None:
        """Run the loop from now on."""
        self._journal.resume(self.name, self._generation)
        self._task = asyncio.create_task(self._run(), name=f"manifest {self.name}")

    async def close(self) -> None:
        """Stop the loop; what it made stays."""
        if self._task is not None:
            await cancel_and_wait([self._task])

    @property
    def invalid(self) -> bool:
        """Tell whether the file has faults, so that an earlier generation is kept up."""
        return bool(self._faults)

    def wake(self) -> None:
        """Look again, soon."""
        self._wake.set()

    def processes_changed(self) -> None:
        """Look again after a process of ours started, ended or told something."""
        self._wake.set()

    def take_over(
        self, manifest: Manifest, composition: Composition, environment: Mapping[str, str]
    ) -> None:
        """Want what the files say now, with these environment variables; undoes `remove`."""
        if self.manifest is not None and composition.file != self.file:
            self._event("ManifestMoved", f"read from {composition.file} now; before: {self.file}")
        self.claims = manifest
        self._removing = ""
        self._files.replace(composition, environment)
        self._ask()

    def remove(self, *, purge: bool) -> None:
        """Want nothing any more: take down what the manifest owns, with `purge` for ever."""
        self._removing = "purge" if purge else "release"
        self._remember(self.users)
        self._ask()

    async def settled(self) -> bool:
        """Wait until a turn that saw the newest request has ended; tell if all is as wanted."""
        asked = self._asked
        async with self._answered:
            await self._answered.wait_for(lambda: self._answer >= asked)
        return self.removed or self.status().converged

    def failures(self) -> list[str]:
        """Return what is wrong, a line each: failed steps, or resources that are not ready."""
        if self._failures:
            return [f"{resource}: {message}" for resource, message in self._failures.items()]
        status = self.status()
        converged = next(c for c in status.conditions if c.type == "Converged")
        return [converged.message] if converged.message else []

    async def plan(self) -> Plan:
        """Return what the next turn would do."""
        catalog = await self._world.plugins.catalog()
        wanted = self._want(catalog)
        return self._make_plan(wanted, await self._observe(wanted))

    def status(self) -> ManifestStatus:
        """Return how the manifest's resources are, processes as of this moment."""
        observed = self._observed or Observed(core_ready=False)
        observed = Observed(
            core_ready=observed.core_ready,
            users=observed.users,
            workers=self._world.workloads.observed(),
            flows=observed.flows,
            mounts=observed.mounts,
            unseen=observed.unseen,
        )
        self._status = conditions(
            self._desired or Desired(self.name, file=self.file),
            observed,
            failures=self._failures,
            faults=self._faults,
            generation=self._generation,
            observed_generation=self._made,
            previous=self._status,
            now=self._world.clock.now(),
            removing=bool(self._removing),
        )
        return self._status

    def _ask(self) -> None:
        self._asked += 1
        self._wake.set()

    async def _run(self) -> None:
        backoff, failed = Backoff(first=1.0), 0
        while not self.removed:
            self._wake.clear()
            asked = self._asked
            try:
                await self._turn()
            except EngineError as error:
                self._failures = {self.name: str(error)}
            except Exception as error:
                log.exception("a turn failed", manifest=self.name)
                self._failures = {self.name: f"{type(error).__name__}: {error}"}
            failed = failed + 1 if self._failures else 0
            async with self._answered:
                self._answer = asked
                self._answered.notify_all()
            pause = backoff.delay(failed) if failed else RESYNC
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)
            await asyncio.sleep(_JOIN)

    async def _turn(self) -> None:
        """One turn: read, decide, act, and look once more at what came of it.

        What a plan makes can be what another step was waiting to see (an identity that others
        refer to, storage that could not be read before), so it goes on until nothing is left.
        """
        removing = self._removing
        catalog = await self._world.plugins.catalog()
        if not removing or self.manifest is None:
            await self._reload(catalog)
        wanted = self._want(catalog, removing)
        observed = await self._observe(wanted)
        failures: dict[str, str] = {}
        for rounds_left in reversed(range(_ROUNDS)):
            plan = self._make_plan(wanted, observed, removing)
            if not removing:
                self._journal.note(steps=tuple(step_text(step) for step in plan.steps))
            failures = {problem.resource: problem.message for problem in plan.problems}
            if not plan.steps:
                break
            if not rounds_left:
                failures |= {step.id: f"does not stay done: {step.cause}" for step in plan.steps}
                break
            failures |= await self._execute(plan, wanted, catalog)
            observed = await self._observe(wanted)
            if failures:
                break
        self._failures, self._desired, self._observed = failures, wanted, observed
        if failures:
            told = "; ".join(f"{resource}: {message}" for resource, message in failures.items())
            self._journal.note(result=FAILED, message=told)
            return
        if removing:
            if removing == "purge":
                self._world.history.forget(self.name)
            self.removed = True
            return
        self._made = self._generation
        self._journal.note(result=CONVERGED, message="")
        if self.manifest is not None:
            self._remember(_own_users(self.manifest))

    async def _execute(
        self, plan: Plan, wanted: Desired, catalog: DescribedCatalog
    ) -> Mapping[str, str]:
        executor = Executor(
            self._world.cores,
            self._world.sessions,
            self._world.workloads,
            catalog=catalog,
            core=self._core,
            environment=self._referenced,
            manifest=self.manifest,
            desired=wanted,
            tell=self._tell,
        )
        return await executor.execute(plan)

    async def _reload(self, catalog: DescribedCatalog) -> None:
        """Read the files if a content changed; faulty ones change nothing but the status."""
        if not await self._files.changed(catalog):
            return
        try:
            others = partial(self._world.manifests_but, [self.name])
            loaded = await self._files.read(catalog, others)
        except InvalidManifestError as error:
            self._refuse(error.faults)
            if self.manifest is None:
                self._use(await self._files.last_good(catalog, error))
            return
        finally:
            self._world.read_anew()
        if self._faults:
            self._event("ManifestValid", "the file is valid again")
        self._faults = ()
        self._use(loaded)
        if self._files.take() or self._generation == 0:
            self._generation += 1
            self._journal.begin(self._files.generation(self._generation, self._world.clock.now()))
        self._world.claims_changed()
        self._remember(self.users | _own_users(loaded.manifest))
        if await self._files.changed(catalog):
            self.wake()  # it was saved again before it was watched

    def _use(self, loaded: Loaded) -> None:
        self.manifest = self.claims = loaded.manifest
        self._referenced = loaded.environment

    def _refuse(self, faults: tuple[Fault, ...]) -> None:
        """Note the faults of the file; what was declared before them stays."""
        if faults != self._faults:
            self._event("ManifestInvalid", str(faults[0]))
        self._faults = faults

    def _want(self, catalog: DescribedCatalog, removing: str = "") -> Desired:
        if self.manifest is None or removing:
            return Desired(self.name, file=self.file)
        environment = dict(self._referenced)

        def code_digest(class_name: str) -> str:
            plugin = catalog.digest(class_name.partition(".")[0])
            return digest([plugin, environment]) if environment else plugin

        return desired_of(self.manifest, _subflows_of(catalog), code_digest)

    def _make_plan(self, wanted: Desired, observed: Observed, removing: str = "") -> Plan:
        if removing:
            return plan_removal(self.name, observed, purge=removing == "purge")
        others = {name for user in observed.users.values() for name in user.manifests}
        return make_plan(wanted, observed, others=others - {self.name})

    async def _observe(self, wanted: Desired) -> Observed:
        endpoints: dict[str, set[str]] = {}
        for flow in wanted.flows:
            endpoints.setdefault(flow.user, set()).add(flow.endpoint)
        users = self.users | {user.name for user in wanted.users if not user.foreign}
        return await observe(
            self._core,
            users,
            endpoints,
            sessions=self._world.sessions,
            cores=self._world.cores,
            workloads=self._world.workloads,
            manifests_of={name: self._world.manifests_of(name) for name in users},
        )

    @property
    def _core(self) -> Any:
        return self.manifest.core if self.manifest else Manifest("", "").core

    def _remember(self, users: frozenset[str]) -> None:
        self.users = users
        self._world.applied.put(self._files.record(self._generation, users, self._removing))

    def _event(self, type_: str, message: str, resource: str = "") -> None:
        self._world.events.add(type_, message, manifest=self.name, resource=resource)

    def _tell(self, type_: str, resource: str, message: str, text: str) -> None:
        """Pass a step's progress on: to the event log, and to whoever waits for an apply."""
        self._event(type_, message, resource)
        for follower in self.followers:
            follower.put_nowait({"type": "progress", "manifest": self.name, "text": text})


def _own_users(manifest: Manifest) -> frozenset[str]:
    return frozenset(name for name, user in manifest.users.items() if not user.foreign)


def _subflows_of(catalog: DescribedCatalog) -> Callable[[str], Mapping[str, Mapping[str, Any]]]:
    """Return a function from a class to its default subflows; each class is merged only once."""
    return cache(lambda class_name: catalog.config_of(class_name).get("subflows_config") or {})
