"""What loading needs to know of flow classes: whether they are there, and their subflows."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from engine.model.errors import EngineError


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


class FlowClasses:
    """Answers from a catalog, each class looked at once: ten thousand flows may be of one class."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._known: dict[str, Mapping[str, Any] | ClassError] = {}

    def subflows(self, name: str) -> Mapping[str, Any]:
        """Return `subflows_config` of the class's defaults, {} when it has none.

        Raises ClassError when there is no such class, its plugin is broken, or its defaults are.
        """
        if name not in self._known:
            self._known[name] = self._look_up(name)
        known = self._known[name]
        if isinstance(known, ClassError):
            raise known
        return known

    def _look_up(self, name: str) -> Mapping[str, Any] | ClassError:
        try:
            subflows = self._catalog.flow_class(name).get_config().get("subflows_config")
        except EngineError as error:
            return ClassError(f"{error.message.rstrip('.')}.", error.hint)
        return subflows if isinstance(subflows, Mapping) else {}
