"""The manifest's JSON Schema: where it is, and the form of it that checks fast."""

import copy
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

_NAME = "manifest.v1.schema.json"
JsonSchema = dict[str, Any]


def schema() -> JsonSchema:
    """Return the JSON Schema (2020-12) of a manifest, as it is shipped."""
    return copy.deepcopy(_loaded())


@lru_cache(maxsize=1)
def validator() -> Any:
    """Return the validator of manifests, as `jsonschema` makes them.

    It is for a manifest that is put together: what an editor cannot ask of a file that includes
    others is required. Its schema has each `$ref` replaced by what it refers to: following them for
    every flow takes more time than all the rest.
    """
    loaded = copy.deepcopy(_loaded())
    del loaded["if"]
    loaded |= loaded.pop("else")
    strict: Any = extend(Draft202012Validator, {"pattern": _whole_text_matches})  # type: ignore[no-untyped-call]
    return strict(_inlined(loaded, loaded["$defs"]))


def _whole_text_matches(
    _validator: Any, pattern: str, instance: Any, _schema: Any
) -> Iterator[ValidationError]:
    """Check `pattern`; unlike jsonschema's own, `$` does not match before a last line break."""
    if isinstance(instance, str) and not re.fullmatch(pattern, instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _inlined(part: Any, definitions: JsonSchema) -> Any:
    if isinstance(part, list):
        return [_inlined(item, definitions) for item in part]
    if not isinstance(part, dict):
        return part
    rest = {
        key: _inlined(value, definitions)
        for key, value in part.items()
        if key not in ("$ref", "$defs")
    }
    if "$ref" not in part:
        return rest
    target = definitions[part["$ref"].removeprefix("#/$defs/")]
    return {**_inlined(target, definitions), **rest}


@lru_cache(maxsize=1)
def _loaded() -> JsonSchema:
    return cast(JsonSchema, json.loads(_file_text()))


def _file_text() -> str:
    """Return the schema file's text: of the installed package, or of the source tree."""
    packaged = files("engine").joinpath("schemas", _NAME)
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "schemas" / _NAME).read_text(encoding="utf-8")
