"""Locks of the protocol (§7.3): an entry that only one can create. Bounded, unlike the SDKs'."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncGenerator

from engine.colink import keys
from engine.colink.payloads import integer_bytes
from engine.colink.storage import StorageCalls
from engine.kits.backoff import Backoff
from engine.model.errors import AlreadyExistsError, NotFoundError

log = logging.getLogger(__name__)
PATIENCE = 10.0
"""Seconds after which a lock that has not changed hands counts as left behind by a dead holder."""
_BACKOFF = Backoff(first=0.002, limit=0.1, jitter=1.0)


@contextlib.asynccontextmanager
async def locked(
    client: StorageCalls, key: str, patience: float = PATIENCE
) -> AsyncGenerator[None, None]:
    """Hold the lock of `key` meanwhile; one that nobody released for `patience` s is broken."""
    token = integer_bytes(random.getrandbits(31))
    entry = keys.lock(key)
    await _acquire(client, entry, token, patience)
    try:
        yield
    finally:
        await _release(client, entry, token)


async def _acquire(client: StorageCalls, entry: str, token: bytes, patience: float) -> None:
    holder: bytes | None = None
    since, failures = time.monotonic(), 0
    while True:
        try:
            await client.create(entry, token)
            return
        except AlreadyExistsError:
            failures += 1
        current = await client.read(entry)
        if current != holder:
            holder, since = current, time.monotonic()
        elif holder is not None and time.monotonic() - since >= patience:
            log.warning("breaking the lock %s: its holder has not released it", entry)
            with contextlib.suppress(NotFoundError):
                await client.delete(entry)
            continue
        await asyncio.sleep(_BACKOFF.delay(failures))


async def _release(client: StorageCalls, entry: str, token: bytes) -> None:
    if await client.read(entry) != token:
        log.warning("the lock %s was broken by somebody else", entry)
        return
    with contextlib.suppress(NotFoundError):
        await client.delete(entry)
