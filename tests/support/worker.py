"""A dispatch worker, or a scheduler, in a process of its own that a test may kill.

`python -m tests.support.worker ADDRESS JWT [dispatch|scheduler]`. Environment, for the dispatch
worker: PLAIN lets it use the plain protocol only; DIE_AT is the number of the writing call to the
core at which it ends by SIGKILL, DIE whether `before` the call is made or `after` it has succeeded.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from engine.colink.client import Connections
from engine.colink.rpc import Caller
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.scheduler import run_scheduler
from tests.support.network import catalog

WRITING = ("UpdateEntry", "UpdateEntries", "CreateTask", "FinishTask")
"""The calls that change something while a turn is worked on."""

Call = Callable[..., Awaitable[Any]]


async def main(address: str, jwt: str, kind: str = "dispatch") -> None:
    """Print `ready` once it works; end with the process."""
    ready = asyncio.Event()
    async with Connections() as connections:
        client = connections.client(address, jwt)
        if os.environ.get("PLAIN"):
            client._caller._channel.extended = False
        if kind == "scheduler":
            working = asyncio.create_task(run_scheduler(client, ready=ready))
        else:
            working = asyncio.create_task(run_dispatch_worker(client, catalog(), ready=ready))
        await ready.wait()
        if "DIE_AT" in os.environ:
            die_at(int(os.environ["DIE_AT"]), before=os.environ["DIE"] == "before")
        print("ready", flush=True)
        await working


def die_at(number: int, *, before: bool) -> None:
    """Let this process be killed at a writing call from now on, the first being number 1."""
    calls = 0

    def deadly(call: Call) -> Call:
        async def counted(self: Caller, method: str, request: Any, **options: Any) -> Any:
            nonlocal calls
            extension = call is plain_extension and self._channel.extended
            counts = method in WRITING and (extension or call is plain_call)
            calls += counts
            if counts and calls == number and before:
                os.kill(os.getpid(), signal.SIGKILL)
            reply = await call(self, method, request, **options)
            if counts and calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return reply

        return counted

    plain_call, plain_extension = Caller.call, Caller.call_extension
    Caller.call = deadly(plain_call)  # type: ignore[method-assign]
    Caller.call_extension = deadly(plain_extension)  # type: ignore[method-assign]


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
