"""A catalog as data, for processes that need to know flow classes but must not run their code.

`python -m engine.flows.catalog` imports the plugins and prints the description as a JSON document;
`DescribedCatalog` then answers, in another process, what a `Catalog` would.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from engine.flows.config import Config, merge
from engine.flows.flow import Flow
from engine.flows.topology import Pattern, pattern_of
from engine.hooks import Catalog, PluginInfo, load_catalog
from engine.kits.digest import digest


@dataclass(frozen=True)
class DescribedFlow:
    """What is known of a flow class without its code.

    That is its name, description and default config, its schemas, and the pattern of its topology
    if it has one.
    """

    name: str
    description: str
    config: Mapping[str, Any] = field(repr=False)
    pattern: Pattern | None = None
    input_schema: Mapping[str, Any] | None = field(default=None, repr=False)
    output_schema: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def from_json(cls, name: str, described: Mapping[str, Any]) -> "DescribedFlow":
        """Return the flow class that is described so."""
        pattern = described.get("pattern")
        return cls(
            name=name,
            description=described["description"],
            config=described["config"],
            pattern=None if pattern is None else Pattern(pattern),
            input_schema=described.get("input_schema"),
            output_schema=described.get("output_schema"),
        )

    def get_config(self, **overrides: Any) -> Config:
        """Return the class's default config with `overrides` laid over it."""
        return merge(self.config, overrides)


def describe(catalog: Catalog) -> dict[str, Any]:
    """Return `catalog` as JSON data: plugins, their digests, classes with their default configs."""
    return {
        "plugins": [asdict(plugin) for plugin in catalog.plugins],
        "digests": {plugin.name: catalog.digest(plugin.name) for plugin in catalog.plugins},
        "resolvers": sorted(catalog.resolvers),
        "classes": {name: _describe_class(catalog.flow_class(name)) for name in catalog.names()},
    }


def _describe_class(flow_class: Any) -> dict[str, Any]:
    return {
        "config": flow_class.get_config(),
        "description": (flow_class.__doc__ or "").strip(),
        "pattern": pattern_of(flow_class),
        "input_schema": flow_class.input_schema,
        "output_schema": flow_class.output_schema,
    }


@dataclass(frozen=True)
class DescribedCatalog(Catalog):
    """A `Catalog` made from a description; its flow classes are `DescribedFlow`s."""

    digests: Mapping[str, str] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def from_json(
        cls,
        described: Mapping[str, Any],
        resolvers: Mapping[str, Callable[..., Any]] | None = None,
    ) -> "DescribedCatalog":
        """Return the catalog that `described` (the result of `describe`) tells of.

        `resolvers` cannot be described; whoever needs them hands them in.
        """
        return cls(
            plugins=tuple(
                PluginInfo(**(fields | {"classes": tuple(fields["classes"])}))
                for fields in described.get("plugins", ())
            ),
            flow_classes={
                name: cast(type, DescribedFlow.from_json(name, fields))
                for name, fields in described.get("classes", {}).items()
            },
            resolvers=resolvers or {},
            digests=dict(described.get("digests", {})),
            description=described,
        )

    @property
    def fingerprint(self) -> str:
        """Return a digest of all that is described."""
        return digest(self.description)

    def config_of(self, name: str) -> Config:
        """Return the default config of the class called `<plugin>.<ClassName>`; PluginError."""
        flow_class: Any = self.flow_class(name)
        config: Config = flow_class.get_config()
        return config

    def digest(self, plugin: str) -> str:
        """Return the digest that the plugin had when it was described; "" for an unknown one."""
        return self.digests.get(plugin, "")


def main() -> None:
    """Print the description of what is installed. What plugins print meanwhile goes to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        described = describe(load_catalog(Flow))
    json.dump(described, sys.stdout)


if __name__ == "__main__":
    main()
