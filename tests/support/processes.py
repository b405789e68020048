"""Workers and schedulers in processes of their own: see `tests.support.worker`."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.network import Member


@asynccontextmanager
async def worker_process(
    user: Member, kind: str = "dispatch", **environment: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a worker in a process of its own, ready; it is killed in the end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.worker", user.client.address, user.client.jwt, kind),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    try:
        assert await said(process) == "ready"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def said(process: asyncio.subprocess.Process) -> str:
    """Return the next line that the process prints."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readline()).decode().strip()
