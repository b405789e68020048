"""Puts the values of `${…}` into a document, and tells where that fails.

Two ways of resolving: most values are resolved as they are. In a *late* value (config_overrides,
initial_state, jwt) whatever comes from the environment stays an expression, because it may be a
secret: the worker that needs it resolves it (`engine.model.secrets`). While a late value is put
together, such an expression is a mark in the text, so that it is seen wherever it ends up.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from engine.loading.document import UNKNOWN, Unknown
from engine.loading.expressions import ExpressionError, evaluate, has_interpolation
from engine.loading.paths import Path, path_text
from engine.loading.resolvers import (
    MissingError,
    Resolvers,
    TroubleError,
    environment_expression,
    environment_value,
)
from engine.loading.suggestions import Suggestions
from engine.model.secrets import variables, wrap

_LONGEST = 1_000_000
_LARGEST = 1_000_000
_DEEPEST = 50
_MARK = re.compile("\udc00(\\d+)\udc01")

Problem = tuple[Path, str, str]


def late(path: Path) -> bool:
    """Tell whether the value at `path` is resolved late: what it takes from the environment is."""
    if len(path) < 3 or path[0] != "users":
        return False
    if path[2] == "jwt":
        return len(path) == 3
    if path[2] == "mounts":
        return len(path) > 4 and path[4] in ("config_overrides", "initial_state")
    if path[2] != "flows" or len(path) < 5:
        return False
    if path[4] == "subflows":
        return len(path) > 6 and path[6] == "config_overrides"
    return path[4] == "config_overrides"


class Interpolation:
    """Resolves one document (JSON data).

    While it does, `problems` gets message and hint of each path where something is wrong, `failed`
    the paths that have no value, and `from_environment` those whose value comes from there.
    """

    def __init__(
        self,
        document: Any,
        resolvers: Mapping[str, Callable[..., Any]],
        environment: Mapping[str, str],
        suggestions: Suggestions,
    ) -> None:
        self.problems: dict[Path, tuple[str, str]] = {}
        self.failed: list[Path] = []
        self.from_environment: set[Path] = set()
        self._document = document
        self._environment = environment
        self._suggestions = suggestions
        self._resolvers = Resolvers(resolvers, suggestions)
        self._known: dict[tuple[Path, bool], Any] = {}
        self._active: list[Path] = []
        self._expressions: list[str] = []
        self._sizes: dict[int, tuple[Any, int]] = {}
        self._copied = 0
        self._burst = False
        self._deep = False

    def resolve(self) -> Any:
        """Return the document with every interpolation resolved; Unknown where that failed."""
        return self._walk(self._document, ())

    def _walk(self, value: Any, path: Path) -> Any:
        if isinstance(value, dict):
            return {key: self._walk(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self._walk(item, (*path, index)) for index, item in enumerate(value)]
        if not has_interpolation(value):
            return value
        is_late = late(path)
        try:
            resolved = self._value(path, value, is_late)
            return self._finished(path, resolved) if is_late else resolved
        except TroubleError as trouble:
            self._note(path, trouble)
            self.failed.append(path)
            return UNKNOWN

    def sources(self) -> dict[Path, str]:
        """Return, for each value from the environment, the text that is written there."""
        sources: dict[Path, str] = {}
        for path in self.from_environment:
            written = self._at(path)
            if isinstance(written, str):
                sources[path] = written
        return sources

    def _note(self, path: Path, trouble: TroubleError) -> None:
        if not trouble.told:
            self.problems.setdefault(path, (trouble.message, trouble.hint))
            trouble.told = True

    # --- one value ----------------------------------------------------------------------------

    def _value(self, path: Path, raw: Any, is_late: bool) -> Any:
        """Return what is at `path`, where `raw` is written; mappings and lists are gone into."""
        if isinstance(raw, Unknown):
            raise TroubleError.already_told()
        if isinstance(raw, dict | list):
            return self._container(path, raw, is_late)
        if not has_interpolation(raw):
            return raw
        key = (path, is_late)
        if key not in self._known:
            self._known[key] = self._evaluated(path, raw, is_late)
        if path in self.from_environment:
            self.from_environment.update(self._active)
        known = self._known[key]
        if isinstance(known, TroubleError):
            raise known
        return known

    def _evaluated(self, path: Path, raw: str, is_late: bool) -> Any:
        if path in self._active:
            self._cycle(path)
        if len(self._active) >= _DEEPEST:
            return self._too_deep()
        self._active.append(path)
        try:
            return self._checked(
                evaluate(
                    raw,
                    lambda keys, dots: self._reference(path, keys, dots, is_late),
                    lambda name, args: self._call(path, name, args, is_late),
                )
            )
        except TroubleError as trouble:
            if is_late == late(path):
                self._note(path, trouble)
                return trouble
            return self._own_trouble(path, raw) or trouble
        except ExpressionError as error:
            unreadable = TroubleError(
                f"The ${{ in this text cannot be read: {error}",
                "Write \\${ if no interpolation is meant.",
            )
            self._note(path, unreadable)
            return unreadable
        except RecursionError:
            return self._too_deep()
        finally:
            self._active.pop()

    def _too_deep(self) -> TroubleError:
        """Return what is wrong with a chain of references, told at the first that is too long."""
        self._deep, told = True, self._deep
        if told:
            return TroubleError.already_told()
        return TroubleError(
            f"This leads over more than {_DEEPEST} references.", "Refer to the last value itself."
        )

    def _own_trouble(self, path: Path, raw: str) -> TroubleError | None:
        """Return what is wrong at `path` whoever asks, told there; None when it is the asking."""
        self._active.pop()
        try:
            self._value(path, raw, late(path))
        except TroubleError as trouble:
            return trouble
        finally:
            self._active.append(path)
        return None

    def _container(self, path: Path, raw: Any, is_late: bool) -> Any:
        if path in self._active:
            self._cycle(path)
        self._active.append(path)
        try:
            if isinstance(raw, dict):
                return {k: self._member((*path, k), item, is_late) for k, item in raw.items()}
            return [self._member((*path, i), item, is_late) for i, item in enumerate(raw)]
        finally:
            self._active.pop()

    def _member(self, path: Path, raw: Any, is_late: bool) -> Any:
        """Return a part of a container; a late part stays late when the whole is copied."""
        if not is_late and late(path):
            return self._finished(path, self._value(path, raw, True))
        return self._value(path, raw, is_late)

    def _cycle(self, path: Path) -> None:
        """Tell of a cycle once, at the first of its members that was come to."""
        members = [*self._active[self._active.index(path) :], path]
        way = " -> ".join(path_text(member) for member in members)
        trouble = TroubleError(
            f"This refers to itself: {way}.", "Write the value out in one of them."
        )
        self._note(path, trouble)
        raise trouble

    def _checked(self, value: Any) -> Any:
        """Return what an interpolation gave, unless values referred to twice make it explode."""
        if isinstance(value, str) and len(value) > _LONGEST:
            raise TroubleError("This text grows to more than a million characters.")
        self._copied += self._size(value)
        if self._copied > _LARGEST:
            burst, self._burst = self._burst, True
            if burst:
                raise TroubleError.already_told()
            raise TroubleError("References copy more than a million values.")
        return value

    def _size(self, value: Any) -> int:
        """Return of how many values `value` is made; one that is in it twice counts twice."""
        if not isinstance(value, dict | list):
            return 1
        known = self._sizes.get(id(value))
        if known is None:
            items = value.values() if isinstance(value, dict) else value
            # The value is kept, so that no other gets its id.
            known = self._sizes[id(value)] = (value, 1 + sum(map(self._size, items)))
        return known[1]

    # --- references ---------------------------------------------------------------------------

    def _reference(self, path: Path, keys: tuple[str, ...], dots: int, is_late: bool) -> Any:
        if any(_MARK.search(key) for key in keys):
            raise _not_late()
        target = path[: max(len(path) - dots, 0)] if dots else ()
        current: Any = self._at(target)
        resolved = False  # what came out of an interpolation is not looked into for another
        for key in keys:
            if has_interpolation(current) and not resolved:
                current, resolved = self._value(target, current, is_late), True
            current, part = self._child(current, key, target)
            target = (*target, part)
        value = current if resolved else self._value(target, current, is_late)
        if target in self.from_environment:
            self.from_environment.update(self._active)
        return value

    def _at(self, path: Path) -> Any:
        current = self._document
        for part in path:
            current = current[part]
        return current

    def _child(self, current: Any, key: str, path: Path) -> tuple[Any, str | int]:
        if isinstance(current, Unknown):
            raise TroubleError.already_told()
        if isinstance(current, dict) and key in current:
            return current[key], key
        if isinstance(current, list) and key.isdecimal() and int(key) < len(current):
            return current[int(key)], int(key)
        missing = path_text((*path, key))
        known = [str(name) for name in current] if isinstance(current, dict) else []
        escape = "Write \\${ if no interpolation is meant."
        hint = self._suggestions.hint(key, known, escape)
        raise MissingError(f"This refers to {missing}, and there is no such value.", hint)

    # --- resolvers ----------------------------------------------------------------------------

    def _call(self, path: Path, name: str, arguments: tuple[Any, ...], is_late: bool) -> Any:
        if _marked(arguments):
            raise _not_late()
        if name == "oc.env":
            return self._environment_variable(path, arguments, is_late)
        if name == "oc.select":
            return self._select(path, arguments, is_late)
        if name in ("oc.dict.keys", "oc.dict.values") and arguments:
            value = self._by_key(path, arguments[0], is_late)
            return self._resolvers.call(name, (value,), hide=False)
        hide = path in self.from_environment
        return self._resolvers.call(name, arguments, hide=hide)

    def _environment_variable(self, path: Path, arguments: tuple[Any, ...], is_late: bool) -> Any:
        text = self._at(path)
        if arguments and str(arguments[0]) not in written_variables(text):
            raise TroubleError(
                "The name of an environment variable cannot itself be an interpolation.",
                "Write it out.",
            )
        self.from_environment.update(self._active)
        value = environment_value(arguments, self._environment, self._suggestions)
        if not is_late:
            return value
        self._expressions.append(environment_expression(arguments))
        return f"\udc00{len(self._expressions) - 1}\udc01"

    def _select(self, path: Path, arguments: tuple[Any, ...], is_late: bool) -> Any:
        if not 1 <= len(arguments) <= 2:
            raise TroubleError("oc.select takes a key and perhaps a default.")
        try:
            return self._by_key(path, arguments[0], is_late)
        except MissingError:
            return arguments[1] if len(arguments) == 2 else None

    def _by_key(self, path: Path, key: Any, is_late: bool) -> Any:
        """Return what a resolver's argument such as `.a.b` refers to."""
        text = str(key)
        keys = tuple(re.findall(r"[^.\[\]]+", text))
        return self._reference(path, keys, len(text) - len(text.lstrip(".")), is_late)

    # --- late values --------------------------------------------------------------------------

    def _finished(self, path: Path, value: Any) -> Any:
        """Return a late value with expressions for its marks: bare in a jwt, else wrapped."""
        if isinstance(value, dict):
            return {key: self._finished((*path, key), item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._finished((*path, index), item) for index, item in enumerate(value)]
        if not isinstance(value, str) or not _MARK.search(value):
            return value
        if variables(_MARK.sub("", value)):
            raise TroubleError(
                "A text with ${oc.env:…} cannot also have a \\${oc.env:…} that is not one.",
                "Write two values.",
            )
        text = _MARK.sub(lambda match: self._expressions[int(match.group(1))], value)
        if path[2] == "jwt":
            return text
        if not late(path[:-1]):
            raise TroubleError(
                "Expected a mapping of keys to values, and this gives text.",
                "Use ${oc.env:…} for the values in it.",
            )
        return wrap(text)


def written_variables(text: str) -> set[str]:
    """Return the names of the environment variables that are written out in `text`."""
    return set(re.findall(r"oc\.env:\s*['\"]?([A-Za-z_][A-Za-z0-9_]*)", text))


def _marked(value: Any) -> bool:
    return any(_MARK.search(text) for text in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _not_late() -> TroubleError:
    return TroubleError(
        "What comes from the environment is known only in the worker here: it can be put into "
        "text, but not be used by a resolver, nor as a name or a default.",
        "Write ${oc.env:NAME} or ${oc.env:NAME,default} by itself.",
    )
