"""§7.1, §7.2: operators written with the stock SDK, in processes of their own."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from functools import partial

from engine.colink import wire
from tests.support.contract import becomes
from tests.support.stock import blocking, sdk

_OPERATOR = """
import sys, uuid
import colink as CL
address, jwt, how = sys.argv[1:]
operator = CL.ProtocolOperator(__name__)

@operator.handle("job:@init")
def init(cl, param, participants):
    if how == "fails":
        raise Exception("on purpose")
    cl.create_entry("inits:" + str(uuid.uuid4()), b"")

@operator.handle("job:local")
def work(cl, param, participants):
    if param == b"fail":
        raise Exception("on purpose")
    cl.create_entry("done:" + cl.get_task_id(), param)

operator.run(CL.CoLink(address, jwt))
"""


@contextlib.asynccontextmanager
async def _operating(core, user, how: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a stock operator for `user`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", _OPERATOR, core.address, user.jwt, how),
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _run(user, param: bytes = b"p") -> str:
    me = [sdk.Participant(user_id=user.get_user_id(), role="local")]
    return await blocking(user.run_task, "job", param, me, False)


async def _status(user, task_id: str) -> str:
    record = await blocking(user.read_entry, f"_internal:tasks:{task_id}")
    return wire.Task.FromString(record).status


async def _done(user, task_id: str) -> None:
    """Assert that an operator does a task and finishes it."""
    assert await blocking(user.read_or_wait, f"done:{task_id}", timeout=40) == b"p"
    await becomes(partial(_status, user, task_id), "finished")


async def test_it_initialises_once_shares_a_queue_and_finishes_tasks(core, alice) -> None:
    flag, queue = "_internal:protocols:job:_is_initialized", "_internal:protocols:job:local"
    async with _operating(core, alice), _operating(core, alice):
        await _done(alice, await _run(alice))
        for task_id in [await _run(alice) for _ in range(6)]:
            await _done(alice, task_id)
        assert await blocking(alice.read_entry, flag) == b"\x01"
        assert await blocking(alice.read_entry, f"{queue}:operator_mq")
        inits = await blocking(alice.read_keys, f"{alice.get_user_id()}::inits", False)
        assert len(inits) == 1


async def test_tasks_from_before_its_start_are_done_too(core, alice) -> None:
    earlier = [await _run(alice) for _ in range(3)]
    await blocking(alice.finish_task, earlier.pop())
    async with _operating(core, alice):
        for task_id in earlier:
            await _done(alice, task_id)
    later = await _run(alice)
    async with _operating(core, alice):
        await _done(alice, later)


async def test_a_task_whose_handler_fails_stays_started(core, alice) -> None:
    async with _operating(core, alice) as process:
        await _done(alice, await _run(alice))
        failing = await _run(alice, b"fail")
        assert await asyncio.wait_for(process.wait(), 40) != 0, "the SDK's operator ends"
        assert await _status(alice, failing) == "started"


async def test_a_failing_init_leaves_the_protocol_uninitialised(core, alice) -> None:
    async with _operating(core, alice, "fails"):
        await _done(alice, await _run(alice))
        flag = await blocking(alice.read_entry, "_internal:protocols:job:_is_initialized")
        assert flag in (None, b"\x00")
