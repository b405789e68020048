"""The language of `${…}`, as omegaconf defines it; only its grammar is used, nothing of its state.

omegaconf's own resolving looks at the process's environment, keeps resolvers in one global table,
and forgets where a value was written. Here all three come in as arguments.
"""

import re
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse
from omegaconf.grammar_visitor import GrammarVisitor

Reference = Callable[[tuple[str, ...], int], Any]
"""Value of a reference such as `${..a.b}`: its keys, and how many dots stand before them."""
Call = Callable[[str, tuple[Any, ...]], Any]
"""Value of a resolver such as `${oc.env:HOME}`: its name and its arguments."""

_LONGEST = 100_000
_SIMPLE = re.compile(
    r"\$\{(?:oc\.env:((?!(?i:null|true|false|nan|inf)\})[A-Za-z_][A-Za-z0-9_]*)"
    r"|(\.*)([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*))\}"
)
"""What nearly all interpolations are. The grammar needs half a millisecond to read one of them."""


class ExpressionError(Exception):
    """The text has a `${` that cannot be read."""


def has_interpolation(value: Any) -> bool:
    """Tell whether `value` is text with `${` in it."""
    return isinstance(value, str) and "${" in value


def evaluate(text: str, reference: Reference, call: Call) -> Any:
    """Return the value of `text`: of its one `${…}` as it is, or all of them put into the text.

    Raises ExpressionError when it cannot be read; what `reference` and `call` raise passes through.
    """
    if len(text) > _LONGEST:
        raise ExpressionError(f"it has more than {_LONGEST:,} characters.")

    if "\\" not in text:
        pieces = _SIMPLE.split(text)
        if not any("${" in literal or "\n" in literal for literal in pieces[::4]):
            return _evaluate_simple(pieces, reference, call)

    def node(key: Any, _memo: Any) -> Any:
        return reference(tuple(key.parts), key.relative_dots)

    def resolver(name: str, args: tuple[Any, ...], args_str: tuple[str, ...]) -> Any:
        return call(name, args)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of empty arguments: `${f:a,}`
            return GrammarVisitor(node, resolver, None).visit(_tree(text))
    except GrammarParseError as error:
        raise ExpressionError("is each ${ closed by a }?") from error
    except RecursionError as error:
        raise ExpressionError("it is nested too deeply.") from error


def _evaluate_simple(pieces: list[str], reference: Reference, call: Call) -> Any:
    """Return the value of a text that is split by `_SIMPLE`, as `evaluate` would."""
    values: list[Any] = []
    for position in range(0, len(pieces), 4):
        literal, *rest = pieces[position : position + 4]
        if literal:
            values.append(literal)
        if rest and rest[0]:
            values.append(call("oc.env", (rest[0],)))
        elif rest:
            values.append(reference(tuple(rest[2].split(".")), len(rest[1])))
    return values[0] if len(values) == 1 else "".join(map(str, values))


@lru_cache(maxsize=4096)
def _tree(text: str) -> Any:
    return parse(text)


def decode(text: str, reference: Reference, call: Call) -> Any:
    """Return what `text` is as a single value: `3` a number, `[a, b]` a list (`oc.decode`).

    Raises ExpressionError when it cannot be read.
    """
    try:
        tree = parse(text, parser_rule="singleElement", lexer_mode="VALUE_MODE")
        return GrammarVisitor(
            lambda key, _memo: reference(tuple(key.parts), key.relative_dots),
            lambda name, args, args_str: call(name, args),
            None,
        ).visit(tree)
    except (GrammarParseError, RecursionError) as error:
        raise ExpressionError("it is not a single value") from error
