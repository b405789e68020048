"""What is installed, as the JSON data of `engine plugins` and `engine flows`.

Imports all plugins.
"""

import contextlib
import inspect
import sys
from dataclasses import asdict
from typing import Any

from engine.flows import CompositeFlow, Flow
from engine.flows.flow import INPUT_SCHEMA, OUTPUT_SCHEMA
from engine.hooks import Catalog, load_catalog

_INTERFACE = "interface"


def catalog() -> Catalog:
    """Load all plugins. What they print meanwhile goes to standard error, for ours is data."""
    with contextlib.redirect_stdout(sys.stderr):
        return load_catalog(Flow)


def plugins(installed: Catalog) -> list[dict[str, Any]]:
    """Return all plugins: name, distribution, version, location, classes, error, traceback."""
    return [
        asdict(plugin) | {"classes": [f"{plugin.name}.{name}" for name in plugin.classes]}
        for plugin in installed.plugins
    ]


def flows(installed: Catalog) -> list[dict[str, Any]]:
    """Return all flow classes that can be served: name, plugin, composite, doc."""
    return [_summary(installed, name) for name in installed.names()]


def flow(installed: Catalog, name: str) -> dict[str, Any]:
    """Return one flow class with its interfaces and its default configuration.

    Raises PluginError, with a similar name if there is one, when there is no such class.
    """
    flow_class: Any = installed.flow_class(name)
    config = flow_class.get_config()
    interfaces = {key: value for key, value in config.items() if _INTERFACE in key}
    for key in (INPUT_SCHEMA, OUTPUT_SCHEMA):
        schema = config.get(key) or getattr(flow_class, key)
        if schema is not None:
            interfaces[key] = schema
    return _summary(installed, name) | {
        "interfaces": interfaces,
        "default_config": config,
    }


def _summary(installed: Catalog, name: str) -> dict[str, Any]:
    flow_class = installed.flow_class(name)
    return {
        "name": name,
        "plugin": name.partition(".")[0],
        "composite": issubclass(flow_class, CompositeFlow),
        "doc": inspect.cleandoc(flow_class.__doc__ or ""),
    }
