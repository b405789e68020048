"""Users on a real embedded core with workers for them, and flow classes to serve."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from engine.colink import keys
from engine.colink.client import Client, Connections
from engine.colink.mailbox import encode_dispatch
from engine.colink.payloads import json_value
from engine.core.server import Core
from engine.flows import Flow, FlowMessage
from engine.hooks import Catalog, load_catalog
from engine.kits.aio import cancel_and_wait
from engine.serving import messages
from engine.serving.audit import Audit
from engine.serving.instances import Instance, get_instance
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.get_instance import run_get_instance_worker
from engine.workers.scheduler import run_scheduler
from tests.support import flows
from tests.support.core import new_user

ATOMIC = "reverse_number.ReverseNumberAtomicFlow"
TWICE = "reverse_number.ReverseNumberSequentialFlow"


def catalog() -> Catalog:
    """Return what is installed, and the classes of `tests.support.flows` as of a plugin `test`."""
    installed = load_catalog(Flow)
    classes = {f"test.{flow.__name__}": flow for flow in flows.ALL}
    return replace(installed, flow_classes={**installed.flow_classes, **classes})


@dataclass
class Member:
    """One user: his client, and short words for what tests do in his name."""

    client: Client
    catalog: Catalog

    @property
    def user_id(self) -> str:
        return self.client.user_id

    async def instance(self, endpoint: str, user_id: str = "local", **options: Any) -> Instance:
        return await get_instance(self.client, self.catalog, endpoint, user_id, **options)

    async def ask(
        self, instance: Instance, data: Mapping[str, Any], timeout: float = 20
    ) -> FlowMessage:
        return await messages.ask(
            self.client, instance.user_id, instance.flow_id, data, timeout=timeout
        )

    async def entry(self, key: str) -> Any:
        payload = await self.client.read(key)
        return None if payload is None else json_value(payload)

    async def record(self, instance: Instance, owner: str = "local") -> Any:
        return await self.entry(
            keys.mount_field(instance.flow_endpoint, owner, instance.flow_id, "state")
        )

    async def dispatch(self, instance: Instance, message_key: str) -> None:
        """Dispatch a message (again), and wait until the worker has finished the task."""
        me = (self.user_id, "local")
        param = encode_dispatch(instance.flow_id, [message_key])
        task_id = await self.client.run_task("coflows_dispatch", param, [me], False)
        await self.client.wait_task(task_id, 20)


@asynccontextmanager
async def working(
    client: Client, known: Catalog, *, get_instance: bool = True, **options: Any
) -> AsyncIterator[None]:
    """Run a dispatch worker, and a get_instance worker unless told otherwise, for a user."""
    readies = [asyncio.Event()]
    works = [run_dispatch_worker(client, known, ready=readies[0], **options)]
    if get_instance:
        readies.append(asyncio.Event())
        audit = options.get("audit")
        works.append(run_get_instance_worker(client, known, ready=readies[1], audit=audit))
    tasks = [asyncio.create_task(work) for work in works]
    try:
        async with asyncio.timeout(20):
            for ready in readies:
                await ready.wait()
        yield
    finally:
        await cancel_and_wait(tasks)


@asynccontextmanager
async def scheduled(*users: Member, audit: Audit | None = None) -> AsyncIterator[None]:
    """Run a scheduler operator for each of the users."""
    readies = [asyncio.Event() for _ in users]
    tasks = [
        asyncio.create_task(run_scheduler(user.client, ready=ready, audit=audit))
        for user, ready in zip(users, readies, strict=True)
    ]
    try:
        async with asyncio.timeout(20):
            for ready in readies:
                await ready.wait()
        yield
    finally:
        await cancel_and_wait(tasks)


@asynccontextmanager
async def members(
    core: Core, count: int, operators: tuple[str, ...] = ("coflows_scheduler",)
) -> AsyncIterator[list[Member]]:
    """Yield users without workers."""
    known = catalog()
    async with Connections() as connections:
        users = []
        for _ in range(count):
            token, _ = await new_user(core, operators)
            users.append(Member(connections.client(core.address, token), known))
        yield users


@asynccontextmanager
async def network(core: Core, count: int, **options: Any) -> AsyncIterator[list[Member]]:
    """Yield users with one worker of each kind."""
    async with members(core, count) as users, AsyncExitStack() as stack:
        for user in users:
            await stack.enter_async_context(working(user.client, user.catalog, **options))
        yield users
