"""Operators and variables shared with the SDK's own, which runs in a process of its own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator

import pytest

from engine.colink.client import Client, Connections
from engine.colink.operator import Operator, TaskContext
from engine.kits.aio import cancel_and_wait
from tests.support.plain_core import PlainCore, token

PROLOGUE = """
import sys, warnings
warnings.simplefilter("ignore")
import colink as CL
cl = CL.CoLink(sys.argv[1], sys.argv[2])
cl.set_task_id("task")
anna = CL.Participant(user_id="anna", role="r")
"""
SENDS = f"""{PROLOGUE}
from colink.p2p_inbox import VtP2pCtx
from threading import enumerate
cl.vt_p2p_ctx = VtP2pCtx(None)
cl.send_variable("v", b"from stock", [anna])
for thread in enumerate()[1:]:
    thread.join()
"""
RECEIVES = f"""{PROLOGUE}
from colink.p2p_inbox import VtP2pCtx
cl.vt_p2p_ctx = VtP2pCtx(None)
print(cl.recv_variable("v", anna).decode(), flush=True)
"""
OPERATES = f"""{PROLOGUE}
operator = CL.ProtocolOperator("stock")
@operator.handle("work:local")
def work(cl, param, participants):
    print(param.decode(), flush=True)
operator.run(cl)
"""


class Stock:
    """Runs programs that use the SDK; ends them after the test."""

    def __init__(self, core: PlainCore) -> None:
        self._core = core
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self, program: str, user_id: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", program, self._core.address, token(user_id)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        self._processes.append(process)
        return process

    async def close(self) -> None:
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
async def stock(plain_core: PlainCore) -> AsyncIterator[Stock]:
    stock = Stock(plain_core)
    yield stock
    await stock.close()


async def test_a_variable_of_the_sdk_arrives(stock: Stock, plain_client: Client):
    await stock.start(SENDS, "bob")
    assert await plain_client.recv_variable("task", "v", "bob", 20) == b"from stock"


async def test_a_variable_of_ours_arrives_at_the_sdk(stock: Stock, plain_client: Client):
    receiver = await stock.start(RECEIVES, "bob")
    await plain_client.send_variable("task", "v", b"from ours", "bob")
    async with asyncio.timeout(20):
        assert await receiver.stdout.readline() == b"from ours\n"


async def test_both_kinds_of_operators_share_one_queue(
    plain_core: PlainCore, stock: Stock, connections: Connections, plain_client: Client
):
    ours: list[str] = []
    theirs: list[str] = []

    async def handler(context: TaskContext) -> None:
        ours.append(context.param.decode())

    ready = asyncio.Event()
    running = asyncio.create_task(Operator(plain_client, {"work:local": handler}).run(ready))
    await ready.wait()
    process = await stock.start(OPERATES, "anna")

    async def read_on() -> None:
        while line := await process.stdout.readline():
            theirs.append(line.decode().strip())

    reading = asyncio.create_task(read_on())
    number = 0
    async with asyncio.timeout(30):
        while not (ours and theirs):
            task_id = await plain_client.run_task(
                "work", str(number).encode(), [("anna", "local")], False
            )
            await plain_client.wait_task(task_id, 10)
            number += 1
        while len(ours) + len(theirs) < number:
            await asyncio.sleep(0.005)
    await cancel_and_wait([running, reading])
    assert sorted(map(int, ours + theirs)) == list(range(number))
    queues = plain_core.queues_of("_internal:protocols:work:local:started:latest")
    assert len(queues) == 1
