"""Data transformations: callables that take a message's data and return it reshaped.

Each is called as `transformation(data_dict=data, **context)` and may change `data` itself;
`KeyInterface` hands them a copy. A *nested key* is a path of dict keys joined by dots, `a.b.c`;
lists are values, not levels. *Flattening* turns nested dicts into one level of dotted keys and
back; in passing, empty dicts vanish and literal dots in keys become levels (protocol sheet §10).
"""

import copy
import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

Data = dict[str, Any]

_log = logging.getLogger(__name__)
_MISSING: Any = object()


class DataTransformation:
    """Base of all transformations. `output_key` is where those that make one value put it."""

    def __init__(self, output_key: str | None = None) -> None:
        self.output_key = output_key

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Return `data_dict` transformed; `context` is what some transformations need besides."""
        raise NotImplementedError


class KeyRename(DataTransformation):
    """Moves values to new keys, in the order of the map; old keys that are absent are ignored.

    With `nested_keys` both are paths; dicts are made as needed, and one that is left empty stays.
    """

    def __init__(self, old_key2new_key: Mapping[str, str], nested_keys: bool = True) -> None:
        super().__init__()
        self.old_key2new_key = old_key2new_key
        self.nested_keys = nested_keys

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Rename; TypeError when a new path leads through a value that is not a dict."""
        for old_key, new_key in self.old_key2new_key.items():
            old, new = self._path(old_key), self._path(new_key)
            value = _get(data_dict, old)
            if value is not _MISSING and old != new:
                _set(data_dict, new, value)
                _remove(data_dict, old)
        return data_dict

    def _path(self, key: str) -> list[str]:
        return key.split(".") if self.nested_keys else [key]


class KeyCopy(DataTransformation):
    """Copies values to new keys; when flattening, only leaves are found, never whole dicts."""

    def __init__(self, old_key2new_key: Mapping[str, str], flatten_data_dict: bool = True) -> None:
        super().__init__()
        self.old_key2new_key = old_key2new_key
        self.flatten_data_dict = flatten_data_dict

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Copy; keys that are absent are ignored."""
        data = flatten(data_dict) if self.flatten_data_dict else data_dict
        for old_key, new_key in self.old_key2new_key.items():
            if old_key in data:
                data[new_key] = copy.deepcopy(data[old_key])
        return unflatten(data) if self.flatten_data_dict else data


class KeySet(DataTransformation):
    """Sets keys to fixed values; a scalar set where a dict is replaces the dict."""

    def __init__(self, key2value: Mapping[str, Any], flatten_data_dict: bool = True) -> None:
        super().__init__()
        self.key2value = key2value
        self.flatten_data_dict = flatten_data_dict

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Set; TypeError when a path leads through a value that is not a dict."""
        data = flatten(data_dict) if self.flatten_data_dict else data_dict
        data.update(copy.deepcopy(dict(self.key2value)))
        return unflatten(data) if self.flatten_data_dict else data


class KeySelect(DataTransformation):
    """Keeps only the given keys (with `nested_keys`: paths, whose structure is kept)."""

    def __init__(self, keys_to_select: Sequence[str], nested_keys: bool = True) -> None:
        super().__init__()
        self.keys_to_select = keys_to_select
        self.nested_keys = nested_keys

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Return a new dict; KeyError when a key is absent."""
        selected: Data = {}
        for key in self.keys_to_select:
            path = key.split(".") if self.nested_keys else [key]
            value = _get(data_dict, path)
            if value is _MISSING:
                raise KeyError(f"{key} is not in the data, which has: {', '.join(data_dict)}")
            _set(selected, path, value)
        return selected


class KeyDelete(DataTransformation):
    """Removes keys; when flattening, only leaves are removed, never whole dicts."""

    def __init__(self, keys_to_delete: Sequence[str], flatten_data_dict: bool = True) -> None:
        super().__init__()
        self.keys_to_delete = keys_to_delete
        self.flatten_data_dict = flatten_data_dict

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Remove; keys that are absent are ignored."""
        data = flatten(data_dict) if self.flatten_data_dict else data_dict
        for key in self.keys_to_delete:
            data.pop(key, None)
        return unflatten(data) if self.flatten_data_dict else data


class KeyMatchInput(DataTransformation):
    """Keeps what the input interface of the flow passed as `dst_flow` names (top level only)."""

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Return a new dict; KeyError when a key, or `dst_flow`, is absent."""
        keys = context["dst_flow"].get_interface_description()["input"]
        return {key: data_dict[key] for key in keys}


class UnNesting(DataTransformation):
    """Replaces the dict at `input_key` by what is in it; `output_key` is not used."""

    def __init__(self, input_key: str, output_key: str | None = None) -> None:
        super().__init__(output_key)
        self.input_key = input_key

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Unnest; ValueError when `input_key` is absent."""
        if self.input_key not in data_dict:
            raise ValueError(f"{self.input_key} is not in the data, which has: {list(data_dict)}")
        data_dict.update(data_dict.pop(self.input_key))
        return data_dict


class RegexFirstOccurrenceExtractor(DataTransformation):
    """Puts the first match of `regex` in the text at `input_key` into `output_key`, or None.

    `match_group` is the group to take, 0 for the whole match. `assert_unique` demands that the
    pattern has exactly one group. `regex_fallback`, a pattern or several, is tried in order when
    `regex` does not match. `strip` removes blanks around the result.
    """

    def __init__(
        self,
        regex: str,
        output_key: str,
        assert_unique: bool,
        strip: bool,
        input_key: str,
        regex_fallback: str | Sequence[str] | None = None,
        match_group: int = 0,
    ) -> None:
        super().__init__(output_key)
        self.input_key = input_key
        self.regex = regex
        self.assert_unique = assert_unique
        self.strip = strip
        self.regex_fallback = regex_fallback
        self.match_group = match_group

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Extract; AssertionError when the pattern that matched fails `assert_unique`."""
        fallback = self.regex_fallback or ()
        patterns = [self.regex, *([fallback] if isinstance(fallback, str) else fallback)]
        found = (self._search(pattern, data_dict[self.input_key]) for pattern in patterns)
        text = next((text for text in found if text is not None), None)
        stripped = text.strip() if text is not None and self.strip else text
        data_dict[str(self.output_key)] = stripped
        return data_dict

    def _search(self, pattern: str, text: str) -> str | None:
        match = re.search(pattern, text)
        if match is None:
            return None
        groups = match.re.groups
        if self.assert_unique and groups != 1:
            raise AssertionError(f"The pattern {pattern!r} shall have one group, it has {groups}.")
        return match.group(self.match_group)


class Json2Obj(DataTransformation):
    """Parses the JSON text at `input_key` into `output_key`."""

    def __init__(self, input_key: str, output_key: str | None = None) -> None:
        super().__init__(output_key)
        self.input_key = input_key

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Parse; ValueError when the text is not JSON."""
        # Without an output key the result is under None, which is what aiflows does.
        data_dict[self.output_key] = json.loads(data_dict[self.input_key])  # type: ignore[index]
        return data_dict


class Obj2Json(DataTransformation):
    """Writes the value at `input_key` as JSON text into `output_key`."""

    def __init__(self, input_key: str, output_key: str | None = None) -> None:
        super().__init__(output_key)
        self.input_key = input_key

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Write; TypeError when the value is not JSON data."""
        data_dict[self.output_key] = json.dumps(data_dict[self.input_key])  # type: ignore[index]
        return data_dict


class EndOfInteraction(DataTransformation):
    """Puts into `output_key` whether the text at `input_key` contains a phrase, in any case."""

    def __init__(self, output_key: str, end_of_interaction_string: str, input_key: str) -> None:
        super().__init__(output_key)
        self.end_of_interaction_string = end_of_interaction_string
        self.input_key = input_key

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Look for the phrase."""
        phrase = self.end_of_interaction_string.lower()
        data_dict[str(self.output_key)] = phrase in data_dict[self.input_key].lower()
        return data_dict


class PrintPreviousMessages(DataTransformation):
    """Logs `previous_messages` (dicts with `role`, `content`) of the flow given as `src_flow`."""

    def __init__(self, last_message_only: bool = False) -> None:
        super().__init__()
        self.last_message_only = last_message_only

    def __call__(self, data_dict: Data, **context: Any) -> Data:
        """Log at level INFO; the data is returned as it is."""
        flow = context["src_flow"]
        messages = flow.flow_state["previous_messages"]
        for message in messages[-1:] if self.last_message_only else messages:
            _log.info("[%s] %s: %s", flow.name, message["role"], message["content"])
        return data_dict


def flatten(data: Mapping[str, Any], prefix: str = "") -> Data:
    """Return `data` with nested dicts turned into dotted keys; empty dicts vanish.

    Raises TypeError for a key that is not text.
    """
    flat: Data = {}
    for key, value in data.items():
        if not isinstance(key, str):
            raise TypeError(f"A key of the data is not text: {key!r}")
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def unflatten(data: Mapping[str, Any]) -> Data:
    """Return `data` with dotted keys turned into nested dicts."""
    nested: Data = {}
    for key, value in data.items():
        _set(nested, key.split("."), value)
    return nested


def _get(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return _MISSING
        data = data[key]
    return data


def _set(data: Data, path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise TypeError(f"{'.'.join(path)} cannot be set: the value at {key} is not a dict")
    data[path[-1]] = value


def _remove(data: Data, path: Sequence[str]) -> None:
    parent = _get(data, path[:-1])
    if isinstance(parent, dict):
        parent.pop(path[-1], None)
