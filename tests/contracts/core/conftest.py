"""The core under test, and the stock SDK's users. See README.md for another core than ours."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from engine.colink import wire
from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.contract import GivenCore, given_core, ours_are_skipped
from tests.support.core import core_process  # noqa: F401
from tests.support.cores import places  # noqa: F401
from tests.support.stock import stock_user


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what only this core does, when another one is asked."""
    if ours_are_skipped():
        skip = pytest.mark.skip(reason="an improvement of this core")
        for item in items:
            if item.get_closest_marker("ours"):
                item.add_marker(skip)


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core | GivenCore]:
    """The core under test: the given one, or an embedded one of the test's own."""
    given = given_core()
    if given is not None:
        yield given
        return
    running = Core(Settings(home=tmp_path / "core", port=0))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


@pytest.fixture
async def alice(core: Core) -> Any:
    """A user, as the SDK's object."""
    return await stock_user(core)


@pytest.fixture
async def bob(core: Core) -> Any:
    """Another user, as the SDK's object."""
    return await stock_user(core)


@pytest.fixture
async def stub(core: Core) -> AsyncIterator[wire.CoLinkStub]:
    """The bare service, for what the SDK would not send."""
    async with grpc.aio.insecure_channel(core.address.removeprefix("http://")) as channel:
        yield wire.CoLinkStub(channel)


@pytest.fixture
async def extension(core: Core) -> AsyncIterator[wire.ExtensionStub]:
    """The bare extension."""
    async with grpc.aio.insecure_channel(core.address.removeprefix("http://")) as channel:
        yield wire.ExtensionStub(channel)
