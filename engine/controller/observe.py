"""Reading the world for one manifest: its users' storage, in bulk, and the processes that run.

It collects and chooses nothing; `engine.reconcile` decides. A user whose core does not answer is
reported as not ready, and nothing is said about what is stored for him.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.colink import keys
from engine.colink.payloads import is_set, json_value
from engine.controller.cores import Cores
from engine.controller.sessions import Session, Sessions
from engine.controller.workloads import Workloads
from engine.kits.aio import map_limited
from engine.model.errors import EngineError
from engine.model.ids import LOCAL
from engine.model.manifest import CoreSpec
from engine.reconcile.records import FlowRecord, MountRecord
from engine.reconcile.state import Observed, ObservedFlow, ObservedMount, ObservedUser

_USERS_AT_ONCE = 8
_FLOW_FIELDS = (
    "init",
    "flow_class_name",
    "default_dispatch_point",
    "singleton",
    "parallel_dispatch",
)
"""The entries of a served flow (protocol sheet §9.1)."""


class Reader(Protocol):
    """What is needed of a user's client to read his storage."""

    async def list_keys(self, prefix: str) -> list[str]:
        """Return the key paths directly in a directory (protocol sheet §4.2)."""
        ...

    async def read_tree(self, prefix: str) -> dict[str, bytes]:
        """Return all live entries below a key name."""
        ...

    async def read_many(self, names: Iterable[str], /) -> dict[str, bytes]:
        """Return the entries that exist among `names`."""
        ...


@dataclass(frozen=True)
class Stored:
    """What was read of one user's storage, by key name."""

    user: str
    user_id: str
    endpoints: frozenset[str]
    flow_records: Mapping[str, FlowRecord]
    mount_records: Mapping[str, MountRecord]
    flow_entries: Mapping[str, bytes] = field(repr=False)
    instances: Mapping[str, Mapping[str, Any]] = field(repr=False)
    """Metadata (`flow_endpoint`, `user_id` of the client) of each live instance by flow id."""


async def observe(
    core: CoreSpec,
    users: Collection[str],
    endpoints: Mapping[str, Collection[str]],
    *,
    sessions: Sessions,
    cores: Cores,
    workloads: Workloads,
    manifests_of: Mapping[str, tuple[str, ...]],
) -> Observed:
    """Return what is there of `users` (names) on `core`.

    `endpoints` has, by user, the endpoints that the manifest wants: they are looked at beside those
    that the engine recorded. `manifests_of` tells which live manifests name a user.
    """
    known = {
        name: user_id for name in users if (user_id := sessions.user_id(core, name)) is not None
    }
    open_sessions = [s for name in sorted(known) if (s := sessions.find(core, name)) is not None]

    async def read(session: Session) -> Stored | None:
        try:
            wanted = endpoints.get(session.name, ())
            return await read_stored(session.client, session.name, session.user_id, wanted)
        except EngineError as error:
            cores.remote |= {} if core.embedded else {core.address: str(error)}
            return None

    stored = [found for found in await map_limited(read, open_sessions, _USERS_AT_ONCE) if found]
    ready = {found.user for found in stored}
    readers: dict[str, Reader] = {s.user_id: s.client for s in open_sessions}
    return Observed(
        core_ready=cores.embedded_ready if core.embedded else not cores.remote.get(core.address),
        users={
            name: ObservedUser(user_id, name in ready, manifests_of.get(name, ()))
            for name, user_id in known.items()
        },
        workers=workloads.observed(),
        flows=flows_of(stored),
        mounts=await mounts_of(stored, readers),
        unseen=frozenset(known if core.embedded else users) - ready,
    )


async def read_stored(reader: Reader, user: str, user_id: str, wanted: Collection[str]) -> Stored:
    """Read one user's storage in bulk; of the endpoints, those in `wanted` and our own."""
    listed = {
        path.partition("::")[2].partition("@")[0].partition(":")[2]
        for path in await reader.list_keys(f"{user_id}::{keys.FLOWS}")
    }
    records = await reader.read_tree(keys.ENGINE_FLOWS)
    flow_records = _records(records, keys.ENGINE_FLOWS, FlowRecord.from_json)
    mounts = await reader.read_tree(keys.ENGINE_MOUNTS)
    metadata = await reader.read_tree(keys.INSTANCE_METADATA)
    looked_at = listed & (set(wanted) | set(flow_records))
    names = [keys.flow(name, entry) for name in looked_at for entry in _FLOW_FIELDS]
    return Stored(
        user=user,
        user_id=user_id,
        endpoints=frozenset(looked_at | set(flow_records)),
        flow_records=flow_records,
        mount_records=_records(mounts, keys.ENGINE_MOUNTS, MountRecord.from_json),
        flow_entries=await reader.read_many(names) if names else {},
        instances={
            key.partition(":")[2]: value
            for key, payload in metadata.items()
            if isinstance(value := stored_json(payload), dict)
        },
    )


def _records(tree: Mapping[str, bytes], prefix: str, parse: Any) -> dict[str, Any]:
    found = {
        key.removeprefix(f"{prefix}:"): parse(stored_json(value)) for key, value in tree.items()
    }
    return {name: record for name, record in found.items() if record is not None}


def flows_of(stored: Collection[Stored]) -> tuple[ObservedFlow, ...]:
    """Return what stands about each endpoint that was looked at."""
    return tuple(flow for found in stored for flow in _flows(found))


def _flows(stored: Stored) -> Iterable[ObservedFlow]:
    counts: dict[str, int] = {}
    for metadata in stored.instances.values():
        endpoint = str(metadata.get("flow_endpoint"))
        counts[endpoint] = counts.get(endpoint, 0) + 1
    for endpoint in stored.endpoints:

        def entry(name: str, endpoint: str = endpoint) -> bytes | None:
            return stored.flow_entries.get(keys.flow(endpoint, name))

        class_name, singleton, parallel, point = (
            entry(name)
            for name in (
                "flow_class_name",
                "singleton",
                "parallel_dispatch",
                "default_dispatch_point",
            )
        )
        yield ObservedFlow(
            user=stored.user,
            endpoint=endpoint,
            served=stored_json(entry("init")) == 1,
            flow_class_name=None if class_name is None else str(stored_json(class_name)),
            singleton=None if singleton is None else bool(stored_json(singleton)),
            parallel_dispatch=None if parallel is None else is_set(parallel),
            dispatch_point=None if point is None else point.decode(errors="replace"),
            record=stored.flow_records.get(endpoint),
            instances=counts.get(endpoint, 0),
        )


async def mounts_of(
    stored: Collection[Stored], readers: Mapping[str, Reader]
) -> tuple[ObservedMount, ...]:
    """Look at each recorded mount: does its instance live, and do its subflows' instances?

    `readers` reach the storage of the users in `stored`, by user id.
    """
    instances = {found.user_id: found.instances for found in stored}
    wanted: dict[str, set[str]] = {}
    for found in stored:
        for record in found.mount_records.values():
            key = _config_key(record, found.user_id, instances)
            if key is not None:
                wanted.setdefault(record.user_id, set()).add(key)
    configs: dict[tuple[str, str], Any] = {}
    for user_id, names in wanted.items():
        payloads = await readers[user_id].read_many(sorted(names))
        configs |= {(user_id, key): stored_json(payload) for key, payload in payloads.items()}
    observed = []
    for found in stored:
        for name, record in found.mount_records.items():
            key = _config_key(record, found.user_id, instances)
            config = configs.get((record.user_id, key)) if key else None
            live = _alive(record.user_id, record.flow_id, config, instances)
            observed.append(ObservedMount(found.user, name, record, live))
    return tuple(observed)


def _config_key(
    record: MountRecord, client: str, instances: Mapping[str, Mapping[str, Mapping[str, Any]]]
) -> str | None:
    """Return where the instance's config stands, if it can be looked at."""
    metadata = instances.get(record.user_id, {}).get(record.flow_id)
    if metadata is None:
        return None
    owner = str(metadata.get("user_id", LOCAL))
    owner = LOCAL if owner == record.user_id else owner
    return keys.mount_field(record.flow_endpoint, owner, record.flow_id, "config_overrides")


def _alive(
    user_id: str,
    flow_id: str,
    config: Any,
    instances: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> bool | None:
    if user_id not in instances:
        return None
    if flow_id not in instances[user_id]:
        return False
    subflows = config.get("subflows_config") if isinstance(config, dict) else None
    for subflow in (subflows or {}).values():
        if not isinstance(subflow, dict) or "flow_id" not in subflow:
            continue
        server = subflow.get("user_id", LOCAL)
        server = user_id if server == LOCAL else server
        if server in instances and subflow["flow_id"] not in instances[server]:
            return False
    return True


def stored_json(payload: bytes | None) -> Any:
    """Return the JSON value of an entry, None when there is none or it is no JSON."""
    try:
        return None if payload is None else json_value(payload)
    except ValueError:
        return None
