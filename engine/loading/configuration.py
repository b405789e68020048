"""What a composed manifest says, for people to look at: where each value comes from.

No secret is in it: what comes from the environment is shown as it is written, and a token that
stands in a manifest itself is left out.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from engine.loading.classes import Catalog
from engine.loading.composing import compose
from engine.loading.contents import Contents
from engine.loading.document import Document
from engine.loading.expressions import has_interpolation
from engine.loading.faults import Faults
from engine.loading.load import interpolated
from engine.loading.paths import Path, parse_path, path_text
from engine.loading.schema import schema
from engine.loading.suggestions import Suggestions
from engine.model.composition import Composition
from engine.model.errors import NotFoundError, UsageError
from engine.model.secrets import WRAPPER, is_wrapper

HIDDEN = "(hidden)"


@dataclass(frozen=True)
class Source:
    """Where a value is written: `origin` is `included`, `layer`, `profile …`, or empty."""

    file: str
    line: int
    column: int
    origin: str
    value: Any


@dataclass(frozen=True)
class Explanation:
    """One value: after interpolation, and as it is written by the last of `sources`.

    The sources stand in the order in which they are laid: each overrides those before it, or is
    laid into them where all are mappings.
    """

    path: str
    value: Any
    written: Any
    sources: tuple[Source, ...]


class Configuration:
    """A composed manifest before (`written`) and after (`resolved`) interpolation; JSON data."""

    def __init__(self, document: Document, resolved: Any, sources: Mapping[Path, str]) -> None:
        self._document = document
        self._tokens = set(_tokens(document.value))
        self.written = self._shown(document.value, (), {})
        self.resolved = self._shown(resolved, (), sources)

    def explain(self, path: str) -> Explanation:
        """Return where the value at `path`, such as `users.user0.workers`, comes from.

        Raises UsageError when that is no path, NotFoundError when nothing is written there.
        """
        try:
            steps = parse_path(path)
        except ValueError as error:
            hint = 'Write it as faults do: users.user0.allow[0], users."a.b".'
            raise UsageError(f"{path} is not a path: {error}.", hint) from None
        settings = self._document.settings(steps)
        value, known = self._at(self.resolved, steps)
        if not known:
            raise NotFoundError(f"Nothing sets {path_text(steps)}.", self._instead(steps))
        sources = tuple(
            Source(*setting.place, setting.origin, self._shown(setting.value, steps, {}))
            for setting in settings
        )
        written = self._at(self.written, steps)[0]
        return Explanation(path_text(steps), value, written, sources)

    def _at(self, value: Any, path: Path) -> tuple[Any, bool]:
        for step in path:
            inside = step in value if isinstance(value, dict) else _is_index(step, value)
            if not inside:
                return None, False
            value = value[step]
        return value, True

    def _instead(self, path: Path) -> str:
        default = _default(path)
        if default is not None:
            return f"Its default is {json.dumps(default)}."
        for length, step in enumerate(path):
            around, known = self._at(self.resolved, path[: length + 1])
            if not known:
                around, _ = self._at(self.resolved, path[:length])
                names = list(around) if isinstance(around, dict) else []
                return Suggestions().hint(str(step), names, "All that is set: engine config FILE")
        return ""

    def _shown(self, value: Any, path: Path, sources: Mapping[Path, str]) -> Any:
        """Return `value` with expressions in place of what comes from the environment."""
        if is_wrapper(value):
            return value[WRAPPER]
        if path in sources:
            return sources[path]
        if isinstance(value, dict):
            return {key: self._shown(item, (*path, key), sources) for key, item in value.items()}
        if isinstance(value, list):
            return [self._shown(item, (*path, n), sources) for n, item in enumerate(value)]
        if isinstance(value, str) and any(token in value for token in self._tokens):
            return HIDDEN
        return value


def configuration(
    composition: Composition, catalog: Catalog, environment: Mapping[str, str]
) -> Configuration:
    """Return what `composition` says; what it means, or whether it is complete, is not checked.

    Raises InvalidManifestError when a file cannot be read, or a value not be interpolated.
    """
    faults, suggestions = Faults(), Suggestions()
    composed = compose(composition, Contents(), faults, suggestions)
    known = {**composed.variables, **environment}
    value, sources = interpolated(composed.document, catalog, known, faults, suggestions)
    faults.raise_if_any()
    return Configuration(composed.document, value, sources)


def as_yaml(value: Any) -> str:
    """Return JSON data as YAML, keys in their order."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text.removesuffix("...\n").rstrip("\n")


def _is_index(step: str | int, value: Any) -> bool:
    return isinstance(step, int) and isinstance(value, list) and step < len(value)


def _tokens(value: Any) -> list[str]:
    """Return the tokens that stand in a manifest as they are, rather than as an expression."""
    users = value.get("users") if isinstance(value, dict) else None
    found = [
        user.get("jwt")
        for user in (users if isinstance(users, dict) else {}).values()
        if isinstance(user, dict)
    ]
    return [jwt for jwt in found if isinstance(jwt, str) and jwt and not has_interpolation(jwt)]


def _default(path: Path) -> Any:
    """Return the default of the value at `path`, None when the schema knows none."""
    root = schema()
    part: Any = root
    for step in path:
        if "$ref" in part:
            part = {**root["$defs"][part["$ref"].rpartition("/")[2]], **part}
        below = part.get("properties", {}).get(step, part.get("additionalProperties"))
        if not isinstance(below, dict):
            return None
        part = below
    return part.get("default")
