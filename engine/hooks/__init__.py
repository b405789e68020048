"""The hook system: what plugin authors mark (`hookimpl`), and the host that loads plugins."""

from engine.hooks.catalog import Catalog, PluginInfo
from engine.hooks.host import load_catalog
from engine.hooks.specs import PROJECT, hookimpl, hookspec

__all__ = ["PROJECT", "Catalog", "PluginInfo", "hookimpl", "hookspec", "load_catalog"]
