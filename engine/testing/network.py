"""Users on a real core: the embedded one, with workers, all of it in this process.

What is tested here is what runs with `engine apply`: storage, queues, schedulers, the exchange of
instances between users, turns and their commits. Only the processes are left out.
"""

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from engine.colink import keys
from engine.colink.client import Client, Connections
from engine.colink.identity import KeyPair
from engine.colink.payloads import json_bytes
from engine.core.server import Core
from engine.core.settings import Settings
from engine.flows import AtomicFlow, Flow, proxy
from engine.flows.schemas import expanded
from engine.flows.state import decode_state
from engine.hooks import Catalog, load_catalog
from engine.kits.aio import Portal, cancel_and_wait
from engine.model.errors import NotFoundError, UsageError
from engine.model.ids import LOCAL
from engine.serving import endpoints
from engine.serving.bridge import BridgePort
from engine.serving.instances import get_instance
from engine.serving.messages import Answers
from engine.serving.mounting import Record, find
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.get_instance import run_get_instance_worker

T = TypeVar("T")
_LIFETIME = 86400
_SCHEDULER = "coflows_scheduler"
_START = 30.0
PLUGIN = "test"
"""The plugin that classes belong to which no installed plugin registers."""


class User:
    """A user of a Network: serves flows, gets instances, asks them."""

    def __init__(self, network: "Network", name: str, client: Client) -> None:
        self.name = name
        self._network = network
        self._client = client
        self._port = BridgePort(network, client, Answers(client))

    @property
    def user_id(self) -> str:
        """The user's id, as hex."""
        return self._client.user_id

    def serve(
        self,
        flow_endpoint: str,
        flow_class: type[Flow] | str,
        subflows: Mapping[str, "tuple[User, str] | str"] | None = None,
        *,
        singleton: bool = False,
        parallel_dispatch: bool = False,
        input_schema: Any = None,
        output_schema: Any = None,
        **config_overrides: Any,
    ) -> None:
        """Serve a flow class, or an installed one by its name, as a manifest would.

        `subflows` maps subflow keys to endpoints of this user, or to another user and an endpoint
        of his. Raises UsageError when a flow is served at that endpoint already.
        """
        name = self._network.register(flow_class)
        entries = endpoints.entries(
            flow_endpoint,
            flow_class_name=name,
            singleton=singleton,
            parallel_dispatch=parallel_dispatch,
        )
        schemas = {"input_schema": input_schema, "output_schema": output_schema}
        record = {
            "config_overrides": config_overrides,
            "subflows": {key: self._subflow(at) for key, at in (subflows or {}).items()},
            **{key: expanded(schema) for key, schema in schemas.items() if schema is not None},
        }

        async def write() -> None:
            if await endpoints.is_served(self._client, flow_endpoint):
                raise UsageError(f"{self.name} serves a flow at {flow_endpoint} already.")
            entry = {keys.engine_flow(flow_endpoint): json_bytes(record)}
            await self._client.update_many({**entries, **entry})

        self._network.run(write())

    def mount(
        self, flow_endpoint: str, server: "User | None" = None, **config_overrides: Any
    ) -> AtomicFlow:
        """Return a proxy of an instance of what `server` (None: this user) serves.

        Raises FlowInstanceException.
        """
        user_id = LOCAL if server is None else server.user_id
        getting = get_instance(
            self._client,
            self._network.catalog,
            flow_endpoint,
            user_id,
            config_overrides=config_overrides,
        )
        instance = self._network.run(getting)
        return proxy(flow_endpoint, instance.flow_id, self._port, instance.user_id)

    def ask(
        self, flow: AtomicFlow, data: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """Send `data` to an instance that this user mounted and return the answer's data.

        Raises FlowFailedError for an error reply, DeadlineExceededError when none comes.
        """
        return flow.get_reply_future(flow.package_input_message(data), timeout).get_data()

    def state_of(self, flow: AtomicFlow) -> dict[str, Any]:
        """Return the stored state of an instance, also of one at another user."""
        user_id = flow.flow_config["user_id"]
        server = self if user_id == LOCAL else self._network.user(user_id)
        return self._network.run(server._stored_state(flow.get_instance_id()))

    async def _stored_state(self, flow_id: str) -> dict[str, Any]:
        place = await find(self._client, flow_id)
        if place is None:
            raise NotFoundError(f"{self.name} has no instance {flow_id}.")
        name_key = keys.flow(place.flow_endpoint, "flow_class_name")
        name = endpoints.decoded(await self._client.read(name_key))
        record = Record.decode(await self._client.read(place.key("state")))
        if record.state is None:
            return {}
        return decode_state(record.state, self._network.catalog.flow_class(str(name)))

    def _subflow(self, at: "tuple[User, str] | str") -> dict[str, Any]:
        server, endpoint = (self, at) if isinstance(at, str) else at
        user_id = LOCAL if server is self else server.user_id
        return {"user_id": user_id, "flow_endpoint": endpoint, "config_overrides": {}}


class Network:
    """Users by their names, on a core of their own; use it in a `with` block.

    `network["user0"]` is a user; two are made unless others are named. All installed plugins can be
    served.
    """

    def __init__(self, *names: str) -> None:
        self._names = names or ("user0", "user1")
        self._portal = Portal("test-network")
        self._stack = AsyncExitStack()
        self._home = Path(tempfile.mkdtemp(prefix="network-"))
        self._users: dict[str, User] = {}
        installed = load_catalog(Flow)
        self._classes = dict(installed.flow_classes)
        self.catalog = Catalog(installed.plugins, self._classes, installed.resolvers)

    def __enter__(self) -> Self:
        try:
            self.run(self._start())
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def __getitem__(self, name: str) -> User:
        return self._users[name]

    @property
    def users(self) -> tuple[User, ...]:
        """All users, in the order of their names as given."""
        return tuple(self._users.values())

    def user(self, user_id: str) -> User:
        """Return the user with that hex id; NotFoundError."""
        for user in self.users:
            if user.user_id == user_id:
                return user
        raise NotFoundError(f"There is no user {user_id} in this network.")

    def register(self, flow_class: type[Flow] | str) -> str:
        """Return the name by which manifests would call a class; it can be served from now on.

        Raises PluginError for the name of a class that is not installed, UsageError for a second
        class of the same name.
        """
        if isinstance(flow_class, str):
            self.catalog.flow_class(flow_class)
            return flow_class
        for name, known in self._classes.items():
            if known is flow_class:
                return name
        name = f"{PLUGIN}.{flow_class.__name__}"
        if name in self._classes:
            raise UsageError(f"Two classes of this network are called {flow_class.__name__}.")
        self._classes[name] = flow_class
        return name

    # --- the loop behind it -------------------------------------------------------------------

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` on the network's loop and return its result."""
        return self._portal.run(coroutine)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Run `coroutine` on the network's loop without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._portal.loop)

    async def _start(self) -> None:
        core = Core(Settings(home=self._home / "core", port=0))
        self._stack.push_async_callback(core.stop)
        await core.start()
        connections = await self._stack.enter_async_context(Connections())
        host = connections.client(core.address, core.host_token)
        for name in self._names:
            client = connections.client(core.address, await _new_user(host))
            await self._stack.enter_async_context(_working(client, self.catalog))
            self._users[name] = User(self, name, client)

    def _close(self) -> None:
        try:
            self.run(self._stack.aclose())
        finally:
            self._portal.close()
            shutil.rmtree(self._home, ignore_errors=True)


async def _new_user(host: Client) -> str:
    """Import a fresh user, start his scheduler, and return his token."""
    pair = KeyPair.generate()
    info = await host.request_info()
    consent = pair.sign_consent(info.core_public_key, int(time.time()) + _LIFETIME)
    token = await host.import_user(consent)
    await host.start_protocol_operator(_SCHEDULER, pair.user_id)
    return token


@asynccontextmanager
async def _working(client: Client, catalog: Catalog) -> AsyncIterator[None]:
    """Run one worker of each kind for a user."""
    readies = asyncio.Event(), asyncio.Event()
    workers = [
        asyncio.create_task(run_dispatch_worker(client, catalog, ready=readies[0])),
        asyncio.create_task(run_get_instance_worker(client, catalog, ready=readies[1])),
    ]
    try:
        async with asyncio.timeout(_START):
            for ready in readies:
                await ready.wait()
        yield
    finally:
        await cancel_and_wait(workers)
