"""The host: loads each plugin apart, so that a broken one breaks only itself."""

import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from engine.hooks import specs
from engine.hooks.catalog import Catalog, PluginInfo
from engine.hooks.sources import find_source
from engine.model.errors import PluginError

Resolver = Callable[..., Any]


@dataclass(frozen=True)
class _Loaded:
    """What one entry point gave: `classes` by their name, `resolvers` by theirs."""

    info: PluginInfo
    classes: Mapping[str, type] = field(default_factory=dict)
    resolvers: Mapping[str, Resolver] = field(default_factory=dict)


def load_catalog(flow_type: type, found: Iterable[EntryPoint] | None = None) -> Catalog:
    """Load every plugin and return what they bring.

    `flow_type` is what every flow class must derive from. `found` are the entry points to load, by
    default all of the group `colink_engine` that are installed. Never raises because of a plugin:
    one that fails is in `Catalog.plugins` with its error.
    """
    chosen = sorted(
        entry_points(group=specs.PROJECT) if found is None else found,
        key=lambda point: (point.name, _distribution(point)[0], point.value),
    )
    loaded = [_load(point, flow_type) for point in chosen]
    loaded = _refuse_shared_names(loaded)
    loaded = _refuse_shared_resolvers(loaded)
    return Catalog(
        plugins=tuple(plugin.info for plugin in loaded),
        flow_classes={
            f"{plugin.info.name}.{name}": flow_class
            for plugin in loaded
            for name, flow_class in plugin.classes.items()
        },
        resolvers={
            name: resolver for plugin in loaded for name, resolver in plugin.resolvers.items()
        },
    )


def _load(point: EntryPoint, flow_type: type) -> _Loaded:
    distribution, version = _distribution(point)
    info = PluginInfo(
        name=point.name,
        distribution=distribution,
        version=version,
        location=find_source(point.module),
    )
    try:
        if "." in point.name:
            raise PluginError(f"The plugin's name {point.name!r} may not have a dot in it.")
        hook = _register(point)
        classes = _checked_classes(_results(hook.register_flow_classes), flow_type)
        resolvers = _checked_resolvers(hook.register_resolvers())
    except (Exception, SystemExit) as error:
        return _Loaded(replace(info, error=_one_line(error), traceback=traceback.format_exc()))
    return _Loaded(replace(info, classes=tuple(sorted(classes))), classes, resolvers)


def _register(point: EntryPoint) -> pluggy.HookRelay:
    """Import the plugin into a manager of its own; an unknown hook in it is an error."""
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    plugin = point.load()
    manager.register(plugin, name=point.name)
    manager.check_pending()
    if not manager.get_hookcallers(plugin):
        raise PluginError(
            f"{point.value} implements no hook.",
            "Is @hookimpl missing above register_flow_classes?",
        )
    return manager.hook


def _results(hook: Callable[[], list[Iterable[Any]]]) -> list[Any]:
    return [item for result in hook() for item in result]


def _checked_classes(registered: Iterable[Any], flow_type: type) -> dict[str, type]:
    classes: dict[str, type] = {}
    for flow_class in registered:
        if not isinstance(flow_class, type) or not issubclass(flow_class, flow_type):
            raise PluginError(
                f"register_flow_classes returned {flow_class!r}, which is not a flow class.",
                "Derive it from engine.flows.AtomicFlow or CompositeFlow.",
            )
        if classes.setdefault(flow_class.__name__, flow_class) is not flow_class:
            raise PluginError(f"Two flow classes are called {flow_class.__name__}.")
        flow_class.get_config()  # type: ignore[attr-defined] # finds broken default configs now
    return classes


def _checked_resolvers(results: Iterable[Mapping[str, Any]]) -> dict[str, Resolver]:
    resolvers: dict[str, Resolver] = {}
    for name, resolver in (item for result in results for item in result.items()):
        if not isinstance(name, str) or name.startswith("oc.") or not callable(resolver):
            raise PluginError(
                f"register_resolvers returned {name!r}: {resolver!r}.",
                "Names must be text that does not begin with `oc.`, values functions.",
            )
        resolvers[name] = resolver
    return resolvers


def _refuse_shared_names(loaded: Iterable[_Loaded]) -> list[_Loaded]:
    """Break all plugins that share a name: which of them a manifest means cannot be known."""
    plugins = list(loaded)
    counts = Counter(plugin.info.name for plugin in plugins)

    def checked(plugin: _Loaded) -> _Loaded:
        name = plugin.info.name
        if counts[name] == 1:
            return plugin
        owners = sorted({other.info.distribution for other in plugins if other.info.name == name})
        return _broken(plugin, f"Several plugins are called {name}; of: {', '.join(owners)}.")

    return [checked(plugin) for plugin in plugins]


def _refuse_shared_resolvers(loaded: Iterable[_Loaded]) -> list[_Loaded]:
    """Break plugins whose resolver an earlier one has, by order of their names."""
    owners: dict[str, str] = {}
    checked: list[_Loaded] = []
    for plugin in loaded:
        taken = next((name for name in plugin.resolvers if name in owners), None)
        if taken is None:
            owners.update(dict.fromkeys(plugin.resolvers, plugin.info.name))
            checked.append(plugin)
        else:
            error = f"The resolver {taken} is registered by the plugin {owners[taken]} already."
            checked.append(_broken(plugin, error))
    return checked


def _broken(plugin: _Loaded, error: str) -> _Loaded:
    return _Loaded(replace(plugin.info, classes=(), error=error))


def _distribution(point: EntryPoint) -> tuple[str, str]:
    """Return name and version of the distribution that has the entry point, "" if unknown."""
    if point.dist is None:
        return "", ""
    return point.dist.metadata["Name"], point.dist.version


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, PluginError) else f"{type(error).__name__}: {text}"
