"""The core that the conformance suite is held against: the embedded one, or any one by address.

See tests/contracts/core/README.md for the variables that name another core.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import jwt as pyjwt
import pytest

from engine.colink import identity
from engine.core.server import Core

_ADDRESS = "CONTRACT_CORE_ADDRESS"
_HOST_TOKEN = "CONTRACT_CORE_HOST_TOKEN"
_JWT_SECRET = "CONTRACT_CORE_JWT_SECRET"
_IS_OURS = "CONTRACT_CORE_IS_OURS"
T = TypeVar("T")


class GivenCore:
    """A running core that is known by its address and its host's token only."""

    given = True

    def __init__(self, address: str, host_token: str) -> None:
        self.address = address
        self.host_token = host_token
        self.host_id = identity.claims(host_token).user_id

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"a core given by address shows nothing of its {name}")


def given_core() -> GivenCore | None:
    """Return the core that the environment names, or None."""
    address = os.environ.get(_ADDRESS)
    return GivenCore(address.rstrip("/"), os.environ[_HOST_TOKEN]) if address else None


def ours_are_skipped() -> bool:
    """Tell whether tests marked `ours` cannot pass: the core is somebody else's."""
    return _ADDRESS in os.environ and not os.environ.get(_IS_OURS)


def public_key(core: Core | GivenCore) -> bytes:
    """Return the core's public key: its host's id, in bytes."""
    return bytes.fromhex(core.host_id)


def mint(core: Core | GivenCore, privilege: str, user_id: str, expires: float = 2**31) -> str:
    """Return a token signed with the core's secret; skips where that is not known."""
    return sign(core, {"privilege": privilege, "user_id": user_id, "exp": int(expires)})


def sign(core: Core | GivenCore, claims: dict[str, Any]) -> str:
    """Return a token with any claims at all, signed with the core's secret."""
    if isinstance(core, Core):
        secret = (core.settings.home / "init_state" / "jwt_secret.txt").read_text()
    else:
        secret = os.environ.get(_JWT_SECRET, "")
    if not secret:
        pytest.skip(f"{_JWT_SECRET} is not set")
    return pyjwt.encode(claims, bytes.fromhex(secret.strip()), algorithm="HS256")


async def becomes(read: Callable[[], Awaitable[T]], wanted: T, timeout: float = 20) -> None:
    """Assert that `read()` gives `wanted`, at once or when operators outside of the core are done.

    Those of the embedded core have done their work when a call returns.
    """
    deadline = time.monotonic() + timeout
    while (found := await read()) != wanted:
        assert time.monotonic() < deadline, f"{found!r} does not become {wanted!r}"
        await asyncio.sleep(0.02)
