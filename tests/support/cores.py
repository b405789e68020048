"""Several cores in one event loop, that can be stopped and started again, and users on them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from engine.colink import wire
from engine.core.server import Core
from engine.core.settings import Settings
from engine.core.task_table import TaskCopy
from tests.support.core import make_user
from tests.support.stock import blocking, stock


@dataclass
class Member:
    """A user on a core of his own or with others: short words for what tests do in his name."""

    place: "Place"
    user_id: str
    jwt: str

    @property
    def core(self) -> Core:
        return self.place.core

    @property
    def sdk(self) -> Any:
        """The stock SDK's object for this user."""
        client, settings = stock(self.core, self.jwt), self.place.settings
        if settings.cert:
            client.ca_certificate(settings.inter_core_ca)
            client.identity(settings.cert, settings.key)
        return client

    @asynccontextmanager
    async def stub(self) -> AsyncIterator[wire.CoLinkStub]:
        """The bare service of this user's core, for what the SDK would not send."""
        async with grpc.aio.insecure_channel(self.core.address.removeprefix("http://")) as channel:
            yield wire.CoLinkStub(channel)

    async def guest_token(self) -> str:
        return await blocking(self.sdk.generate_token, "guest")

    async def knows(self, *others: "Member") -> None:
        """Put others into the address book, as users do by the SDK."""
        for other in others:
            await blocking(self.sdk.import_guest_jwt, await other.guest_token())
            await blocking(self.sdk.import_core_addr, other.user_id, other.core.address)

    async def undecided(self) -> "Member":
        """Leave all decisions to the test."""
        await blocking(self.sdk.policy_module_stop)
        return self

    def copy(self, task_id: str) -> TaskCopy | None:
        return self.core.parts.tasks.get(self.user_id, task_id)

    def status(self, task_id: str) -> str:
        """Return the status of this user's copy of a task; "" without one."""
        copy = self.copy(task_id)
        return copy.status if copy is not None else ""

    async def reaches(self, task_id: str, *statuses: str, timeout: float = 20) -> None:
        """Wait until this user's copy of a task has one of `statuses`."""
        tasks, reached = self.core.parts.tasks, asyncio.Event()

        def entered(copy: TaskCopy) -> None:
            if (copy.owner, copy.task.task_id) == (self.user_id, task_id):
                reached.set()

        tasks.on_entered.append(entered)
        try:
            async with asyncio.timeout(timeout):
                while self.status(task_id) not in statuses:
                    reached.clear()
                    await reached.wait()
        except TimeoutError:
            raise AssertionError(f"{self.status(task_id)!r} instead of {statuses}") from None
        finally:
            tasks.on_entered.remove(entered)

    async def entry(self, name: str, timeout: float = 20) -> bytes:
        """Wait for an entry and return its value."""
        entries, written = self.core.parts.entries, asyncio.Event()
        if (value := entries.get(self.user_id, name)) is not None:
            return value
        entries.watch(self.user_id, name, lambda payload: written.set())
        async with asyncio.timeout(timeout):
            await written.wait()
        value = entries.get(self.user_id, name)
        assert value is not None
        return value

    async def run(self, *others: "Member", agreement: bool = True, protocol: str = "greet") -> str:
        """Create a task with others and return its id."""
        return await blocking(
            self.sdk.run_task, protocol, "hello", participants(self, *others), agreement
        )

    async def confirm(self, task_id: str, *, approve: bool) -> None:
        await blocking(self.sdk.confirm_task, task_id, approve, not approve, "")


def participants(*members: Member) -> list[Any]:
    """Return the first as initiator, all others as receivers."""
    roles = ("initiator", *["receiver"] * (len(members) - 1))
    return [
        wire.Participant(user_id=member.user_id, role=role)
        for member, role in zip(members, roles, strict=True)
    ]


@dataclass
class Place:
    """A core's home and settings, with the core that runs there now."""

    settings: Settings
    core: Core = field(init=False)

    async def start(self) -> "Place":
        self.core = Core(self.settings)
        await self.core.start()
        # Others know its address: it is to come back at the same one.
        port = int(self.core.address.rpartition(":")[2])
        self.settings = replace(self.settings, port=port)
        return self

    async def stop(self) -> None:
        await self.core.stop()

    async def member(self) -> Member:
        settings, credentials = self.settings, None
        if settings.cert:
            files = (settings.inter_core_ca, settings.key, settings.cert)
            credentials = grpc.ssl_channel_credentials(*(Path(f).read_bytes() for f in files))
        user = await make_user(self.core, credentials=credentials)
        return Member(self, user.user_id, user.jwt)


class Places:
    """Starts cores, and stops them at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: list[Place] = []

    async def start(self, **settings: Any) -> Place:
        home = self._folder / f"core-{len(self._places)}"
        place = Place(Settings(home=home, port=0, **settings))
        self._places.append(place)
        return await place.start()

    async def members(self, count: int, **settings: Any) -> list[Member]:
        """Return users, each on a core of his own."""
        return [await (await self.start(**settings)).member() for _ in range(count)]

    async def stop(self) -> None:
        for place in self._places:
            await place.stop()


@pytest.fixture
async def places(tmp_path: Path) -> AsyncIterator[Places]:
    """Several cores; their storage is below `tmp_path`."""
    running = Places(tmp_path)
    try:
        yield running
    finally:
        await running.stop()
