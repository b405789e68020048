"""The stock SDK as a client, used from async tests: its blocking calls run in threads."""

import asyncio
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from engine.core.server import Core
from tests.support.core import CoreProcess, make_user

with warnings.catch_warnings():
    # Its dependencies use what Python will drop one day.
    warnings.simplefilter("ignore")
    import colink as sdk
    from colink.p2p_inbox import VtP2pCtx as VtP2pCtx

T = TypeVar("T")


def stock(core: Core | CoreProcess, jwt: str) -> Any:
    """Return the SDK's object for the bearer of `jwt`."""
    return sdk.CoLink(core.address, jwt)


async def stock_user(core: Core | CoreProcess, *operators: str) -> Any:
    """Return the SDK's object for a fresh user."""
    return stock(core, (await make_user(core, operators)).jwt)


async def blocking(function: Callable[..., T], *arguments: Any, timeout: float = 20) -> T:
    """Run a blocking call of the SDK in a thread."""
    return await asyncio.wait_for(asyncio.to_thread(function, *arguments), timeout)


class Messages:
    """The messages of a queue, read by the SDK's subscriber."""

    def __init__(self, subscriber: Any) -> None:
        self._subscriber = subscriber

    @classmethod
    async def of(cls, client: Any, queue: str) -> "Messages":
        """Return the messages of one of the client's queues."""
        return cls(await blocking(client.new_subscriber, queue))

    async def next(self) -> Any:
        """Wait for the next SubscriptionMessage."""
        return sdk.SubscriptionMessage.FromString(await blocking(self._subscriber.get_next))

    def close(self) -> None:
        """Close the connection; what a RabbitMQ sent ahead and was not read goes back."""
        if hasattr(self._subscriber, "redis_connection"):
            self._subscriber.redis_connection.close()
        else:
            self._subscriber.rabbitmq_channel.connection.close()
