"""Which flow classes are installed, as data, kept up to date while the engine runs.

Plugin code is imported in a fresh process each time (`python -m engine.flows.catalog`): packages
installed or edited since the engine started are seen, and what a plugin does at import cannot hurt
the engine. The description is made anew when something that Python imports from has changed.
"""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.flows import Flow
from engine.flows.catalog import DescribedCatalog
from engine.hooks import load_catalog
from engine.kits.digest import digest
from engine.model.errors import PluginError

_TIMEOUT = 60.0


class Plugins:
    """The described catalog of what is installed for this Python."""

    def __init__(self) -> None:
        self._catalog: DescribedCatalog | None = None
        self._seen = ""
        self._describing = asyncio.Lock()

    async def catalog(self, *, fresh: bool = False) -> DescribedCatalog:
        """Return what is installed now; `fresh` asks even if nothing seems to have changed.

        Raises PluginError when the describing process itself fails.
        """
        async with self._describing:
            seen = await asyncio.to_thread(self._fingerprint)
            if fresh or self._catalog is None or seen != self._seen:
                self._catalog = _catalog(await _describe())
                self._seen = await asyncio.to_thread(self._fingerprint)
            return self._catalog

    def _fingerprint(self) -> str:
        """Return a digest of the time stamps of where packages stand and of the plugins' files."""
        places = [Path(entry) for entry in sys.path if entry]
        if self._catalog is not None:
            locations = {Path(plugin.location) for plugin in self._catalog.plugins}
            for location in locations:
                root = location if location.is_dir() else location.parent
                places += [file for file in root.rglob("*") if file.suffix in {".py", ".yaml"}]
        stamps = []
        for place in places:
            try:
                stamps.append([str(place), place.stat().st_mtime_ns])
            except OSError:
                continue
        return digest(sorted(stamps))


def _catalog(described: Mapping[str, Any]) -> DescribedCatalog:
    """Return the described catalog; resolvers are code, so plugins that bring some are imported."""
    resolvers = load_catalog(Flow).resolvers if described["resolvers"] else {}
    return DescribedCatalog.from_json(described, resolvers)


async def _describe() -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "engine.flows.catalog",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, complaints = await asyncio.wait_for(process.communicate(), _TIMEOUT)
    except TimeoutError:
        process.kill()
        raise PluginError(
            f"The installed plugins did not load within {_TIMEOUT:.0f} s.",
            "Find the one that blocks at import with `engine plugins`.",
        ) from None
    try:
        described: dict[str, Any] = json.loads(output)
    except ValueError:
        lines = complaints.decode(errors="replace").strip().splitlines() or ["no output"]
        raise PluginError(f"The installed plugins cannot be described: {lines[-1]}") from None
    return described
