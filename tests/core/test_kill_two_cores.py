"""kill -9 of either of two cores at any time: each acknowledged task arrives, and once."""

import asyncio
import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.colink import keys, wire
from engine.colink.client import Client, Connections
from engine.model.errors import CoreUnavailableError, EngineError
from tests.support.core import CoreProcess, make_user

_KILLS = 4
_WORKERS = 4


@pytest.fixture(params=[False, True], ids=["direct", "reverse"])
def cores(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[list[CoreProcess]]:
    flags = ("--inter-core-reverse-mode",) if request.param else ()
    processes = [CoreProcess(tmp_path / name, *flags) for name in ("ann", "bob")]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            process.kill()


async def _acquainted(cores: list[CoreProcess], connections: Connections) -> list[Client]:
    ann, bob = [connections.client(core.address, (await make_user(core)).jwt) for core in cores]
    for client, other in ((ann, bob), (bob, ann)):
        token = await other.generate_token("guest", 2**31)
        await client.update(keys.known_user_token(other.user_id), token.encode())
        await client.update(keys.known_user_address(other.user_id), other.address.encode())
    return [ann, bob]


async def test_each_acknowledged_task_is_agreed_on(cores: list[CoreProcess]) -> None:
    acknowledged: list[str] = []
    rare = random.Random(7)
    async with Connections() as connections:
        ann, bob = await _acquainted(cores, connections)
        stop = asyncio.Event()

        async def create() -> None:
            roles = ((ann.user_id, "initiator"), (bob.user_id, "receiver"))
            while not stop.is_set():
                try:
                    acknowledged.append(await ann.run_task("greet", b"", roles, True))
                except EngineError:
                    # Her core is dead just now; what was not acknowledged counts for nothing.
                    await asyncio.sleep(0.01)

        workers = [asyncio.create_task(create()) for _ in range(_WORKERS)]
        for _ in range(_KILLS):
            victim, before = rare.choice(cores), len(acknowledged)
            while len(acknowledged) < before + 20:
                await asyncio.sleep(0.01)
            await asyncio.sleep(rare.random() * 0.05)
            await asyncio.to_thread(_restart, victim)
        stop.set()
        await asyncio.gather(*workers)
        for user in (ann, bob):
            await _all_started(user, acknowledged)


def _restart(core: CoreProcess) -> None:
    core.kill()
    core.start()


async def _all_started(user: Client, task_ids: list[str]) -> None:
    async with asyncio.timeout(60):
        while True:
            # The connection to a core that was killed waits a while before it tries again.
            payload = None
            with contextlib.suppress(CoreUnavailableError):
                payload = await user.read(keys.status_list("started"))
            listed = wire.CoLinkInternalTaskIDList.FromString(payload or b"")
            started = [one.task_id for one in listed.task_ids_with_key_paths]
            if set(started) >= set(task_ids):
                assert len(started) == len(set(started)), "each once"
                return
            # Hundreds of tasks: looking at their list is cheaper than a subscription for each.
            await asyncio.sleep(0.1)
