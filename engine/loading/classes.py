"""What loading needs to know of flow classes: whether they are there, and their subflows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.flows.fitting import Interface
from engine.flows.topology import Pattern, pattern_of
from engine.model.errors import EngineError

SUBFLOWS = "subflows_config"


class Catalog(Protocol):
    """The part of `engine.hooks.Catalog` that loading uses; a described catalog has it, too."""

    @property
    def resolvers(self) -> Mapping[str, Callable[..., Any]]:
        """Return the resolvers of plugins, by name."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all flow classes, sorted."""

    def flow_class(self, name: str) -> Any:
        """Return the class of that name; raises PluginError when it cannot be used."""


class ClassError(Exception):
    """A flow class cannot be used; `message` and `hint` for the fault."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class KnownClass:
    """A flow class that can be used: its defaults, its interface, and its topology's pattern."""

    config: Mapping[str, Any]
    pattern: Pattern | None = None
    interface: Interface = field(default_factory=Interface)

    @property
    def subflows(self) -> Mapping[str, Any]:
        """Return `subflows_config` of the defaults, {} when there is none."""
        subflows = self.config.get(SUBFLOWS)
        return subflows if isinstance(subflows, Mapping) else {}

    @property
    def open_subflows(self) -> bool:
        """Tell whether the class leaves its subflows to the manifest: it declares {} of them."""
        return SUBFLOWS in self.config and not self.subflows


class FlowClasses:
    """Answers from a catalog, each class looked at once: ten thousand flows may be of one class."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, KnownClass | ClassError] = {}

    def known(self, name: str) -> KnownClass:
        """Return what is known of the class.

        Raises ClassError when there is no such class, its plugin is broken, or its defaults are.
        """
        if name not in self._known:
            self._known[name] = self._look_up(name)
        known = self._known[name]
        if isinstance(known, ClassError):
            raise known
        return known

    def _look_up(self, name: str) -> KnownClass | ClassError:
        try:
            flow_class = self._catalog.flow_class(name)
            config = flow_class.get_config()
        except EngineError as error:
            return ClassError(f"{error.message.rstrip('.')}.", error.hint)
        interface = Interface(flow_class.input_schema, flow_class.output_schema)
        return KnownClass(config, pattern_of(flow_class), interface)
