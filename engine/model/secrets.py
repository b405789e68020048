"""Values that are known only where they are used.

A string of a manifest's config that takes something from the environment stays an expression, in
the wrapper `{"$env": "Bearer ${oc.env:KEY}"}`: that is what is planned, stored and shown. The
worker that needs the value resolves it, with the environment that it was started with.
"""

import re
from collections.abc import Mapping
from typing import Any

from engine.model.errors import NotFoundError

WRAPPER = "$env"
_REFERENCE = re.compile(r"\$\{oc\.env:\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:,\s*([^}]*))?\}")


def wrap(expression: str) -> dict[str, str]:
    """Return the wrapper of `expression`."""
    return {WRAPPER: expression}


def is_wrapper(value: Any) -> bool:
    """Tell whether `value` is a wrapped expression."""
    return (
        isinstance(value, Mapping) and set(value) == {WRAPPER} and isinstance(value[WRAPPER], str)
    )


def contains_wrapper(value: Any) -> bool:
    """Tell whether a wrapped expression, or what pretends to be one, is anywhere in `value`."""
    if isinstance(value, Mapping):
        return WRAPPER in value or any(contains_wrapper(item) for item in value.values())
    return isinstance(value, list | tuple) and any(contains_wrapper(item) for item in value)


def variables(text: str) -> set[str]:
    """Return the names of the environment variables that `text` refers to."""
    return {match.group(1) for match in _REFERENCE.finditer(text)}


def resolve(value: Any, environment: Mapping[str, str]) -> Any:
    """Return `value` (JSON data) with every wrapper replaced by the text that it stands for.

    Raises NotFoundError when a variable without a default is not set.
    """
    if is_wrapper(value):
        return _REFERENCE.sub(lambda match: _lookup(match, environment), value[WRAPPER])
    if isinstance(value, Mapping):
        return {key: resolve(item, environment) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [resolve(item, environment) for item in value]
    return value


def _lookup(match: "re.Match[str]", environment: Mapping[str, str]) -> str:
    name, default = match.groups()
    if name in environment:
        return environment[name]
    if default is None:
        raise NotFoundError(
            f"The environment variable {name} is not set.",
            "Set it where `engine apply` is run, and apply again.",
        )
    return str(default).strip().strip("'\"")
