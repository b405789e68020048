"""Stores of several sizes for the benchmarks of the core, made by the core's own code."""

import asyncio
import time
from pathlib import Path

from engine.colink import keys, wire
from engine.colink.identity import KeyPair
from engine.core.check import back_up
from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.core import CoreUser, make_user

_BATCH = 200
SMALL = "small"
"""A directory of ten entries, in each store."""


async def make_stores(folder: Path, sizes: list[tuple[int, int]]) -> tuple[CoreUser, list[Path]]:
    """Return a user and the homes of cores with so many ended tasks and entries of his.

    Sizes only grow; each store is a copy of the one before, with more in it.
    """
    user: CoreUser | None = None
    homes: list[Path] = []
    tasks = entries = 0
    for number, (all_tasks, all_entries) in enumerate(sizes):
        home = folder / f"store-{number}"
        if homes:
            back_up(homes[-1], home)
        core = Core(Settings(home=home, port=0))
        await core.start()
        try:
            user = user or await _first_user(core)
            await _add_entries(core, user.user_id, range(entries, all_entries))
            await _add_tasks(core, user.user_id, all_tasks - tasks)
        finally:
            await core.stop()
        tasks, entries = all_tasks, all_entries
        homes.append(home)
    assert user is not None
    return user, homes


async def _first_user(core: Core) -> CoreUser:
    user = await make_user(core, key_pair=KeyPair.generate())
    for number in range(10):
        core.parts.entries.create(user.user_id, f"{SMALL}:{number}", b"x" * 100)
    participants = [wire.Participant(user_id=user.user_id, role="local")]
    for _ in range(10):
        core.parts.tasks.create(
            user.user_id, wire.Task(protocol_name="waiting", participants=participants)
        )
    await core.parts.store.committed()
    return user


async def _add_entries(core: Core, user_id: str, numbers: range) -> None:
    for number in numbers:
        core.parts.entries.create(user_id, f"many:{number // 1000}:{number}", b"x" * 100)
        if number % _BATCH == 0:
            await core.parts.store.committed()
    await core.parts.store.committed()


async def _add_tasks(core: Core, user_id: str, count: int) -> None:
    """Add ended tasks in batches, as many calls at once would."""
    participants = [wire.Participant(user_id=user_id, role="local")]
    expiration_time = int(time.time()) + 86400
    for number in range(count):
        task = wire.Task(
            protocol_name="bench", participants=participants, expiration_time=expiration_time
        )
        core.parts.tasks.finish(user_id, core.parts.tasks.create(user_id, task))
        if number % _BATCH == 0:
            await core.parts.store.committed()
            await asyncio.sleep(0)
    await core.parts.store.committed()


WAITING_LIST = keys.protocol_list("waiting", "started", "local")
"""The list of the ten tasks that are not ended, in each store."""
