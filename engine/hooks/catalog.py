"""What the installed plugins bring: flow classes by name, resolvers, and what is broken."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.hooks.sources import source_digest
from engine.kits.digest import digest
from engine.model.errors import PluginError


@dataclass(frozen=True)
class PluginInfo:
    """One installed plugin.

    `classes` are the names of its flow classes. A broken plugin has none, and says in `error` (one
    line) and `traceback` (text) why; `error` is None when all is well. `location` is the folder or
    file of its code, empty when that cannot be found.
    """

    name: str
    distribution: str
    version: str
    location: str
    classes: tuple[str, ...] = ()
    error: str | None = None
    traceback: str = ""


@dataclass(frozen=True)
class Catalog:
    """All plugins, in the order of their names; made by `engine.hooks.load_catalog`.

    `flow_classes` maps `<plugin>.<ClassName>` to the class, for plugins that are not broken.
    """

    plugins: tuple[PluginInfo, ...] = ()
    flow_classes: Mapping[str, type] = field(default_factory=dict)
    resolvers: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    def names(self) -> tuple[str, ...]:
        """Return the names of all flow classes that can be served, sorted."""
        return tuple(sorted(self.flow_classes))

    def flow_class(self, name: str) -> type:
        """Return the class called `<plugin>.<ClassName>`.

        Raises PluginError: the plugin is not installed, is broken (with its error), or has no such
        class; with a similar name if there is one.
        """
        found = self.flow_classes.get(name)
        if found is not None:
            return found
        plugin_name = name.partition(".")[0]
        installed = [plugin for plugin in self.plugins if plugin.name == plugin_name]
        for plugin in installed:
            if plugin.error is not None:
                raise PluginError(
                    f"{name} cannot be used: the plugin {plugin_name} is broken: {plugin.error}",
                    f"It is of {plugin.distribution} {plugin.version}.",
                )
        if not installed:
            message = f"There is no flow class {name}: no plugin {plugin_name!r} is installed."
        else:
            message = f"There is no flow class {name}: the plugin {plugin_name} has no such class."
        raise PluginError(message, self._suggestion(name))

    def name_of(self, flow_class: type) -> str:
        """Return the name under which `flow_class` is registered (the first, if under several).

        Raises PluginError when no plugin registers it.
        """
        names = [name for name in self.names() if self.flow_classes[name] is flow_class]
        if not names:
            raise PluginError(
                f"No plugin registers {flow_class.__module__}.{flow_class.__qualname__}.",
                "Return it from register_flow_classes.",
            )
        return names[0]

    def digest(self, plugin: str) -> str:
        """Return 16 hex digits that change whenever the plugin's version or code changes.

        The plugin's `.py` and `.yaml` files are looked at anew in each call, so callers that ask
        for many classes keep the answer per plugin. Raises PluginError for an unknown plugin.
        """
        infos = [info for info in self.plugins if info.name == plugin]
        if not infos:
            raise PluginError(f"No plugin {plugin!r} is installed.", self._suggestion(plugin))
        return digest(
            [
                [info.distribution, info.version, source_digest(info.location, info.classes)]
                for info in infos
            ]
        )

    def _suggestion(self, name: str) -> str:
        known = [*self.names(), *(plugin.name for plugin in self.plugins)]
        close = difflib.get_close_matches(name, known, n=1)
        if close:
            return f"Did you mean {close[0]}?"
        return "See what is installed with: engine plugins"
