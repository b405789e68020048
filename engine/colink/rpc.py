"""gRPC channels to cores, and calls on them: credentials, deadlines, errors in our own terms."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import grpc.aio

from engine.colink import wire
from engine.model.errors import (
    AccessDeniedError,
    CoreUnavailableError,
    EngineError,
    NotFoundError,
    UsageError,
)
from engine.model.manifest import TlsSpec

DEADLINE = 30.0
"""Seconds that a call may take when the caller does not say otherwise."""

_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A core that comes back is to be found again at once: gRPC's own limit is two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Else the state of a connection is shared with channels of other event loops.
    ("grpc.use_local_subchannel_pool", 1),
)
_LOOPBACK = ("127.0.0.1", "0.0.0.0", "localhost", "::1")  # noqa: S104 - names, nothing is bound
_KINDS: dict[grpc.StatusCode, type[EngineError]] = {
    grpc.StatusCode.UNAVAILABLE: CoreUnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: CoreUnavailableError,
    grpc.StatusCode.CANCELLED: CoreUnavailableError,
    grpc.StatusCode.ABORTED: CoreUnavailableError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
    grpc.StatusCode.NOT_FOUND: NotFoundError,
}


class CoreChannel:
    """The one channel of a process to a core, shared by all its clients."""

    def __init__(self, address: str, tls: TlsSpec) -> None:
        self.address = address
        self._channel = _open(address, tls)
        self.stub = wire.CoLinkStub(self._channel)
        self.extension = wire.ExtensionStub(self._channel)
        self.extended = True
        """False once the core has said that it does not know the extension."""

    def is_ready(self) -> bool:
        """Tell whether the connection stands; otherwise have it tried."""
        state = self._channel.get_state(try_to_connect=True)
        return state is grpc.ChannelConnectivity.READY

    async def ready(self) -> None:
        """Wait until the connection stands, however often it has to be tried."""
        await self._channel.channel_ready()

    async def close(self) -> None:
        """Close the channel; calls under way fail."""
        await self._channel.close()


class Caller:
    """Calls a core in the name of the bearer of one JWT."""

    def __init__(self, channel: CoreChannel, jwt: str) -> None:
        self._channel = channel
        self._metadata = (("authorization", jwt),)

    async def call(
        self,
        method: str,
        request: Any,
        *,
        about: str = "",
        internal: type[EngineError] = UsageError,
        timeout: float = DEADLINE,
    ) -> Any:
        """Call an RPC and return its reply.

        `about` (an entry, a task) goes into the message of errors. The core's code INTERNAL means
        something else for each RPC (§2.3): `internal` is the error it becomes. `timeout` is in
        seconds; when it is over, that is a CoreUnavailableError.
        """
        try:
            return await getattr(self._channel.stub, method)(
                request, metadata=self._metadata, timeout=timeout
            )
        except grpc.aio.AioRpcError as error:
            raise translate(error, method, about, internal, self._channel.address) from error
        except grpc.aio.UsageError as error:
            raise CoreUnavailableError("The connection to the core is closed.") from error

    async def call_extension(self, method: str, request: Any, *, about: str = "") -> Any | None:
        """Call a method of the extension and return its reply; None from a core without it."""
        if not self._channel.extended:
            return None
        try:
            return await getattr(self._channel.extension, method)(
                request, metadata=self._metadata, timeout=DEADLINE
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                self._channel.extended = False
                return None
            raise translate(error, method, about, UsageError, self._channel.address) from error


def translate(
    error: grpc.aio.AioRpcError,
    method: str,
    about: str,
    internal: type[EngineError],
    address: str,
) -> EngineError:
    """Return our error for what a core answered to `method`."""
    code, details = error.code(), error.details() or "no reason given"
    kind = internal if code is grpc.StatusCode.INTERNAL else _KINDS.get(code, UsageError)
    if kind is CoreUnavailableError:
        return CoreUnavailableError(f"The core at {address} does not answer {method}: {details}.")
    of = f" of {about}" if about else ""
    return kind(f"The core at {address} refused {method}{of}: {details}.")


def _open(address: str, tls: TlsSpec) -> grpc.aio.Channel:
    parts = urlsplit(address)
    if not parts.hostname:
        raise UsageError(f"{address!r} is not the address of a core.", "Write http://host:port.")
    host = parts.hostname
    options = list(_OPTIONS)
    if host in _LOOPBACK:
        options.append(("grpc.enable_http_proxy", 0))
    if parts.scheme == "http":
        return grpc.aio.insecure_channel(_target(host, parts.port or 80), options)
    # Certificates name hosts, not addresses; the SDKs rewrite these two in the same way (§3.5).
    if host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - compared, nothing is bound
        host = "localhost"
    return grpc.aio.secure_channel(_target(host, parts.port or 443), _credentials(tls), options)


def _target(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(tls: TlsSpec) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        root_certificates=_pem(tls.ca), private_key=_pem(tls.key), certificate_chain=_pem(tls.cert)
    )


def _pem(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(f"The file {path} for TLS cannot be read: {error.strerror}.") from error
