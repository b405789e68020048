"""Planning while no engine runs: from the identities and the embedded core's file, read-only."""

import asyncio
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from engine.controller.identities import Identities
from engine.controller.observe import Reader, flows_of, mounts_of, read_stored
from engine.core.offline import Entries, read_entries
from engine.flows import Flow
from engine.flows.catalog import DescribedCatalog, describe
from engine.hooks import load_catalog
from engine.loading import Contents, load_composition
from engine.model.composition import Composition
from engine.model.home import Home
from engine.model.manifest import Manifest
from engine.reconcile.desired import desired
from engine.reconcile.planner import plan as make_plan
from engine.reconcile.state import Observed, ObservedUser
from engine.reconcile.steps import Plan

_PREFIXES = ("flows", "engine", "instance_metadata")


def plan(home: Path, composition: Composition, environment: Mapping[str, str]) -> Plan:
    """Return what applying `composition` would do, with the engine of `home` started first.

    Nothing is written. Raises InvalidManifestError with all faults.
    """
    catalog = DescribedCatalog.from_json(describe(load_catalog(Flow)))
    loaded = load_composition(composition, catalog, environment, Contents())
    manifest = loaded.manifest
    wanted = desired(
        manifest,
        cache(lambda name: catalog.config_of(name).get("subflows_config") or {}),
        lambda name: catalog.digest(name.partition(".")[0]),
    )
    return make_plan(wanted, asyncio.run(_observe(Home(home), manifest)), others=frozenset())


async def _observe(home: Home, manifest: Manifest) -> Observed:
    """Return what is stored for the manifest's users; nothing runs."""
    if not manifest.core.embedded:
        return Observed(core_ready=False, unseen=frozenset(manifest.users))
    identities = Identities(home.identities)
    known = {
        name: pair.user_id for name in manifest.users if (pair := identities.find(name)) is not None
    }
    readers: dict[str, Reader] = {
        user_id: _StoredReader(read_entries(home.core, user_id, _PREFIXES))
        for user_id in known.values()
    }
    stored = [
        await read_stored(readers[user_id], name, user_id, manifest.users[name].flows)
        for name, user_id in known.items()
    ]
    return Observed(
        core_ready=False,
        users={name: ObservedUser(user_id, ready=False) for name, user_id in known.items()},
        flows=flows_of(stored),
        mounts=await mounts_of(stored, readers),
    )


class _StoredReader:
    """Reads one user's storage from what was read of a file."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries

    async def list_keys(self, prefix: str) -> list[str]:
        owner, _, name = prefix.partition("::")
        below = (key.removeprefix(f"{name}:") for key in self._entries if key.startswith(name))
        return [f"{owner}::{name}:{child}@0" for child in {key.partition(":")[0] for key in below}]

    async def read_tree(self, prefix: str) -> dict[str, bytes]:
        return {key: value for key, value in self._entries.items() if key.startswith(f"{prefix}:")}

    async def read_many(self, names: Iterable[str]) -> dict[str, bytes]:
        return {name: self._entries[name] for name in names if name in self._entries}
