"""From a path to the text in it."""

import stat
from pathlib import Path

from engine.loading.faults import Faults

_LARGEST = 32 * 1024 * 1024
_WHOLE_FILE = (0, 0)


def read(file: Path, faults: Faults) -> str:
    """Return the text of `file`, without a byte order mark.

    Raises InvalidManifestError when there is no such file, it is a folder or a device, may not be
    read, is larger than 32 MiB, or is not UTF-8.
    """
    content = b""
    try:
        kind = file.stat().st_mode
        if stat.S_ISDIR(kind):
            faults.add(_WHOLE_FILE, (), "This is a folder.", "Name the manifest in it.")
        elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind) or stat.S_ISSOCK(kind):
            faults.add(_WHOLE_FILE, (), "This is not a file.", "Name a manifest.")
        else:
            with file.open("rb") as opened:
                content = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        hint = "Write one to begin with: engine init"
        faults.add(_WHOLE_FILE, (), "There is no such file.", hint)
    except PermissionError:
        hint = "Let your user read it: chmod u+r"
        faults.add(_WHOLE_FILE, (), "The file may not be read.", hint)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        faults.add(_WHOLE_FILE, (), f"The file cannot be read: {reason}.")
    if len(content) > _LARGEST:
        faults.add(_WHOLE_FILE, (), "The file is larger than 32 MiB.", "Split it in several.")
    faults.raise_if_any()
    return decode(content, faults)


def decode(content: bytes, faults: Faults) -> str:
    """Return UTF-8 bytes as text; raises InvalidManifestError at the first byte that is not."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        start_of_line = before.rfind(b"\n") + 1
        column = len(before[start_of_line:].decode("utf-8-sig", "replace")) + 1
        place = (before.count(b"\n") + 1, column)
        found = f"The byte 0x{content[error.start]:02x} is not UTF-8."
        faults.add(place, (), found, "Save the file with the encoding UTF-8.")
    faults.raise_if_any()
    raise AssertionError("unreachable: a fault was added")
