"""From plain code into the event loop: what notebooks and scripts stand on.

Their functions take the stock SDK's CoLink object. Behind it, everything of this process runs on
one loop in a daemon thread, over connections that are shared and kept.
"""

import asyncio
import atexit
import contextlib
import tempfile
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import Future
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from engine.colink.client import Client, Connections
from engine.colink.keys import push_response
from engine.flows.flow import Flow
from engine.hooks import Catalog, load_catalog
from engine.kits.aio import Portal
from engine.model.errors import UsageError
from engine.model.ids import new_id
from engine.model.manifest import TlsSpec
from engine.model.message import DEFAULT_TIMEOUT, FlowMessage
from engine.serving.messages import Answers, push, reply
from engine.serving.outgoing import pushed

T = TypeVar("T")
_FAREWELL = 5.0


class CoLinkLike(Protocol):
    """What is used of a CoLink object: who it is, where, and how it is trusted."""

    core_addr: str
    jwt: str
    ca_cert: Any
    _identity: Any


class Loop(Protocol):
    """An event loop in another thread."""

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and return its result; blocks the calling thread."""
        ...

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run `coroutine` on the loop without waiting for it."""
        ...


class Bridge:
    """A loop in a daemon thread, the connections made on it, and the installed flow classes."""

    def __init__(self) -> None:
        self._portal = Portal("colink-engine")
        self._connections = Connections()
        self._thread = self._portal.run(_current_thread())
        self._clients: dict[tuple[str, str], Client] = {}
        self._answers: dict[tuple[str, str], Answers] = {}
        self._files: tempfile.TemporaryDirectory[str] | None = None

    @cached_property
    def catalog(self) -> Catalog:
        """What is installed, looked up once."""
        return load_catalog(Flow)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the loop and return its result; blocks the calling thread.

        Raises UsageError inside the loop, as in an async run of a flow: it would block itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError(
                "This call would block the event loop that it is made in.",
                "Make it from a plain function, such as a plain `run`.",
            )
        return self._portal.run(coroutine)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run `coroutine` on the loop without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._portal.loop)

    def client(self, cl: CoLinkLike) -> Client:
        """Return the client of the user that a CoLink object stands for."""
        key = (cl.core_addr, cl.jwt)
        if key not in self._clients:
            tls = self._tls(cl)

            async def make() -> Client:
                return self._connections.client(cl.core_addr, cl.jwt, tls)

            self._clients[key] = self.run(make())
        return self._clients[key]

    def port(self, cl: CoLinkLike) -> "BridgePort":
        """Return the port through which proxies send in that user's name."""
        client = self.client(cl)
        answers = self._answers.setdefault((cl.core_addr, cl.jwt), Answers(client))
        return BridgePort(self, client, answers)

    def close(self) -> None:
        """End everything that runs on the loop, and the loop."""
        with contextlib.suppress(TimeoutError, RuntimeError):
            self._portal.run(self._connections.close(), _FAREWELL)
        self._portal.close()
        if self._files is not None:
            self._files.cleanup()

    def _tls(self, cl: CoLinkLike) -> TlsSpec:
        """Return the files of a CoLink object's certificates; it holds their content."""
        certificate, key = cl._identity or (None, None)
        return TlsSpec(
            ca=self._file("ca", cl.ca_cert),
            cert=self._file("cert", certificate),
            key=self._file("key", key),
        )

    def _file(self, name: str, content: Any) -> str:
        if not isinstance(content, bytes):
            return str(content or "")
        if self._files is None:
            self._files = tempfile.TemporaryDirectory(prefix="colink-tls-")
        path = Path(self._files.name) / f"{name}-{new_id()}.pem"
        path.touch(mode=0o600)
        path.write_bytes(content)
        return str(path)


async def _current_thread() -> threading.Thread:
    return threading.current_thread()


@cache
def bridge() -> Bridge:
    """Return this process's bridge, made at the first call and closed when the process ends."""
    made = Bridge()
    atexit.register(made.close)
    return made


class BridgePort:
    """A FlowPort for proxies outside of a turn: everything is sent at once."""

    def __init__(self, bridge: Loop, client: Client, answers: Answers) -> None:
        self._bridge = bridge
        self._client = client
        self._answers = answers

    def __deepcopy__(self, memo: Any) -> "BridgePort":
        return self

    @property
    def user_id(self) -> str:
        """The user in whose name messages are sent."""
        return self._client.user_id

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message`; return its key."""
        return self._bridge.run(push(self._client, user_id, flow_id, message))

    def reply(self, message: FlowMessage) -> None:
        """Send a reply as its `reply_data` asks."""
        self._bridge.run(reply(self._client, message))

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message` in the background; return the key where the answer will be."""
        question = pushed(self.user_id, user_id, flow_id, message, new_id())
        deadline = message.deadline or time.time() + DEFAULT_TIMEOUT

        async def ask() -> None:
            self._answers.ask(question, max(0.0, deadline - time.time()))

        self._bridge.run(ask())
        return push_response(question.key)

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return the answer; DeadlineExceededError after `timeout` seconds."""
        return self._bridge.run(self._answers.wait(response_key, timeout))

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Do the same as `wait` without blocking the caller's event loop."""
        waiting = self._bridge.start(self._answers.wait(response_key, timeout))
        return await asyncio.wrap_future(waiting)

    def cancel(self, response_key: str) -> None:
        """Give up a question; its receiver is told in the background."""

        async def cancel() -> None:
            self._answers.cancel(response_key)

        self._bridge.run(cancel())

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return the answer if it is there, else None."""

        async def read() -> FlowMessage | None:
            answer = self._answers.peek(response_key)
            if answer is not None:
                return answer
            payload = await self._client.read(response_key)
            return None if payload is None else FlowMessage.deserialize(payload)

        return self._bridge.run(read())
