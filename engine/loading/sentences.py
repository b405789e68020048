"""What the JSON Schema finds wrong, in words that tell what to do."""

from collections.abc import Mapping
from typing import Any

from engine.loading.document import Document, Unknown
from engine.loading.faults import Faults
from engine.loading.paths import Path
from engine.loading.schema import validator
from engine.loading.suggestions import Suggestions, listing

_EXPECTED = {
    "object": "a mapping of keys to values",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}
_VERSION = "apiVersion"


class SchemaCheck:
    """Checks one document's resolved value against the schema.

    `sources` has the text as written of each value that comes from the environment: such a value is
    not shown, because it may be a secret.
    """

    def __init__(
        self,
        document: Document,
        faults: Faults,
        suggestions: Suggestions,
        sources: Mapping[Path, str],
    ) -> None:
        self._document = document
        self._faults = faults
        self._suggestions = suggestions
        self._sources = sources

    def check(self, value: Any) -> None:
        """Note all that the schema does not allow in `value`."""
        if isinstance(value, dict) and self._other_version(value):
            return
        missing: set[Path] = set()
        for error in validator().iter_errors(value):
            path: Path = tuple(error.absolute_path)
            if self._faults.spoiled(path):
                continue
            if error.validator == "required":
                if path not in missing:
                    missing.add(path)
                    self._missing(path, error)
            elif error.validator == "additionalProperties":
                self._unknown_keys(path, error)
            elif "propertyNames" in error.absolute_schema_path:
                self._bad_name(path, error)
            else:
                self._bad_value(path, error)

    def _other_version(self, value: dict[str, Any]) -> bool:
        """Tell, and note, that the file is of another version: then the rest says nothing."""
        version = value.get(_VERSION)
        if not isinstance(version, str) or version == "engine/v1":
            return False
        message = f"{self._shown((_VERSION,), version)} is not a version that this engine reads."
        self._add((_VERSION,), message, f"Write {_VERSION}: engine/v1.")
        return True

    def _add(self, path: Path, message: str, hint: str, *, at_key: bool = False) -> None:
        self._faults.add(self._document.place(path, key=at_key), path, message, hint)

    def _shown(self, path: Path, value: Any) -> str:
        if path in self._sources:
            return self._sources[path]
        text = str(value)
        return text if len(text) <= 80 else f"{text[:77]}..."

    # --- keys ---------------------------------------------------------------------------------

    def _unknown_keys(self, path: Path, error: Any) -> None:
        known = error.schema["properties"]
        for key in error.instance:
            if key not in known:
                hint = self._suggestions.hint(key, known, f"Known here: {listing(known)}.")
                self._add((*path, key), "There is no such key.", hint, at_key=True)
        self._faults.doubt(path)

    def _missing(self, path: Path, error: Any) -> None:
        instance = error.instance
        properties = error.schema["properties"]
        mistyped = {
            self._suggestions.closest(key, properties) for key in instance if key not in properties
        }
        for name in error.validator_value:
            if name not in instance and name not in mistyped:
                example = f"Write {name}: {_example(name, properties[name])}"
                self._add(path, f"{name} is missing.", example, at_key=True)

    def _bad_name(self, path: Path, error: Any) -> None:
        name = str(error.instance)
        message = str(error.schema.get("patternErrorMessage", ""))
        if not self._faults.told(self._document.key_place((*path, name)), (*path, name)):
            self._add((*path, name), message, "Choose another name.", at_key=True)

    # --- values -------------------------------------------------------------------------------

    def _bad_value(self, path: Path, error: Any) -> None:
        self._faults.spoil(path)
        if error.validator == "not":
            self._not_beside(path)
        elif error.validator == "type":
            self._add(path, *self._wrong_type(path, error))
        elif error.validator == "pattern":
            self._add(path, *self._wrong_text(path, error))
        elif error.validator == "dependentRequired":
            self._add(path, "cert and key need each other.", "Give both.", at_key=True)
        elif error.validator in ("minimum", "maximum"):
            word = "least" if error.validator == "minimum" else "most"
            message = f"{self._shown(path, error.instance)} is not possible here."
            self._add(path, message, f"Write a number of at {word} {error.validator_value}.")
        else:
            self._add(path, "This text is empty.", "Write something, or remove the key.")

    def _not_beside(self, path: Path) -> None:
        if path[-1] == "jwt_file":
            message = "A user has one token, and jwt gives it already."
            self._add(path, message, "Keep one of jwt and jwt_file.", at_key=True)
            return
        message = f"{path[1]} is somebody else's user (it has a user_id), and is only referred to."
        self._add(path, message, f"Remove {path[-1]}, or the user_id.", at_key=True)

    def _wrong_text(self, path: Path, error: Any) -> tuple[str, str]:
        rule = str(error.schema["patternErrorMessage"])
        value = str(error.instance)
        message = f"{self._shown(path, value)} does not fit."
        if path == ("core",) and self._suggestions.closest(value, ["embedded"]):
            return message, "Did you mean embedded?"
        return f"{message} {rule}", ""

    def _wrong_type(self, path: Path, error: Any) -> tuple[str, str]:
        wanted = error.validator_value
        kinds: list[str] = [wanted] if isinstance(wanted, str) else wanted
        expected = " or ".join(_EXPECTED[kind] for kind in kinds)
        value = error.instance
        if value is None:
            return self._nothing(path, kinds, expected, error.schema.get("required", []))
        found = f"{_kind(value)}" + self._detail(path, value)
        return f"Expected {expected}, found {found}.", self._remedy(path, kinds, value)

    def _nothing(
        self, path: Path, kinds: list[str], expected: str, required: list[str]
    ) -> tuple[str, str]:
        if not path:
            return "There is nothing in this file.", "Write a manifest to begin with: engine init"
        if kinds == ["object"]:
            message = "Nothing is written below this key."
            if required:
                return message, f"It needs at least: {', '.join(required)}."
            return message, "Write {} after it if nothing is meant, or remove it."
        if "array" in kinds:
            return "Nothing is written below this key.", "Write [] after it if nothing is meant."
        return f"Nothing is written here; expected {expected}.", "Write it, or remove the key."

    def _detail(self, path: Path, value: Any) -> str:
        if isinstance(value, dict | list | Unknown):
            return ""
        if path in self._sources:
            return f" of {self._sources[path]}"
        shown = str(value).lower() if isinstance(value, bool) else self._shown(path, value)
        return f" {shown}"

    def _remedy(self, path: Path, kinds: list[str], value: Any) -> str:
        if isinstance(value, str) and path in self._sources:
            return f"To read a value out of text: ${{oc.decode:{self._sources[path]}}}."
        if isinstance(value, str) and value.lower() in ("true", "false") and "boolean" in kinds:
            return f"Write {value.lower()} without quotes."
        if isinstance(value, str) and value.isdecimal() and "integer" in kinds:
            return f"Write {value} without quotes."
        if isinstance(value, bool | int | float) and "string" in kinds:
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            return f'Put it in quotes: "{shown}".'
        if isinstance(value, str | int | float) and "array" in kinds:
            return f"Write [{self._shown(path, value)}]."
        return ""


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "the boolean"
    if isinstance(value, int | float):
        return "the number"
    if isinstance(value, str):
        return "the text"
    return "a list" if isinstance(value, list) else "a mapping"


def _example(name: str, schema: Any) -> str:
    examples = {
        _VERSION: "engine/v1",
        "flow_class_name": "<plugin>.<Class>; `engine flows` lists them.",
        "users": "{user0: {}} at least.",
        "address": "https://<host>:<port>",
        "flow_endpoint": "<the endpoint of which this is an instance>",
    }
    return examples.get(name, "…")
