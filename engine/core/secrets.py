"""The core's own secrets on disk: the key that signs tokens, and its key pair (§3.5)."""

import secrets
from pathlib import Path

from engine.colink.identity import KeyPair
from engine.core.settings import Settings
from engine.kits.files import private_folder, write_atomically
from engine.model.errors import UsageError

HOST_TOKEN = "host_token.txt"  # noqa: S105 - a file's name
_SIZE = 32


def load(settings: Settings) -> tuple[bytes, KeyPair]:
    """Return the token secret and the core's key pair; made when absent or when that is forced.

    Raises UsageError when a file is there but holds something else.
    """
    folder = private_folder(settings.home / "init_state")
    token_secret = _secret(folder / "jwt_secret.txt", settings.force_gen_jwt_secret)
    private_key = _secret(folder / "priv_key.txt", settings.force_gen_priv_key)
    return token_secret, KeyPair(private_key)


def write_host_token(settings: Settings, token: str) -> None:
    """Write the host's token, whole and without a newline: readers do not wait for the rest."""
    write_atomically(settings.home / HOST_TOKEN, token.encode())


def _secret(path: Path, force: bool) -> bytes:
    if force or not path.exists():
        value = KeyPair.from_hex(secrets.token_hex(_SIZE)).to_hex()
        write_atomically(path, value.encode())
    text = path.read_text().strip()
    try:
        value_bytes = bytes.fromhex(text)
    except ValueError:
        value_bytes = b""
    if len(value_bytes) != _SIZE:
        raise UsageError(f"{path} does not hold 64 hex digits.", "Delete it to get a new secret.")
    return value_bytes
