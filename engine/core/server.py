"""The core as an object: start it, ask its address, stop it."""

import asyncio
import contextlib
import fcntl
import logging
import os
import ssl
import time
from importlib.metadata import version
from pathlib import Path

import grpc
import grpc.aio

from engine.colink import wire
from engine.core import secrets
from engine.core.expiry import Expiry
from engine.core.extension import Extension
from engine.core.parts import Parts, join
from engine.core.queue.accounts import Accounts
from engine.core.queue.given import GivenServer
from engine.core.queue.port import MessageQueue
from engine.core.queue.streams import Streams, acl_rule
from engine.core.queue.valkey import Valkey
from engine.core.retention import Retention
from engine.core.service import Service
from engine.core.settings import Settings
from engine.core.store import Store
from engine.core.tokens import HOST, HOST_LIFETIME
from engine.kits.files import private_folder
from engine.model.errors import LockHeldError, UsageError
from engine.serving.audit import Audit

log = logging.getLogger(__name__)
STORE_FILE = "core.sqlite"
"""The storage, in the core's home."""
_GRACE = 1.0
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_send_message_length", -1),
    # Clients may ask as often as they like whether the connection still stands.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Who holds a reverse connection and is gone without a word is noticed after both.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class Core:
    """An embedded core on the running event loop. `start` and `stop` once each."""

    def __init__(self, settings: Settings, audit: Audit | None = None) -> None:
        self.settings = settings
        self._audit = audit or Audit()
        self.host_token = ""
        """The host's JWT, once started."""
        self.failed = asyncio.Event()
        """Set when the storage failed and the core must be started afresh."""
        self._port = 0
        self._lock: int | None = None
        self._parts: Parts | None = None
        self._server: grpc.aio.Server | None = None
        self._retention: Retention | None = None
        self._expiry: Expiry | None = None

    @property
    def address(self) -> str:
        """The address at which clients reach the core, such as http://127.0.0.1:2021."""
        return self.settings.uri(self._port)

    @property
    def host_id(self) -> str:
        """The host's id: the core's public key in hex."""
        return self.parts.key_pair.user_id

    @property
    def parts(self) -> Parts:
        """What the core is made of, once started."""
        assert self._parts is not None
        return self._parts

    @property
    def retention(self) -> Retention:
        """What forgets old things, once started."""
        assert self._retention is not None
        return self._retention

    @property
    def expiry(self) -> Expiry:
        """What ends tasks that nobody decides on, once started."""
        assert self._expiry is not None
        return self._expiry

    def renew_host_token(self) -> None:
        """Give the host a token that lasts 31 days from now. The one before stays valid."""
        self.host_token = self.parts.tokens.mint(
            HOST, self.parts.key_pair.user_id, int(time.time()) + HOST_LIFETIME
        )
        secrets.write_host_token(self.settings, self.host_token)

    async def start(self) -> None:
        """Open the storage, start the queue, and answer calls.

        Raises LockHeldError when another core runs in this home, UsageError when the port is taken
        or a file is not what it should be, OSError when the home cannot be written.
        """
        settings = self.settings
        private_folder(settings.home)
        self._lock = _lock(settings.home / "core.lock")
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        settings = self.settings
        token_secret, key_pair = secrets.load(settings)
        store = Store(settings.home / STORE_FILE, lambda error: self.failed.set())
        accounts = Accounts(store, settings.mq_prefix)
        self._parts = join(
            *(settings, store, accounts, _message_queue(settings, accounts)),
            *(token_secret, key_pair),
            version=version("colink-engine"),
            core_uri=lambda: self.address,
            audit=self._audit,
        )
        store.owner_id(key_pair.user_id)
        await self.parts.publisher.start()
        size = min(int(settings.limits.max_message_bytes) or -1, 2**31 - 1)
        self._server = grpc.aio.server(
            options=(*_OPTIONS, ("grpc.max_receive_message_length", size))
        )
        wire.add_CoLinkServicer_to_server(Service(self.parts).servicer(), self._server)
        wire.add_extension_to_server(Extension(self.parts), self._server)
        # Before the port accepts anybody: readers of the file do not wait.
        self.renew_host_token()
        self._port = _bind(self._server, settings)
        # Now that the address is known, operators can tell it to registries.
        self.parts.operators.resume_all()
        self.parts.effects.run()
        await store.committed()
        await self._server.start()
        # Operators that are programs call this core, so they come once it answers.
        self.parts.external.resume()
        self.parts.initialisation.resume(self.parts.users.all())
        self.parts.effects.run()
        self.parts.peers.start()
        self._retention = Retention(store, settings.retention_hours, settings.history_hours)
        self._retention.start()
        self._expiry = Expiry(self.parts.tasks, self.parts.effects, self.parts.users.all)
        self._expiry.start()
        log.info("the core answers at %s", self.address)

    async def stop(self) -> None:
        """Answer no more calls, commit, and end the queue. Safe after a failed start."""
        if self._retention is not None:
            await self._retention.stop()
        if self._expiry is not None:
            await self._expiry.stop()
        if self._parts is not None:
            await self._parts.initialisation.stop()
            await self._parts.external.stop_all()
            await self._parts.inboxes.stop()
            await self._parts.peers.stop()
        if self._server is not None:
            await self._server.stop(_GRACE)
        if self._parts is not None:
            self._parts.effects.stop()
            await self._parts.publisher.stop()
            with contextlib.suppress(Exception):
                await self._parts.store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _message_queue(settings: Settings, accounts: Accounts) -> MessageQueue:
    if not settings.mq_uri:
        return Streams(
            Valkey(
                settings.home / "valkey",
                settings.queue_host,
                lambda: [acl_rule(account) for account in accounts.all()],
            )
        )
    if settings.mq_uri.startswith("redis"):
        return Streams(GivenServer(settings.mq_uri))
    # Only users of RabbitMQ pay for this import.
    from engine.core.queue.rabbitmq import RabbitMq

    return RabbitMq(settings.mq_uri, settings.mq_api)


def _bind(server: grpc.aio.Server, settings: Settings) -> int:
    place = f"{settings.address}:{settings.port}"
    try:
        if settings.cert:
            port = server.add_secure_port(place, _credentials(settings))
        else:
            port = server.add_insecure_port(place)
    except RuntimeError:
        port = 0
    if port == 0:
        raise UsageError(f"Cannot listen at {place}.", "Is the port in use by another program?")
    return port


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    try:
        key, cert = Path(settings.key).read_bytes(), Path(settings.cert).read_bytes()
        ca = Path(settings.ca).read_bytes() if settings.ca else None
        # gRPC would say no more than that it cannot listen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.cert, settings.key)
        if settings.ca:
            context.load_verify_locations(settings.ca)
    except OSError as error:
        raise UsageError(f"The files for TLS cannot be used: {error}.") from error
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=ca is not None)


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise LockHeldError(
            f"Another core (process {holder or 'unknown'}) runs in {path.parent}.", holder
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
