"""Interfaces and topologies of flows: whether they are what they should be, and fit together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.flows.config import merge
from engine.flows.fitting import Interface, misfits
from engine.flows.schemas import JsonSchema, expanded
from engine.flows.topology import Pattern, Topology, read
from engine.loading.classes import SUBFLOWS, KnownClass
from engine.loading.faults import Faults
from engine.loading.paths import Path
from engine.loading.references import Add, Endpoint, mapping
from engine.model.errors import UsageError
from engine.model.ids import LOCAL

_OVERRIDES = "config_overrides"


@dataclass(frozen=True)
class _Composite:
    """A flow whose topology can be followed; `path` is the one of its `config_overrides`."""

    path: Path
    endpoint: Endpoint
    topology: Topology
    pattern: Pattern
    subflows: Mapping[str, Any]


class Compositions:
    """Checks the flows of one manifest."""

    def __init__(self, add: Add, faults: Faults) -> None:
        self._add = add
        self._faults = faults
        self._interfaces: dict[Endpoint, Interface] = {}
        self._composites: list[_Composite] = []

    def add_flow(
        self, path: Path, endpoint: Endpoint, flow: Mapping[str, Any], known: KnownClass
    ) -> None:
        """Check the schemas of the flow at `path`, and its topology if its class has one."""
        overrides_path = (*path, _OVERRIDES)
        if self._faults.spoiled(overrides_path):
            return
        config = merge(known.config, mapping(flow.get(_OVERRIDES)))
        self._interfaces[endpoint] = Interface(
            self._schema(path, "input_schema", flow, config, known.interface.input_schema),
            self._schema(path, "output_schema", flow, config, known.interface.output_schema),
        )
        if known.pattern is None:
            return
        if flow.get("parallel_dispatch") is True:
            message = "Such a flow keeps where each run stands, and has no state this way."
            self._add((*path, "parallel_dispatch"), message, "Write parallel_dispatch: false.")
        subflows = {
            key: merge(mapping(mapping(config.get(SUBFLOWS)).get(key)), mapping(subflow))
            for key, subflow in {
                **mapping(config.get(SUBFLOWS)),
                **mapping(flow.get("subflows")),
            }.items()
        }
        topology, problems = read({**config, SUBFLOWS: subflows}, known.pattern)
        for problem in problems:
            self._add((*overrides_path, *problem.path), problem.message, problem.hint)
        if not problems:
            composite = _Composite(overrides_path, endpoint, topology, known.pattern, subflows)
            self._composites.append(composite)

    def _schema(
        self,
        path: Path,
        name: str,
        flow: Mapping[str, Any],
        config: Mapping[str, Any],
        of_class: JsonSchema | None,
    ) -> JsonSchema | None:
        """Return what the flow's messages or answers look like; None when nobody says it."""
        place = (*path, name) if name in flow else (*path, _OVERRIDES, name)
        written = flow.get(name, config.get(name))
        if written is None or self._faults.spoiled(place):
            return of_class
        try:
            return expanded(written)
        except UsageError as error:
            self._add(place, error.message, error.hint)
            return None

    def check_fits(self) -> None:
        """Note where a composite's steps do not fit together; once all flows are added."""
        for one in self._composites:
            subflows = {key: self._target(one, mapping(of)) for key, of in one.subflows.items()}
            own = self._interfaces[one.endpoint]
            for problem in misfits(one.topology, one.pattern, own, subflows):
                self._add((*one.path, *problem.path), problem.message, problem.hint)

    def _target(self, composite: _Composite, subflow: Mapping[str, Any]) -> Interface:
        """Return the interface of a subflow; an empty one when it is not of this manifest."""
        user = subflow.get("user_id") or LOCAL
        server = composite.endpoint.user if user == LOCAL else str(user)
        endpoint = Endpoint(server, str(subflow.get("flow_endpoint")))
        return self._interfaces.get(endpoint, Interface())
