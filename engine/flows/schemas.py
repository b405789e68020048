"""What messages and answers look like: JSON Schemas (2020-12), their short form, and checks.

The short form is a list of keys that have to be there, or a mapping of keys to types: `integer`,
`number`, `string`, `boolean`, `array`, `object`, `any`, with `?` after it when the key may be
missing, or the JSON Schema of the key's value. A mapping that says `type: object`, or has a word
that only a JSON Schema has (`properties`, `$ref`, …), is a JSON Schema.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.exceptions import SchemaError, best_match
from referencing import Registry

from engine.kits.digest import canonical_json
from engine.model.errors import InvalidMessageError, UsageError

JsonSchema = Mapping[str, Any]
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_WORDS = ("properties", "required", "anyOf", "allOf", "oneOf", "additionalProperties")


def expanded(schema: Any) -> JsonSchema:
    """Return the JSON Schema that `schema`, in whichever form, stands for.

    Raises UsageError, naming the place, when it is none, or refers to something outside of it.
    """
    if isinstance(schema, list):
        schema = _of_keys(schema)
    elif not isinstance(schema, Mapping):
        raise UsageError("A schema is a list of keys, or a mapping.")
    elif not _is_json_schema(schema):
        schema = _of_types(schema)
    _check_references(schema)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        place = ".".join(map(str, error.absolute_path))
        raise UsageError(f"This is no JSON Schema: {place}: {_shortened(error.message)}.") from None
    return dict(schema)


@lru_cache(maxsize=1024)
def expanded_once(text: str) -> JsonSchema:
    """Return the same for a schema's JSON text; each is looked at once: it takes its time."""
    return expanded(json.loads(text))


def _is_json_schema(schema: Mapping[str, Any]) -> bool:
    return schema.get("type") == "object" or any(
        word.startswith("$") or (word in _WORDS and not isinstance(schema[word], str))
        for word in schema
    )


def _of_keys(keys: list[Any]) -> JsonSchema:
    if not all(isinstance(key, str) for key in keys):
        raise UsageError("A list of keys holds only text.")
    return {"type": "object", "properties": {key: {} for key in keys}, "required": list(keys)}


def _of_types(types: Mapping[str, Any]) -> JsonSchema:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key, kind in types.items():
        if isinstance(kind, Mapping):
            properties[key] = kind
            required.append(key)
            continue
        name = str(kind).removesuffix("?")
        if name != "any" and name not in _TYPES:
            raise UsageError(
                f"{key}: {kind} is no type.", f"Known are: any, {', '.join(_TYPES)}; with ?."
            )
        properties[key] = {} if name == "any" else {"type": name}
        if not str(kind).endswith("?"):
            required.append(key)
    return {"type": "object", "properties": properties, "required": required}


def _check_references(schema: Any) -> None:
    """Refuse references that lead out of the schema: nothing is ever fetched for one."""
    if isinstance(schema, list):
        for item in schema:
            _check_references(item)
    if not isinstance(schema, Mapping):
        return
    for word, value in schema.items():
        if word in ("$ref", "$dynamicRef") and not str(value).startswith("#"):
            raise UsageError(f"{value} leads out of the schema.", "Refer to #/$defs/<name>.")
        _check_references(value)


def check(schema: JsonSchema, data: Mapping[str, Any], what: str) -> None:
    """Raise InvalidMessageError, naming the path, unless `data` is as `schema` says.

    `what` is the subject of the error's message. Values are never part of it: they may be secret.
    """
    error = best_match(_validator(canonical_json(schema)).iter_errors(data))
    if error is not None:
        path, found = _described(error)
        raise InvalidMessageError(f"{what} does not fit its interface: {found}.", path)


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    return Draft202012Validator(json.loads(schema), registry=Registry())


def _described(error: ValidationError) -> tuple[str, str]:
    """Return the path of what is wrong, and what is wrong with it."""
    path = "data" + "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path
    )
    wanted: Any = error.validator_value
    instance: Any = error.instance
    if error.validator == "required":
        missing = next(key for key in wanted if key not in instance)
        return f"{path}.{missing}", f"{path}.{missing} is missing"
    if error.validator == "type":
        types = wanted if isinstance(wanted, str) else " or ".join(wanted)
        return path, f"{path} is {type_name(instance)} where {types} is needed"
    rule = _shortened(canonical_json(wanted))
    return path, f"{path} breaks the rule {error.validator}: {rule}"


def type_name(value: Any) -> str:
    """Return the JSON type of `value`."""
    if value is None:
        return "null"
    kinds: list[tuple[Any, str]] = [
        *((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")),
        *((Mapping, "object"), (list, "array")),
    ]
    return next((name for kind, name in kinds if isinstance(value, kind)), "unknown")


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:119]}…"
