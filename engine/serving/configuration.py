"""An instance's configuration: class defaults, the server's overrides, the caller's (§9.2, §9.3).

Plain functions. What somebody else asks reaches only keys that the class declares, never what says
who an instance is, and never lends him the server's access to a third user.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.flows.config import Config, merge
from engine.model.errors import UsageError
from engine.model.ids import LOCAL
from engine.model.secrets import contains_wrapper, is_wrapper
from engine.serving.endpoints import SCHEMAS, EndpointRecord

PROXY_TARGET = "aiflows.base_flows.AtomicFlow.instantiate_from_default_config"
"""What stock aiflows builds a subflow's stand-in from; data to us, in entries that it may read."""
SUBFLOWS = "subflows_config"
_IDENTITY = ("_target_", "flow_id")
_WHERE = ("_target_", "user_id", "flow_endpoint", "flow_id")
_ALWAYS = ("name", "description", SUBFLOWS)
_IGNORED = ("flow_class_name", "singleton", "parallel_dispatch", "dispatch_point", "backend")
"""Keys that a stock composite passes on about how its subflow is to be served (§9.3, §9.11)."""


class FlowClasses(Protocol):
    """What is needed of a catalog, described or not: classes that know their default config."""

    def flow_class(self, name: str) -> Any:
        """Return the class called `<plugin>.<ClassName>`; PluginError when there is none."""
        ...


@dataclass(frozen=True)
class Wish:
    """What an instance shall be beyond its class and endpoint.

    `own` are overrides that the server's own flows or the server himself give, `asked` those of
    somebody else, which are checked. Kept with the instance, so that its configuration can be
    computed anew.
    """

    own: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def decode(cls, value: Any) -> "Wish | None":
        """Return the wish that a decoded entry holds, None when it holds none."""
        if not isinstance(value, dict) or not isinstance(value.get("overrides"), dict):
            return None
        return cls(own=value.get("own") or {}, asked=value["overrides"])

    def to_json(self) -> dict[str, Any]:
        """Return what is stored."""
        return {"overrides": dict(self.asked), "own": dict(self.own)}


@dataclass(frozen=True)
class SubflowRequest:
    """A subflow that an instance needs: who serves it where, and what is asked of him.

    `user_id` is `local` for the server himself. `by_caller` tells that the caller chose who serves
    it, so that it is he who must have access.
    """

    key: str
    user_id: str
    flow_endpoint: str
    wish: Wish
    by_caller: bool

    def overrides(self) -> Config:
        """Return everything that is asked, as one: what goes to another user."""
        return merge(self.wish.own, self.wish.asked)


def own_config(defaults: Config, record: EndpointRecord, own: Mapping[str, Any]) -> Config:
    """Return what the server himself makes of his flow: the class's `defaults` under his layers."""
    subflows = {
        key: merge(
            subflow.get("config_overrides") or {},
            {name: subflow[name] for name in ("user_id", "flow_endpoint") if subflow.get(name)},
        )
        for key, subflow in record.subflows.items()
    }
    config = {**merge(defaults, record.config_overrides), **record.schemas}
    if subflows:
        config = merge(config, {SUBFLOWS: subflows})
    return merge(config, {key: value for key, value in own.items() if key not in _IDENTITY})


def checked(asked: Mapping[str, Any], config: Config) -> Config:
    """Return what somebody else's overrides change in `config` (the result of `own_config`).

    Raises UsageError naming the keys that he may not change.
    """
    if contains_wrapper(asked):
        raise UsageError("Overrides cannot take anything from the server's environment.")
    wanted = {key: value for key, value in asked.items() if key in config or key not in _IGNORED}
    subflows = wanted.get(SUBFLOWS, {})
    if not isinstance(subflows, Mapping):
        raise UsageError(f"The override of {SUBFLOWS} is not an object.")
    rest = {key: value for key, value in wanted.items() if key not in (*_ALWAYS, *SCHEMAS)}
    refused = [*_refused(rest, config, ""), *_refused_subflows(subflows, config)]
    # What the server lets in and out is his to say.
    refused += [key for key in SCHEMAS if key in wanted and wanted[key] != config.get(key)]
    if refused:
        raise UsageError(f"Overrides cannot change {', '.join(sorted(refused))}.")
    return wanted


def _refused(asked: Mapping[str, Any], declared: Mapping[str, Any], path: str) -> Iterator[str]:
    for key, value in asked.items():
        if key in _IDENTITY or key not in declared:
            if key not in declared or declared[key] != value:
                yield f"{path}{key}"
            continue
        current = declared[key]
        if isinstance(current, Mapping) and isinstance(value, Mapping):
            if is_wrapper(current):
                yield f"{path}{key}"
            elif current:
                yield from _refused(value, current, f"{path}{key}.")


def _refused_subflows(asked: Mapping[str, Any], config: Config) -> Iterator[str]:
    declared = config.get(SUBFLOWS) or {}
    for key, subflow in asked.items():
        if key not in declared or not isinstance(subflow, Mapping):
            yield f"{SUBFLOWS}.{key}"
            continue
        for name in _IDENTITY:
            if name in subflow and subflow[name] != declared[key].get(name):
                yield f"{SUBFLOWS}.{key}.{name}"


def subflow_requests(
    own: Config, asked: Mapping[str, Any], own_user_id: str
) -> Iterator[SubflowRequest]:
    """Yield what has to be asked for so that all subflows have instances.

    `own` is the result of `own_config`, `asked` what `checked` let through. Subflows that name
    their instance already are left alone (§9.3). Raises UsageError when one does not say who
    serves it.
    """
    for key, subflow in subflows_of(own).items():
        wanted = (asked.get(SUBFLOWS) or {}).get(key) or {}
        whole = merge(subflow, wanted)
        if whole.get("flow_id"):
            continue
        user_id, flow_endpoint = whole.get("user_id"), whole.get("flow_endpoint")
        if not isinstance(user_id, str) or not isinstance(flow_endpoint, str):
            raise UsageError(f"The subflow {key} lacks user_id or flow_endpoint in the config.")
        by_caller = any(
            name in wanted and wanted[name] != subflow.get(name)
            for name in ("user_id", "flow_endpoint")
        )
        wish = Wish(own=_passed_on(subflow), asked=_passed_on(wanted))
        if by_caller:
            wish = Wish(asked=merge(wish.own, wish.asked))
        served_by = LOCAL if user_id == own_user_id else user_id
        yield SubflowRequest(key, served_by, flow_endpoint, wish, by_caller)


def subflows_of(config: Mapping[str, Any]) -> dict[str, Config]:
    """Return the configuration of each subflow, by its key; none for an atomic flow."""
    return dict(config.get(SUBFLOWS) or {})


def servers_of(config: Any) -> frozenset[str]:
    """Return the ids of the users who serve the subflows of an instance with this `config`."""
    subflows = subflows_of(config).values() if isinstance(config, Mapping) else ()
    return frozenset(str(subflow.get("user_id", LOCAL)) for subflow in subflows)


def with_instances(config: Config, flow_ids: Mapping[str, str]) -> Config:
    """Return `config` with the instances of its subflows filled in, as aiflows stores it."""
    fetched = {
        key: {"_target_": PROXY_TARGET, "flow_id": flow_id} for key, flow_id in flow_ids.items()
    }
    return merge(config, {SUBFLOWS: fetched}) if fetched else config


def serves(subflow: Mapping[str, Any], request: SubflowRequest, own_user_id: str) -> bool:
    """Tell whether a stored subflow is an instance of what `request` asks for, at that place."""
    user_id = LOCAL if subflow.get("user_id") == own_user_id else subflow.get("user_id")
    return bool(subflow.get("flow_id")) and (user_id, subflow.get("flow_endpoint")) == (
        request.user_id,
        request.flow_endpoint,
    )


def fits(subflow: Mapping[str, Any], request: SubflowRequest) -> bool:
    """Tell whether a stored subflow was asked for with the overrides of `request`."""
    return _passed_on(subflow) == request.overrides()


def _passed_on(subflow: Mapping[str, Any]) -> Config:
    """Return the overrides that a subflow's server is asked for: all but where it is (§9.3)."""
    return {key: value for key, value in subflow.items() if key not in _WHERE}
