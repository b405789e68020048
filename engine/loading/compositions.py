"""Composites that the manifest alone makes: whether their topologies can be followed."""

from collections.abc import Mapping
from typing import Any

from engine.flows.config import merge
from engine.flows.topology import read
from engine.loading.classes import SUBFLOWS, KnownClass
from engine.loading.faults import Faults
from engine.loading.paths import Path
from engine.loading.references import Add, Endpoint, mapping

_OVERRIDES = "config_overrides"


class Compositions:
    """Checks the flows of one manifest whose classes have a pattern."""

    def __init__(self, add: Add, faults: Faults) -> None:
        self._add = add
        self._faults = faults

    def add_flow(
        self, path: Path, endpoint: Endpoint, flow: Mapping[str, Any], known: KnownClass
    ) -> None:
        """Check the topology of the flow at `path`, if its class has one."""
        overrides_path = (*path, _OVERRIDES)
        if known.pattern is None or self._faults.spoiled(overrides_path):
            return
        if flow.get("parallel_dispatch") is True:
            message = "Such a flow keeps where each run stands, and has no state this way."
            self._add((*path, "parallel_dispatch"), message, "Write parallel_dispatch: false.")
        config = merge(known.config, mapping(flow.get(_OVERRIDES)))
        config[SUBFLOWS] = {**mapping(config.get(SUBFLOWS)), **mapping(flow.get("subflows"))}
        _, problems = read(config, known.pattern)
        for problem in problems:
            self._add((*overrides_path, *problem.path), problem.message, problem.hint)
