"""What users type, parsed: the manifests that are meant, the target and the input of a call."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from engine.model.composition import Composition
from engine.model.errors import UsageError


def compositions(
    files: Sequence[Path] | None,
    layers: Sequence[Path] | None,
    profiles: Sequence[str] | None,
    env_files: Sequence[Path] | None,
) -> tuple[Composition, ...]:
    """Return the manifests `files`, each with its layers, profiles and env files.

    Without files the first layer is the manifest, as in `-f base.yaml -f prod.yaml`. Raises
    UsageError when nothing is named, or when layers would belong to several manifests.
    """
    named, over = list(files or ()), list(layers or ())
    if not named and over:
        named = [over.pop(0)]
    if not named:
        raise UsageError("Missing argument 'FILE'.", "Name a manifest; to write one: engine init")
    if len(named) > 1 and over:
        raise UsageError(
            f"To which of {', '.join(map(str, named))} does the layer {over[0]} belong?",
            "Name one manifest where there are layers.",
        )
    return tuple(
        Composition(
            str(file),
            tuple(map(str, over)),
            tuple(profiles or ()),
            tuple(map(str, env_files or ())),
        )
        for file in named
    )


def target(text: str) -> tuple[str, str]:
    """Return the user and the name in `USER/NAME`; UsageError when it is not of that form."""
    user, slash, name = text.partition("/")
    if not (user and slash and name) or "/" in name:
        raise UsageError(
            f"{text!r} does not say what to call.",
            "Write USER/NAME, NAME being a mount or a flow endpoint of USER.",
        )
    return user, name


def json_object(argument: str | None, stdin: TextIO) -> dict[str, Any]:
    """Return the JSON object that `argument` gives: text, `@FILE`, `-` for `stdin`, None for {}.

    Raises UsageError, with the place of the fault, when it is not a JSON object.
    """
    if argument is None:
        return {}
    source, text = _read(argument, stdin)
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        hint = "" if source != "The input" else "Put it into single quotes for the shell."
        raise UsageError(f"{source} is not JSON: {error.msg} at {place}.", hint) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{source} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError(
            f"{source} is a JSON {_kind(value)}, but a flow takes an object.",
            'Write it like {"number": 1234}.',
        )
    return value


def _read(argument: str, stdin: TextIO) -> tuple[str, str]:
    try:
        if argument == "-":
            return "Standard input", stdin.read()
        if argument.startswith("@"):
            return f"The file {argument[1:]}", Path(argument[1:]).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{argument[1:]} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"The input {argument} is not UTF-8: {error.reason}.") from error
    return "The input", argument


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"there is no {name} in it")


def _kind(value: Any) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
