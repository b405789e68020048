"""An instance's configuration: class defaults, the server's overrides, the caller's (§9.2, §9.3).

Plain functions. What a caller asks reaches only keys that the class declares, and never what says
who the instance is.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from engine.flows.config import Config, merge
from engine.model.errors import FlowInstanceException, UsageError
from engine.model.ids import LOCAL
from engine.model.secrets import contains_wrapper
from engine.serving.endpoints import EndpointRecord

PROXY_TARGET = "aiflows.base_flows.AtomicFlow.instantiate_from_default_config"
"""What stock aiflows builds a subflow's stand-in from; data to us, in entries that it may read."""
_IDENTITY = ("_target_", "flow_id")
_SERVING = ("flow_class_name", "singleton", "parallel_dispatch", "dispatch_point", "backend")
"""Keys of a subflow's config that are meant for who serves it; aiflows passes them on."""
_ALWAYS = ("name", "description", "subflows_config")
_WHERE = ("_target_", "user_id", "flow_endpoint", "flow_id")


class FlowClasses(Protocol):
    """What is needed of a catalog, described or not: classes that know their default config."""

    def flow_class(self, name: str) -> Any:
        """Return the class called `<plugin>.<ClassName>`; PluginError when there is none."""
        ...


def checked_overrides(overrides: Mapping[str, Any], defaults: Config) -> Config:
    """Return what a caller's `overrides` may change of a class with these `defaults`.

    Raises UsageError naming the keys that he may not touch.
    """
    if contains_wrapper(overrides):
        raise UsageError("Overrides cannot refer to environment variables of another user.")
    found = {key: value for key, value in overrides.items() if key not in _SERVING}
    refused = [key for key in found if key in _IDENTITY]
    refused += [key for key in found if key not in defaults and key not in (*_ALWAYS, *_IDENTITY)]
    declared = defaults.get("subflows_config") or {}
    asked = found.get("subflows_config") or {}
    if not isinstance(asked, Mapping):
        raise UsageError("The override of subflows_config is not an object.")
    refused += [f"subflows_config.{key}" for key in asked if key not in declared]
    if refused:
        raise UsageError(f"Overrides cannot change {', '.join(sorted(refused))}.")
    if asked:
        found["subflows_config"] = {
            key: {name: value for name, value in subflow.items() if name not in _IDENTITY}
            for key, subflow in asked.items()
        }
    return found


def complete_config(
    defaults: Config, record: EndpointRecord, overrides: Mapping[str, Any], *, own: bool
) -> Config:
    """Return the configuration of a new instance, its subflows not fetched yet.

    `own` is True when the server himself asks: he may override what he likes.
    """
    config = merge(defaults, record.config_overrides)
    if record.subflows:
        subflows = {
            key: merge(
                subflow.get("config_overrides") or {},
                {name: subflow[name] for name in ("user_id", "flow_endpoint") if subflow.get(name)},
            )
            for key, subflow in record.subflows.items()
        }
        config = merge(config, {"subflows_config": subflows})
    if own:
        wanted = {key: value for key, value in overrides.items() if key not in _IDENTITY}
    else:
        wanted = checked_overrides(overrides, config)
    return merge(config, wanted)


def subflows_of(config: Mapping[str, Any]) -> dict[str, Config]:
    """Return the configuration of each subflow, by its key; none for an atomic flow."""
    return dict(config.get("subflows_config") or {})


def address_of(subflow: Mapping[str, Any], own_user_id: str) -> tuple[str, str] | None:
    """Return who serves a subflow (`local` for the own user) and where; None if it is not said."""
    user_id, endpoint = subflow.get("user_id"), subflow.get("flow_endpoint")
    if not isinstance(user_id, str) or not isinstance(endpoint, str):
        return None
    return (LOCAL if user_id == own_user_id else user_id), endpoint


def passed_on(subflow: Mapping[str, Any]) -> Config:
    """Return the overrides that a subflow's server is asked for: all but where it is (§9.3)."""
    return {key: value for key, value in subflow.items() if key not in _WHERE}


def with_instances(config: Config, flow_ids: Mapping[str, str]) -> Config:
    """Return `config` with the instances of its subflows filled in, as aiflows stores it."""
    fetched = {
        key: {"_target_": PROXY_TARGET, "flow_id": flow_id} for key, flow_id in flow_ids.items()
    }
    return merge(config, {"subflows_config": fetched}) if fetched else config


def same_subflow(old: Mapping[str, Any] | None, new: Mapping[str, Any], own_user_id: str) -> bool:
    """Tell whether a fetched subflow is the one that `new` asks for."""
    return (
        old is not None
        and bool(old.get("flow_id"))
        and address_of(old, own_user_id) == address_of(new, own_user_id)
        and passed_on(old) == passed_on(new)
    )


def failure(flow_endpoint: str, user_id: str, reason: object) -> FlowInstanceException:
    """Return the error that an instance could not be had."""
    return FlowInstanceException(flow_endpoint, user_id, str(reason))
