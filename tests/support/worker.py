"""A dispatch worker in a process of its own: `python -m tests.support.worker ADDRESS JWT`."""

import asyncio
import sys

from engine.colink.client import Connections
from engine.workers.dispatch import run_dispatch_worker
from tests.support.network import catalog


async def main(address: str, jwt: str) -> None:
    """Print `ready` once it works; end with the process."""
    ready = asyncio.Event()
    async with Connections() as connections:
        client = connections.client(address, jwt)
        working = asyncio.create_task(run_dispatch_worker(client, catalog(), ready=ready))
        await ready.wait()
        print("ready", flush=True)
        await working


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
