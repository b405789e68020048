"""All hooks of a plugin, on one page. `docs/plugins.md` shows how to write one.

A plugin is a module, or an object in one, that a distribution names by an entry point in the group
`colink_engine`. The entry point's name is the plugin's name. Hooks return data; they are called
once, when the plugin is loaded, and no message ever passes through them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pluggy

PROJECT = "colink_engine"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_flow_classes() -> Iterable[type]:  # type: ignore[empty-body]
    """Return the flow classes that can be served, each under `<plugin>.<ClassName>`.

    They derive from `engine.flows.AtomicFlow` or `CompositeFlow`. Two of one plugin may not have
    the same name.
    """


@hookspec
def register_resolvers() -> Mapping[str, Callable[..., Any]]:  # type: ignore[empty-body]
    """Return omegaconf resolvers for manifests, by name: `{"double": f}` makes `${double:x}` work.

    Names that begin with `oc.` are omegaconf's own and may not be taken.
    """
