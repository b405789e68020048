"""Encodings of what entries hold, and of the paths that name them (§4.1, §4.3, §9.1)."""

import json
from dataclasses import dataclass
from typing import Any

INTEGER_SIZE = 32


def json_bytes(value: Any) -> bytes:
    """Return `value` (JSON data) as coflows writes it: Python's default separators, ASCII."""
    return json.dumps(value).encode()


def json_value(payload: bytes) -> Any:
    """Return the value that JSON `payload` holds; ValueError when it is not JSON."""
    try:
        return json.loads(payload)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def integer_bytes(value: int) -> bytes:
    """Return an integer (or bool) as 32 bytes, little-endian, signed."""
    return int(value).to_bytes(INTEGER_SIZE, "little", signed=True)


def integer_value(payload: bytes) -> int:
    """Return the little-endian signed integer of any length; no bytes give 0."""
    return int.from_bytes(payload, "little", signed=True)


def is_set(payload: bytes | None) -> bool:
    """Tell whether a flag entry (first byte 0 or not, or absent) is set."""
    return payload is not None and payload[:1] > b"\x00"


def nanoseconds_bytes(value: int) -> bytes:
    """Return a timestamp as 8 bytes, little-endian, signed."""
    return value.to_bytes(8, "little", signed=True)


@dataclass(frozen=True)
class KeyPath:
    """One version of an entry: `owner::key_name@timestamp`, the timestamp in nanoseconds."""

    owner: str
    key_name: str
    timestamp: int

    def __str__(self) -> str:
        return f"{self.owner}::{self.key_name}@{self.timestamp}"

    @property
    def is_directory(self) -> bool:
        """Tell whether this is a marker of a listing, and no entry (§4.2)."""
        return self.timestamp == 0


def is_key_path(key: str) -> bool:
    """Tell whether `key` is a key path and not a key name, as the SDKs tell them apart."""
    return "::" in key


def parse_key_path(text: str) -> KeyPath:
    """Return the parts of a key path; ValueError when it is none."""
    owner, colons, rest = text.partition("::")
    key_name, at, timestamp = rest.rpartition("@")
    if not colons or not at or not timestamp.removeprefix("-").isdecimal():
        raise ValueError(f"{text!r} is not a key path")
    return KeyPath(owner, key_name, int(timestamp))
