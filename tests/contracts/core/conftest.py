"""The core's fixtures, and the stock SDK's users."""

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from engine.colink import wire
from engine.core.server import Core
from tests.support.core import core, core_process  # noqa: F401
from tests.support.cores import places  # noqa: F401
from tests.support.stock import stock_user


@pytest.fixture
async def alice(core: Core) -> Any:  # noqa: F811
    """A user, as the SDK's object."""
    return await stock_user(core)


@pytest.fixture
async def bob(core: Core) -> Any:  # noqa: F811
    """Another user, as the SDK's object."""
    return await stock_user(core)


@pytest.fixture
async def stub(core: Core) -> AsyncIterator[wire.CoLinkStub]:  # noqa: F811
    """The bare service, for what the SDK would not send."""
    async with grpc.aio.insecure_channel(core.address.removeprefix("http://")) as channel:
        yield wire.CoLinkStub(channel)


@pytest.fixture
async def extension(core: Core) -> AsyncIterator[wire.ExtensionStub]:  # noqa: F811
    """The bare extension."""
    async with grpc.aio.insecure_channel(core.address.removeprefix("http://")) as channel:
        yield wire.ExtensionStub(channel)
