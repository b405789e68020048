"""Carrying out a plan: each step as soon as what it waits for is done, and nothing decided here.

A step that fails takes its dependents with it, and nothing else. Every step is idempotent: a turn
that was cut short is planned anew from what is there, and finished.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import structlog

from engine.colink import keys
from engine.colink.client import Client
from engine.colink.payloads import json_bytes
from engine.controller.cores import Cores
from engine.controller.observe import stored_json
from engine.controller.sessions import Session, Sessions
from engine.controller.workloads import Workloads
from engine.flows.catalog import DescribedCatalog
from engine.model.errors import EngineError, NotFoundError
from engine.model.manifest import CoreSpec, Manifest, UserSpec
from engine.reconcile.progress import Progress
from engine.reconcile.records import RELEASED, FlowRecord, MountRecord, Resolver
from engine.reconcile.state import Desired, DesiredFlow, DesiredMount, DesiredWorkers
from engine.reconcile.steps import Plan, Step
from engine.reconcile.text import step_text
from engine.serving import endpoints, instances

log = structlog.get_logger(__name__)

STEP_TIMEOUT = 60.0
"""Seconds that one step may take."""
AT_ONCE = 32
"""Steps that are carried out at the same time."""

Tell = Callable[[str, str, str, str], None]
"""Called with type, resource, message and a line of text for each step that ended."""


class Executor:
    """Carries out the plan of one manifest."""

    def __init__(
        self,
        cores: Cores,
        sessions: Sessions,
        workloads: Workloads,
        *,
        catalog: DescribedCatalog,
        core: CoreSpec,
        environment: Mapping[str, str],
        manifest: Manifest | None,
        desired: Desired,
        tell: Tell,
    ) -> None:
        self._cores = cores
        self._sessions = sessions
        self._workloads = workloads
        self._catalog = catalog
        self._core = core
        self._environment = environment
        self._manifest = manifest
        self._desired = desired
        self._tell = tell
        self._flows = {(flow.user, flow.endpoint): flow for flow in desired.flows}
        self._mounts = {(mount.user, mount.name): mount for mount in desired.mounts}
        self._groups = {(group.user, group.name): group for group in desired.workers}
        self._actions: Mapping[tuple[str, str], Callable[[Step], Awaitable[None]]] = {
            ("core", "create"): self._start_core,
            ("user", "create"): self._open_user,
            ("user", "update"): self._open_user,
            ("user", "delete"): self._purge_user,
            ("worker", "delete"): self._drop_workers,
            ("flow", "replace"): self._replace_flow,
            ("flow", "delete"): self._delete_flow,
            ("mount", "create"): self._make_mount,
            ("mount", "replace"): self._replace_mount,
            ("mount", "update"): self._update_mount,
            ("mount", "release"): self._release_mount,
            ("mount", "delete"): self._delete_mount,
        }

    async def execute(self, plan: Plan) -> dict[str, str]:
        """Carry out `plan`; return what went wrong, a message for each step that failed."""
        progress = Progress(plan)
        waiting: deque[tuple[Step, ...]] = deque()
        running: set[asyncio.Task[None]] = set()
        try:
            while not progress.finished:
                waiting += _batches(progress.ready())
                while waiting and len(running) < AT_ONCE:
                    steps = waiting.popleft()
                    running.add(asyncio.create_task(self._attempt(steps, progress)))
                _, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in running:
                task.cancel()
        for step_id, reason in progress.skipped.items():
            self._tell("StepSkipped", step_id, reason, f"- {step_id}: skipped: {reason}")
        return {**progress.failures, **progress.skipped}

    async def _attempt(self, steps: tuple[Step, ...], progress: Progress) -> None:
        """Carry out steps that go together, and book how it went."""
        started = time.monotonic()
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                batch = _BATCHED.get((steps[0].kind, steps[0].action))
                if batch == "serve":
                    await self._serve_flows(steps)
                elif batch == "release":
                    await self._release_flows(steps)
                elif steps[0].kind == "worker" and steps[0].action != "delete":
                    await self._keep_workers(steps[0])
                else:
                    await self._actions[steps[0].kind, steps[0].action](steps[0])
        except TimeoutError:
            self._failed(steps, progress, f"not done after {STEP_TIMEOUT:.0f} s")
        except EngineError as error:
            self._failed(steps, progress, str(error))
        except Exception as error:
            log.exception("a step failed", steps=[step.id for step in steps])
            self._failed(steps, progress, f"{type(error).__name__}: {error}")
        else:
            took = time.monotonic() - started
            for step in steps:
                progress.succeeded(step.id)
                self._tell(
                    "StepDone",
                    step.id,
                    f"{step.action}: {step.cause}",
                    f"{step_text(step)}  [{took:.1f} s]",
                )

    def _failed(self, steps: tuple[Step, ...], progress: Progress, message: str) -> None:
        for step in steps:
            progress.failed(step.id, message)
            self._tell("StepFailed", step.id, message, f"! {step.id}: {message}")

    # --- core and users ---------------------------------------------------------------------

    async def _start_core(self, step: Step) -> None:
        if self._core.embedded:
            await self._cores.start_embedded()
        else:
            await self._cores.anonymous(self._core).request_info()
            self._cores.remote[self._core.address] = ""

    async def _open_user(self, step: Step) -> None:
        await self._session(step.name)

    async def _purge_user(self, step: Step) -> None:
        session = await self._session(step.name)
        for prefix in ("engine", "push_tasks", "get_instance_tasks"):
            await session.client.delete_tree(prefix)
        self._sessions.forget(self._core, step.name, purge=True)

    async def _session(self, user: str) -> Session:
        found = self._sessions.find(self._core, user)
        if found is not None:
            return found
        spec = self._manifest.users.get(user, UserSpec()) if self._manifest else UserSpec()
        return await self._sessions.open(self._core, user, spec, self._environment)

    def _resolver(self) -> Resolver:
        names = [user.name for user in self._desired.users if not user.foreign]
        known = {name: self._sessions.user_id(self._core, name) for name in names}
        return Resolver(self._desired, {name: i for name, i in known.items() if i is not None})

    # --- workers ----------------------------------------------------------------------------

    async def _keep_workers(self, step: Step) -> None:
        wanted: DesiredWorkers = self._groups[step.user, step.name]
        session = await self._session(step.user)
        await self._workloads.keep(
            self._desired.manifest, wanted, session, self._environment, self._catalog
        )

    async def _drop_workers(self, step: Step) -> None:
        await self._workloads.drop(self._desired.manifest, step.user, step.name)

    # --- flows ------------------------------------------------------------------------------

    async def _serve_flows(self, steps: tuple[Step, ...]) -> None:
        """Write the entries of one user's endpoints, all at once where the core can."""
        session, resolver = await self._session(steps[0].user), self._resolver()
        entries: dict[str, bytes] = {}
        for step in steps:
            flow = self._flows[step.user, step.name]
            entries |= _flow_entries(flow)
        for step in steps:
            record = resolver.flow_record(self._flows[step.user, step.name])
            entries[keys.engine_flow(step.name)] = json_bytes(record.to_json())
        await session.client.update_many(entries)
        for step in steps:
            if step.action == "update":
                await instances.reconfigure(session.client, self._catalog, step.name)

    async def _replace_flow(self, step: Step) -> None:
        session = await self._session(step.user)
        await endpoints.delete(session.client, step.name)
        await self._serve_flows((step,))

    async def _release_flows(self, steps: tuple[Step, ...]) -> None:
        """Unserve one user's endpoints and give them up, all at once where the core can."""
        client = (await self._session(steps[0].user)).client
        inits = [keys.flow(step.name, "init") for step in steps]
        records = [keys.engine_flow(step.name) for step in steps]
        found = await client.read_many([*inits, *records])
        entries = {key: json_bytes(0) for key in inits if stored_json(found.get(key)) == 1}
        for key in records:
            record = FlowRecord.from_json(stored_json(found.get(key)))
            if record is not None:
                entries[key] = json_bytes(record.to_json() | {"manifest": RELEASED})
        await client.update_many(entries)

    async def _delete_flow(self, step: Step) -> None:
        client = (await self._session(step.user)).client
        await endpoints.delete(client, step.name)
        await client.delete_many([keys.engine_flow(step.name)])

    # --- mounts -----------------------------------------------------------------------------

    async def _make_mount(self, step: Step) -> None:
        mount = self._mounts[step.user, step.name]
        session, resolver = await self._session(step.user), self._resolver()
        instance = await instances.get_instance(
            session.client,
            self._catalog,
            mount.flow_endpoint,
            user_id=resolver.user_id(mount.server),
            config_overrides=dict(mount.config_overrides),
            initial_state=dict(mount.initial_state) or None,
            timeout=STEP_TIMEOUT,
        )
        await self._record_mount(session, mount, instance.flow_id)

    async def _replace_mount(self, step: Step) -> None:
        await self._delete_mount(step)
        await self._make_mount(step)

    async def _update_mount(self, step: Step) -> None:
        """Give the instance the overrides that the mount has now; it keeps its id and state."""
        mount = self._mounts[step.user, step.name]
        session = await self._session(step.user)
        record = await self._mount_record(session.client, step)
        if record.config_overrides != mount.config_overrides:
            await instances.set_overrides(
                session.client, self._catalog, record.flow_id, dict(mount.config_overrides)
            )
        await self._record_mount(session, mount, record.flow_id)

    async def _release_mount(self, step: Step) -> None:
        """Give up the ownership of the mount; its record stays."""
        client = (await self._session(step.user)).client
        key = keys.engine_mount(step.name)
        record = MountRecord.from_json(stored_json(await client.read(key)))
        if record is not None:
            await client.update(key, json_bytes(record.to_json() | {"manifest": RELEASED}))

    async def _delete_mount(self, step: Step) -> None:
        """Delete the instance if it is on our side; somebody else's is left to its server."""
        session = await self._session(step.user)
        try:
            record = await self._mount_record(session.client, step)
        except NotFoundError:
            return
        server = self._client_of(record.user_id)
        if server is not None:
            await instances.delete_instance(server, record.flow_id, client_id=session.user_id)
        await session.client.delete_many([keys.engine_mount(step.name)])

    async def _mount_record(self, client: Client, step: Step) -> MountRecord:
        record = MountRecord.from_json(stored_json(await client.read(keys.engine_mount(step.name))))
        if record is None:
            raise NotFoundError(f"There is no record of the mount {step.user}/{step.name}.")
        return record

    async def _record_mount(self, session: Session, mount: DesiredMount, flow_id: str) -> None:
        record = self._resolver().mount_record(mount, flow_id)
        await session.client.update(keys.engine_mount(mount.name), json_bytes(record.to_json()))

    def _client_of(self, user_id: str) -> Client | None:
        """Return a client of one of our own users by id, None for somebody else."""
        for user in self._desired.users:
            session = self._sessions.find(self._core, user.name)
            if session is not None and session.user_id == user_id:
                return session.client
        return None


_BATCHED: Mapping[tuple[str, str], str] = {
    ("flow", "create"): "serve",
    ("flow", "update"): "serve",
    ("flow", "release"): "release",
}
"""Kind and action of the steps that go together, and what is done with them."""


def _batches(steps: tuple[Step, ...]) -> list[tuple[Step, ...]]:
    """Group steps that are carried out by one write: endpoints of one user."""
    together: dict[tuple[str, str], list[Step]] = {}
    batches: list[tuple[Step, ...]] = []
    for step in steps:
        batch = _BATCHED.get((step.kind, step.action))
        if batch is None:
            batches.append((step,))
        else:
            together.setdefault((batch, step.user), []).append(step)
    return [*batches, *(tuple(group) for group in together.values())]


def _flow_entries(flow: DesiredFlow) -> dict[str, bytes]:
    return endpoints.entries(
        flow.endpoint,
        flow_class_name=flow.flow_class_name,
        dispatch_point=flow.dispatch_point,
        parallel_dispatch=flow.parallel_dispatch,
        singleton=flow.singleton,
    )
