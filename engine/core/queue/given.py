"""A Redis or Valkey server that somebody else runs, named by `--mq-uri`."""

from urllib.parse import urlsplit

from engine.colink.resp import Server, parse_uri


class GivenServer:
    """The server behind an administrator's URI, reached by clients at the same host and port."""

    def __init__(self, uri: str) -> None:
        self._server = parse_uri(uri)
        parts = urlsplit(uri)
        self.scheme = parts.scheme
        self._address = f"{parts.hostname or '127.0.0.1'}:{parts.port or 6379}"

    @property
    def address(self) -> str:
        """Host and port as clients use them."""
        return self._address

    async def running(self) -> Server:
        """Return how to connect; whether it runs is not ours to see to."""
        return self._server

    async def lost(self) -> None:
        """Nothing to do: the next attempt to connect will tell."""

    async def stop(self) -> None:
        """It is not ours to stop."""
