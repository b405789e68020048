"""A connection to a Redis or Valkey server: commands out, replies in (RESP 2), pipelined.

Why not redis-py: its import costs every worker process 0.1 s, its command path two to three times
the time of this one, which counts in each message; and its socket timeout ends endless reads (sheet
appendix C.1). An account may run stream commands only, so that little of it could be used anyway.
"""

import asyncio
import contextlib
import socket
import ssl
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from engine.model.errors import (
    AccessDeniedError,
    CoreUnavailableError,
    EngineError,
    NotFoundError,
    UsageError,
)

Command = tuple[str | bytes | int, ...]
CONNECT_TIMEOUT = 10.0
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
_CODES: dict[str, type[EngineError]] = {
    "NOGROUP": NotFoundError,
    # The account is there again once the core has restored it, or tells another.
    "WRONGPASS": CoreUnavailableError,
    "NOAUTH": CoreUnavailableError,
    "NOPERM": AccessDeniedError,
    "LOADING": CoreUnavailableError,
}


@dataclass(frozen=True)
class Server:
    """Where a server is and who we are there, as an `mq_uri` says it."""

    host: str
    port: int
    username: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None


def parse_uri(uri: str) -> Server:
    """Return what `redis://user:password@host:port/?...` says; `rediss` means TLS.

    `ssl_ca_certs` and `ssl_cert_reqs=none` are heeded; other parameters are advice for redis-py.
    Raises UsageError when it is no such URI.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("redis", "rediss"):
        raise UsageError(f"{parts.scheme}:// is not the address of a Redis server.")
    tls = _tls(parse_qs(parts.query)) if parts.scheme == "rediss" else None
    return Server(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 6379,
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
    )


def _tls(query: dict[str, list[str]]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=query.get("ssl_ca_certs", [None])[0])
    if query.get("ssl_cert_reqs", [""])[0] == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Connection(asyncio.Protocol):
    """One connection. Replies come in the order of the commands, so many may be under way."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loss: Exception | None = None

    @classmethod
    async def open(cls, server: Server) -> "Connection":
        """Connect and log in.

        Raises CoreUnavailableError when the server does not answer, or does not know us, yet.
        """
        loop = asyncio.get_running_loop()
        place = f"{server.host}:{server.port}"
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                _, connection = await loop.create_connection(
                    cls, server.host, server.port, ssl=server.tls
                )
        except (OSError, TimeoutError) as error:
            raise CoreUnavailableError(
                f"The message queue at {place} does not answer: {error or 'timed out'}."
            ) from error
        if server.password:
            user = (server.username,) if server.username else ()
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await connection.call("AUTH", *user, server.password)
            except BaseException as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    raise CoreUnavailableError(f"The message queue at {place} hangs.") from error
                raise
        return connection

    @property
    def closed(self) -> bool:
        """Tell whether the connection is lost or was closed."""
        return self._loss is not None

    def call(self, *command: str | bytes | int) -> "asyncio.Future[Any]":
        """Send a command; the future brings the reply: int, bytes, None, or a list of such.

        It raises the EngineError for what the server answers, CoreUnavailableError when the
        connection is lost. Cancelling the future only drops the reply.
        """
        return self.call_all(command)[0]

    def call_all(self, *commands: Command) -> "list[asyncio.Future[Any]]":
        """Send several commands in one piece; see `call`."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Any]] = [loop.create_future() for _ in commands]
        if self._loss is not None or self._transport is None:
            for future in futures:
                future.set_exception(self._loss or CoreUnavailableError("Not connected."))
            return futures
        self._waiting.extend(futures)
        self._transport.write(b"".join(map(_encode, commands)))
        return futures

    def close(self) -> None:
        """Close the connection; commands under way fail."""
        self._fail(CoreUnavailableError("The connection to the message queue was closed."))
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Note the transport, and let the kernel notice a peer that vanished."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        plain = transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for name, value in _KEEPALIVE.items():
                if hasattr(socket, name):
                    plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def connection_lost(self, error: Exception | None) -> None:
        """Fail everything under way."""
        self._fail(CoreUnavailableError("The connection to the message queue was lost."))

    def data_received(self, data: bytes) -> None:
        """Hand out the replies that are complete."""
        self._buffer += data
        position = 0
        while position < len(self._buffer):
            try:
                reply, position = _parse(self._buffer, position)
            except _IncompleteError:
                break
            except ValueError:
                self.close()
                return
            self._hand_out(reply)
        del self._buffer[:position]

    def _hand_out(self, reply: Any) -> None:
        if not self._waiting:
            return
        future = self._waiting.popleft()
        if future.done():
            return
        if isinstance(reply, _ServerError):
            future.set_exception(reply.translated())
        else:
            future.set_result(reply)

    def _fail(self, loss: Exception) -> None:
        if self._loss is None:
            self._loss = loss
        while self._waiting:
            future = self._waiting.popleft()
            if not future.done():
                future.set_exception(self._loss)


class _IncompleteError(Exception):
    """The rest of a reply has not come yet."""


class _ServerError(Exception):
    def translated(self) -> EngineError:
        text = str(self)
        kind = _CODES.get(text.partition(" ")[0], UsageError)
        return kind(f"The message queue answered: {text}")


def _encode(command: Command) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for argument in command:
        raw = argument if isinstance(argument, bytes) else str(argument).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(raw), raw))
    return b"".join(parts)


def _parse(buffer: bytearray, position: int) -> tuple[Any, int]:
    """Return the reply that begins at `position`, and where it ends.

    Raises _IncompleteError when it does not end yet, ValueError when this is not RESP 2.
    """
    end = buffer.find(b"\r\n", position)
    if end < 0:
        raise _IncompleteError
    kind, line, position = buffer[position], buffer[position + 1 : end], end + 2
    if kind == ord("$"):
        return _parse_bytes(buffer, position, int(line))
    if kind == ord("*"):
        return _parse_list(buffer, position, int(line))
    if kind == ord(":"):
        return int(line), position
    if kind == ord("+"):
        return bytes(line), position
    if kind == ord("-"):
        return _ServerError(line.decode(errors="replace")), position
    raise ValueError(f"unexpected reply of kind {chr(kind)!r}")


def _parse_bytes(buffer: bytearray, position: int, length: int) -> tuple[Any, int]:
    if length < 0:
        return None, position
    if len(buffer) < position + length + 2:
        raise _IncompleteError
    return bytes(buffer[position : position + length]), position + length + 2


def _parse_list(buffer: bytearray, position: int, length: int) -> tuple[Any, int]:
    if length < 0:
        return None, position
    items = []
    for _ in range(length):
        item, position = _parse(buffer, position)
        items.append(item)
    return items, position
