"""Bare calls: what a call is answered with."""

from collections.abc import Awaitable
from typing import Any

import grpc
import grpc.aio
import pytest

Code = grpc.StatusCode


def bearer(jwt: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a caller."""
    return (("authorization", jwt),)


async def refused(call: Awaitable[Any]) -> grpc.StatusCode:
    """Return the status code by which a call is refused; fail when it is not."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()
