"""The state of an instance as JSON data, and back (never pickle).

JSON values stand for themselves. Everything else becomes an object with the key `$type`; a plain
dict that has that key, or keys that are not text, becomes such an object too, so that what comes
back always equals what went in. Decoding imports nothing and runs no code of the classes it fills.
"""

import base64
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any

from engine.kits.digest import canonical_json
from engine.model.errors import UsageError
from engine.model.message import FlowMessage

TAG = "$type"
_VALUE = "value"
_LARGEST = 2**63
_HINT = (
    "A flow's state holds JSON data, messages, bytes, dates and times, tuples, sets, "
    "and dataclasses of the flow's own package."
)


def encode_state(state: dict[str, Any], flow_class: type | None = None) -> Any:
    """Return `state` as JSON data.

    `flow_class` is whose state it is: dataclasses of its top-level package are accepted (None: of
    any package). Raises UsageError naming the path of a value that cannot be encoded.
    """
    try:
        return _Encoder(flow_class).encode(state, "flow_state")
    except RecursionError:
        raise UsageError("flow_state is nested too deeply, or contains itself.", _HINT) from None


def decode_state(data: Any, flow_class: type) -> dict[str, Any]:
    """Return the state that `data` (JSON data of `encode_state`) holds.

    Raises UsageError when it is no state, or names a class that is not a dataclass of the flow
    class's own top-level package or is not loaded.
    """
    try:
        state = _Decoder(flow_class).decode(data)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise UsageError(f"This is not the state of a flow: {error!r}.") from error
    if not isinstance(state, dict):
        raise UsageError("This is not the state of a flow: an object was expected.")
    return state


def _tagged(tag: str, value: Any) -> dict[str, Any]:
    return {TAG: tag, _VALUE: value}


def _top_level(flow_class: type) -> str:
    return flow_class.__module__.partition(".")[0]


class _Encoder:
    def __init__(self, flow_class: type | None) -> None:
        self._package = None if flow_class is None else _top_level(flow_class)
        self._encoders: dict[type, Callable[[Any, str], Any]] = {
            int: self._int,
            float: self._float,
            list: self._list,
            dict: self._dict,
            tuple: lambda value, path: _tagged("tuple", self._list(value, path)),
            set: lambda value, path: _tagged("set", self._set(value, path)),
            frozenset: lambda value, path: _tagged("frozenset", self._set(value, path)),
            bytes: lambda value, path: _tagged("bytes", base64.b64encode(value).decode()),
            datetime: lambda value, path: _tagged("datetime", value.isoformat()),
            date: lambda value, path: _tagged("date", value.isoformat()),
            FlowMessage: lambda value, path: _tagged("message", self.encode(value.to_dict(), path)),
        }

    def encode(self, value: Any, path: str) -> Any:
        # By exact type: a subclass of dict or str would come back as something else.
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        encoder = self._encoders.get(kind)
        if encoder is not None:
            return encoder(value, path)
        if dataclasses.is_dataclass(kind):
            return self._dataclass(value, path)
        raise UsageError(f"{path} cannot be stored: it is a {kind.__qualname__}.", _HINT)

    def _int(self, value: int, path: str) -> Any:
        return value if -_LARGEST <= value < _LARGEST else _tagged("int", str(value))

    def _float(self, value: float, path: str) -> Any:
        return value if math.isfinite(value) else _tagged("float", str(value))

    def _list(self, value: Any, path: str) -> list[Any]:
        return [self.encode(item, f"{path}[{index}]") for index, item in enumerate(value)]

    def _set(self, value: Any, path: str) -> list[Any]:
        # Sorted, so that equal states are equal texts.
        return sorted((self.encode(item, f"{path}{{…}}") for item in value), key=canonical_json)

    def _dict(self, value: dict[Any, Any], path: str) -> Any:
        if all(type(key) is str for key in value):
            encoded = {key: self.encode(item, f"{path}[{key!r}]") for key, item in value.items()}
            return _tagged("dict", encoded) if TAG in value else encoded
        pairs = [
            [self.encode(key, f"{path}, key {key!r}"), self.encode(item, f"{path}[{key!r}]")]
            for key, item in value.items()
        ]
        return _tagged("map", pairs)

    def _dataclass(self, value: Any, path: str) -> Any:
        kind = type(value)
        name = f"{kind.__module__}:{kind.__qualname__}"
        foreign = self._package is not None and _top_level(kind) != self._package
        if foreign or "<locals>" in name:
            raise UsageError(f"{path} cannot be stored: it is a {name}.", _HINT)
        fields = {
            field.name: self.encode(getattr(value, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
        return {**_tagged("dataclass", fields), "class": name}


class _Decoder:
    def __init__(self, flow_class: type) -> None:
        self._package = _top_level(flow_class)
        self._decoders: dict[str, Callable[[Any], Any]] = {
            "int": int,
            "float": float,
            "tuple": lambda value: tuple(self.decode(item) for item in value),
            "set": lambda value: {self.decode(item) for item in value},
            "frozenset": lambda value: frozenset(self.decode(item) for item in value),
            "dict": self._dict,
            "map": lambda value: {self.decode(key): self.decode(item) for key, item in value},
            "bytes": lambda value: base64.b64decode(value, validate=True),
            "datetime": datetime.fromisoformat,
            "date": date.fromisoformat,
            "message": lambda value: FlowMessage.from_dict(self.decode(value)),
        }

    def decode(self, data: Any) -> Any:
        if isinstance(data, list):
            return [self.decode(item) for item in data]
        if not isinstance(data, dict):
            return data
        if TAG not in data:
            return self._dict(data)
        if data[TAG] == "dataclass":
            return self._dataclass(str(data["class"]), data[_VALUE])
        return self._decoders[data[TAG]](data[_VALUE])

    def _dict(self, value: Mapping[str, Any]) -> dict[str, Any]:
        return {key: self.decode(item) for key, item in value.items()}

    def _dataclass(self, name: str, fields: Mapping[str, Any]) -> Any:
        kind = self._find(name)
        value = object.__new__(kind)
        for field in dataclasses.fields(kind):
            if field.name in fields:
                content = self.decode(fields[field.name])
            elif field.default is not dataclasses.MISSING:
                content = field.default
            elif field.default_factory is not dataclasses.MISSING:
                content = field.default_factory()
            else:
                raise UsageError(f"The state lacks {field.name} of a {name}, which has no default.")
            object.__setattr__(value, field.name, content)
        return value

    def _find(self, name: str) -> Any:
        module, _, qualified_name = name.partition(":")
        if module.partition(".")[0] != self._package:
            raise UsageError(
                f"The state names {name}, which is not of the package {self._package}."
            )
        found: Any = sys.modules.get(module)
        for part in qualified_name.split("."):
            # Only what classes themselves hold: no attribute of an instance is ever computed.
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        if not isinstance(found, type) or not dataclasses.is_dataclass(found):
            raise UsageError(f"The state names {name}, which is not a dataclass that is loaded.")
        return found
