"""From a path to the text in it."""

import os
import stat
from pathlib import Path

from engine.loading.faults import Faults, Place

LARGEST = 32 * 1024 * 1024


class UnreadableError(Exception):
    """A file cannot be read; `message` and `hint` for the fault."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def absolute(file: Path) -> Path:
    """Return `file` without dots in it, from the root on. Links are not followed."""
    return Path(os.path.normpath(file.absolute()))


def read_bytes(file: Path) -> bytes:
    """Return what is in `file`.

    Raises UnreadableError when there is no such file, it is a folder or a device, may not be read,
    or is larger than 32 MiB.
    """
    try:
        kind = file.stat().st_mode
        if stat.S_ISDIR(kind):
            raise UnreadableError("This is a folder.", "Name the manifest in it.")
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            raise UnreadableError("This is not a file.", "Name a manifest.")
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
    except FileNotFoundError:
        hint = "Write one to begin with: engine init"
        raise UnreadableError("There is no such file.", hint) from None
    except PermissionError:
        hint = "Let your user read it: chmod u+r"
        raise UnreadableError("The file may not be read.", hint) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableError(f"The file cannot be read: {reason}.") from None
    if len(content) > LARGEST:
        raise UnreadableError("The file is larger than 32 MiB.", "Split it in several.")
    return content


def decode(content: bytes, file: str, faults: Faults) -> str:
    """Return UTF-8 bytes as text, without a byte order mark.

    Raises InvalidManifestError at the first byte that is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        start_of_line = before.rfind(b"\n") + 1
        column = len(before[start_of_line:].decode("utf-8-sig", "replace")) + 1
        place: Place = (file, before.count(b"\n") + 1, column)
        found = f"The byte 0x{content[error.start]:02x} is not UTF-8."
        faults.add(place, (), found, "Save the file with the encoding UTF-8.")
    faults.raise_if_any()
    raise AssertionError("unreachable: a fault was added")
