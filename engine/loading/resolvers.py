"""What `${name:arguments}` gives: omegaconf's own resolvers that make sense here, and plugins'."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from engine.loading.expressions import ExpressionError, decode
from engine.loading.suggestions import Suggestions
from engine.model.errors import EngineError
from engine.model.secrets import resolve, wrap

_BUILT_IN = ("oc.create", "oc.decode", "oc.dict.keys", "oc.dict.values", "oc.env", "oc.select")


class TroubleError(Exception):
    """A value cannot be resolved. `told` is set once it is noted where the trouble is."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.told = False

    @classmethod
    def already_told(cls) -> "TroubleError":
        """Return one for a value that refers to one that has a fault itself."""
        trouble = cls("This refers to a value that has a fault.")
        trouble.told = True
        return trouble


class MissingError(TroubleError):
    """A reference leads to nothing."""


class Resolvers:
    """Calls resolvers by name."""

    def __init__(
        self, of_plugins: Mapping[str, Callable[..., Any]], suggestions: Suggestions
    ) -> None:
        self._of_plugins = of_plugins
        self._suggestions = suggestions

    def call(self, name: str, arguments: tuple[Any, ...], *, hide: bool) -> Any:
        """Return what the resolver `name` makes of `arguments`.

        With `hide` an error tells nothing of the arguments, which may hold a secret. Raises
        TroubleError for an unknown resolver, one that fails, and a result that is not JSON data.
        """
        if name not in self._of_plugins and name not in _BUILT_IN:
            known = [*_BUILT_IN, *self._of_plugins]
            hint = self._suggestions.hint(name, known, f"Known: {', '.join(sorted(known))}.")
            raise TroubleError(f"There is no resolver {name}.", hint)
        if name not in self._of_plugins and len(arguments) != 1:
            raise TroubleError(f"{name} takes one argument.")
        try:
            if name in self._of_plugins:
                return _json_data(self._of_plugins[name](*arguments), name)
            return _built_in(name, *arguments)
        except TroubleError:
            raise
        except Exception as error:
            detail = "" if hide else f": {' '.join(str(error).split())}"
            raise TroubleError(
                f"The resolver {name} failed: {type(error).__name__}{detail}."
            ) from error


def _built_in(name: str, value: Any) -> Any:
    if name == "oc.decode":
        return None if value is None else _decode(str(value))
    if name == "oc.create":
        return value
    if not isinstance(value, dict):
        raise TroubleError(f"{name} needs the key of a mapping.")
    return list(value) if name == "oc.dict.keys" else list(value.values())


def _decode(text: str) -> Any:
    def refuse(*_: Any) -> Any:
        raise TroubleError("oc.decode does not resolve an interpolation in the text it is given.")

    try:
        return _json_data(decode(text, refuse, refuse), "oc.decode")
    except ExpressionError:
        raise TroubleError("oc.decode was given text that is not a value.") from None


def _json_data(value: Any, resolver: str) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, list | tuple):
        return [_json_data(item, resolver) for item in value]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _json_data(item, resolver) for key, item in value.items()}
    kind = type(value).__name__
    raise TroubleError(
        f"The resolver {resolver} gave a value that is not JSON data, of type {kind}."
    )


def environment_value(
    arguments: tuple[Any, ...], environment: Mapping[str, str], suggestions: Suggestions
) -> Any:
    """Return what `oc.env` gives: the variable's text, or the default as text (null stays null).

    Raises TroubleError when the variable is not set and has no default.
    """
    if not 1 <= len(arguments) <= 2:
        raise TroubleError("oc.env takes the name of a variable and perhaps a default.")
    name = str(arguments[0])
    if name in environment:
        return _utf8(name, environment[name])
    if len(arguments) == 2:
        default = arguments[1]
        return None if default is None else str(default)
    set_it = f"Set it, or give a default: ${{oc.env:{name},default}}."
    close = suggestions.closest(name, environment)
    hint = f"Did you mean {close}? {set_it}" if close else set_it
    raise TroubleError(f"The environment variable {name} is not set.", hint)


def _utf8(name: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise TroubleError(f"The environment variable {name} is not UTF-8 text.") from None
    return value


def environment_expression(arguments: tuple[Any, ...]) -> str:
    """Return `${oc.env:…}` as `engine.model.secrets` resolves it, for the arguments of `oc.env`.

    Raises TroubleError when it would not give the same default.
    """
    name = str(arguments[0])
    if len(arguments) == 1:
        return f"${{oc.env:{name}}}"
    default = arguments[1]
    expression = f"${{oc.env:{name},{default}}}"
    try:
        same = resolve(wrap(expression), {}) == default if isinstance(default, str) else None
    except EngineError:
        same = False
    if default is None or same is False or isinstance(default, dict | list):
        raise TroubleError(
            f"The default of {name} cannot be used here.",
            "Use a default of plain text, without braces, quotes or blanks at its ends.",
        )
    return expression
