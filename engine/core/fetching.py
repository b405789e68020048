"""Reading files by path or URL, from this machine only unless the network is allowed."""

import shutil
import urllib.request
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote, urlsplit

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUT = 60.0


class FetchError(Exception):
    """The file cannot be had; the message says why."""


class Fetcher:
    """Reads folders, file:// URLs, and http(s):// ones of this machine, or of any if allowed."""

    def __init__(self, *, allow_network: bool) -> None:
        self._allow_network = allow_network
        # The address is what it says: no proxy, and no redirection to elsewhere.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), _NoRedirect(allow_network)
        )

    def allowed(self, address: str) -> str:
        """Return `address`; FetchError when it is not one to be fetched from."""
        parts = urlsplit(address)
        if parts.scheme in ("", "file"):
            if parts.netloc or not parts.path.startswith("/"):
                raise FetchError(f"{address!r} is not an absolute path")
            return address
        if parts.scheme not in ("http", "https"):
            raise FetchError(f"{address!r} is neither a path nor a file:// or http:// URL")
        if not self._allow_network and parts.hostname not in _LOOPBACK:
            raise FetchError(f"{parts.hostname} is another machine: nothing is fetched from there")
        return address

    def read(self, address: str) -> bytes:
        """Return a file's content; FetchError when it cannot be had."""
        with self._open(address) as stream:
            return bytes(stream.read())

    def download(self, address: str, path: Path) -> None:
        """Copy a file to `path`; FetchError when it cannot be had."""
        with self._open(address) as stream, path.open("wb") as file:
            shutil.copyfileobj(stream, file)

    def _open(self, address: str) -> Any:
        parts = urlsplit(self.allowed(address))
        try:
            if parts.scheme in ("", "file"):
                return Path(unquote(parts.path) if parts.scheme else address).open("rb")
            return self._opener.open(address, timeout=_TIMEOUT)
        except (OSError, URLError, ValueError) as error:
            raise FetchError(f"{address} cannot be read: {error}") from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows redirections only where any machine is allowed."""

    def __init__(self, allowed: bool) -> None:
        self._allowed = allowed

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        return super().redirect_request(*arguments) if self._allowed else None
