"""Which ENGINE_HOME is meant, and making it."""

import os
import tempfile
from pathlib import Path

import platformdirs

from engine.kits.files import private_folder
from engine.model.errors import UsageError
from engine.model.home import Home

_SOCKET_PATH_LIMIT = 100
"""Unix socket paths may have 104 bytes on macOS and 108 on Linux, the closing zero included."""


def locate(option: str | os.PathLike[str] | None = None) -> Path:
    """Return the ENGINE_HOME: `option`, else $ENGINE_HOME, else the platform's data folder.

    Nothing is made, nor looked at.
    """
    text = str(option or os.environ.get("ENGINE_HOME") or "")
    return Path(text).expanduser().absolute() if text else _default()


def resolve(option: str | os.PathLike[str] | None = None) -> Path:
    """Return the ENGINE_HOME, as `locate` does, ready for use.

    The folder is made if need be, mode 0700. Raises UsageError when it cannot be written, or when
    its path is too long to hold a Unix socket.
    """
    path = locate(option)
    if len(os.fsencode(Home(path).socket)) > _SOCKET_PATH_LIMIT:
        raise UsageError(
            f"The path of ENGINE_HOME, {path}, is too long for a Unix socket in it.",
            "Choose a shorter one with --home or ENGINE_HOME.",
        )
    try:
        private_folder(path)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UsageError(
            f"ENGINE_HOME {path} cannot be written: {error.strerror or error}.",
            "Choose another folder with --home or ENGINE_HOME.",
        ) from error
    return path


def _default() -> Path:
    return Path(platformdirs.user_data_dir("colink-engine", appauthor=False))
