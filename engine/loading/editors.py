"""The JSON Schema as editors get it: with what is installed, or for a file that is only a part."""

from collections.abc import Mapping
from typing import Any, Protocol

from engine.loading.schema import JsonSchema, schema
from engine.model.errors import EngineError
from engine.model.secrets import WRAPPER, is_wrapper


class Classes(Protocol):
    """Knows the installed flow classes, as a Catalog does."""

    def names(self) -> tuple[str, ...]:
        """Return their names, sorted."""

    def flow_class(self, name: str) -> Any:
        """Return the class of that name; raises PluginError when it cannot be used."""


def editor_schema(catalog: Classes, *, layer: bool = False) -> JsonSchema:
    """Return the manifest's JSON Schema (2020-12) with the installed flow classes in it.

    An editor can offer the classes, and for each flow the keys of its class's configuration and
    subflows. With `layer` no key is required: such a file is laid over others, or included.
    """
    made = schema()
    if layer:
        made = _without_required(made)
    names = catalog.names()
    if not names:
        return made
    flow = made["$defs"]["flow"]
    class_name = flow["properties"]["flow_class_name"]
    del class_name["pattern"], class_name["patternErrorMessage"]
    class_name["anyOf"] = [{"enum": list(names)}, {"pattern": r"\$\{"}]
    flow["allOf"] = [
        {
            "if": {
                "properties": {"flow_class_name": {"const": name}},
                "required": ["flow_class_name"],
            },
            "then": {"properties": _of_class(name, config)},
        }
        for name, config in _configs(catalog).items()
    ]
    return made


def _configs(catalog: Classes) -> dict[str, Mapping[str, Any]]:
    """Return the default configurations of all classes; one whose defaults are broken has none."""
    found: dict[str, Mapping[str, Any]] = {}
    for name in catalog.names():
        try:
            found[name] = catalog.flow_class(name).get_config()
        except EngineError:
            continue
    return found


def _of_class(name: str, config: Mapping[str, Any]) -> JsonSchema:
    subflows = config.get("subflows_config")
    keys = subflows if isinstance(subflows, Mapping) else {}
    return {
        "config_overrides": {
            "title": f"Configuration of {name}",
            "description": "Laid over the class's defaults.",
            **_declared(config),
        },
        "subflows": {"properties": {key: {"$ref": "#/$defs/subflow"} for key in keys}},
    }


def _declared(value: Any) -> JsonSchema:
    """Return what describes the keys of a default value; any type may be laid over it."""
    if is_wrapper(value):
        return {"default": value[WRAPPER]}
    if not isinstance(value, Mapping):
        return {"default": value}
    return {"properties": {str(key): _declared(item) for key, item in value.items()}}


def _without_required(part: Any) -> Any:
    if isinstance(part, list):
        return [_without_required(item) for item in part]
    if not isinstance(part, dict):
        return part
    dropped = {"required", "if", "then", "else"}
    return {key: _without_required(item) for key, item in part.items() if key not in dropped}
