"""Conditions on a message's data, as data: what a branch is taken for, when a loop ends.

`{key: a.b, equals: 3}`, with one or more of the tests below, all of which must hold; or of
conditions `{any: […]}`, `{all: […]}`, `{not: …}`. Nothing in them is ever evaluated as code. A
value that is not there fulfils only `exists: false`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from engine.kits.digest import canonical_json

Data = Mapping[str, Any]
MISSING: Any = object()
"""Stands for a value that is not there."""


class Problem(NamedTuple):
    """Something wrong in a configuration, at `path` in it."""

    path: tuple[str | int, ...]
    message: str
    hint: str = ""

    def below(self, *path: str | int) -> "Problem":
        """Return the problem with its path continued from `path`."""
        return self._replace(path=(*path, *self.path))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _equals(value: Any, wanted: Any) -> bool:
    if _is_number(value) and _is_number(wanted):
        return bool(value == wanted)
    # Not by ==, for which True is 1.
    return value is not MISSING and canonical_json(value) == canonical_json(wanted)


def _contains(value: Any, wanted: Any) -> bool:
    if isinstance(value, list):
        return any(_equals(item, wanted) for item in value)
    return isinstance(value, str | dict) and isinstance(wanted, str) and wanted in value


_TESTS: dict[str, Callable[[Any, Any], bool]] = {
    "equals": _equals,
    "contains": _contains,
    "exists": lambda value, wanted: (value is not MISSING) is wanted,
    "greater_than": lambda value, limit: _is_number(value) and value > limit,
    "less_than": lambda value, limit: _is_number(value) and value < limit,
}
_GROUPS = ("any", "all")
_KNOWN = f"key with {', '.join(_TESTS)}; any, all, not"


def look_up(data: Any, key: str) -> Any:
    """Return the value at `key`, a path such as `a.b`, or MISSING."""
    for part in key.split("."):
        if not isinstance(data, Mapping) or part not in data:
            return MISSING
        data = data[part]
    return data


def holds(condition: Mapping[str, Any], data: Data) -> bool:
    """Tell whether `data` fulfils `condition`, which has no `problems`."""
    if "any" in condition:
        return any(holds(one, data) for one in condition["any"])
    if "all" in condition:
        return all(holds(one, data) for one in condition["all"])
    if "not" in condition:
        return not holds(condition["not"], data)
    value = look_up(data, condition["key"])
    return all(_TESTS[name](value, wanted) for name, wanted in condition.items() if name != "key")


def problems(condition: Any) -> Iterator[Problem]:
    """Yield what is wrong with `condition`; nothing when it can be used."""
    if not isinstance(condition, Mapping):
        yield Problem((), "A condition is a mapping.", "Such as {key: done, equals: true}.")
        return
    groups = [name for name in (*_GROUPS, "not") if name in condition]
    if groups and len(condition) > 1:
        yield Problem((), f"Nothing may stand beside {groups[0]}.", "Use all: […] for both.")
    elif "not" in condition:
        yield from (found.below("not") for found in problems(condition["not"]))
    elif groups:
        yield from _group_problems(groups[0], condition[groups[0]])
    else:
        yield from _test_problems(condition)


def _group_problems(name: str, conditions: Any) -> Iterator[Problem]:
    if not isinstance(conditions, list) or not conditions:
        yield Problem((name,), f"{name} needs a list of conditions.")
        return
    for index, one in enumerate(conditions):
        yield from (found.below(name, index) for found in problems(one))


def _test_problems(condition: Mapping[str, Any]) -> Iterator[Problem]:
    tests = [name for name in condition if name != "key"]
    if not isinstance(condition.get("key"), str):
        yield Problem((), "A condition needs a key.", f"Known are: {_KNOWN}.")
    elif not tests:
        yield Problem((), "This condition tests nothing.", f"Known are: {_KNOWN}.")
    for name in tests:
        wanted = condition[name]
        if name not in _TESTS:
            yield Problem((name,), f"There is no test {name}.", f"Known are: {_KNOWN}.")
        elif name == "exists" and not isinstance(wanted, bool):
            yield Problem((name,), "exists is true or false.")
        elif name in ("greater_than", "less_than") and not _is_number(wanted):
            yield Problem((name,), f"{name} needs a number.")
