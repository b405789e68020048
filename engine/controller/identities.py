"""Who the users of the embedded core are: their keys, made once and kept for ever.

A user's name is what manifests call him; his identity is the key pair in `identities/<name>.key`
(64 hex digits, mode 0600). The private key never leaves this process: it signs a consent, and the
core answers with a token.
"""

from pathlib import Path

from engine.colink.identity import KeyPair
from engine.kits.files import private_folder, write_atomically
from engine.model.errors import PermanentError


class Identities:
    """The key pairs of this ENGINE_HOME, by user name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, KeyPair] = {}

    def names(self) -> list[str]:
        """Return the names of all users that have an identity here, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(file.stem for file in self._folder.glob("*.key"))

    def find(self, name: str) -> KeyPair | None:
        """Return the key pair of the user `name`, or None if there is none yet.

        Raises PermanentError when its file is damaged: making another would lose the user's data.
        """
        if name in self._known:
            return self._known[name]
        file = self._file(name)
        try:
            text = file.read_text().strip()
        except FileNotFoundError:
            return None
        try:
            self._known[name] = KeyPair.from_hex(text)
        except ValueError as error:
            raise PermanentError(
                f"The key of user {name} in {file} is damaged: {error}.",
                "Put a backup in its place; without it the user's data cannot be reached.",
            ) from error
        return self._known[name]

    def make(self, name: str) -> KeyPair:
        """Return the key pair of the user `name`, made and stored first if there is none yet."""
        known = self.find(name)
        if known is not None:
            return known
        private_folder(self._folder)
        pair = KeyPair.generate()
        write_atomically(self._file(name), pair.to_hex().encode())
        self._known[name] = pair
        return pair

    def forget(self, name: str) -> None:
        """Delete the key of the user `name`, for ever."""
        self._known.pop(name, None)
        self._file(name).unlink(missing_ok=True)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.key"
