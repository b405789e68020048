"""The worker processes: `python -m engine.workers.process`, told by its parent what to be.

The first line on the socket pair (see `engine.kits.parentage`) is a `WorkerOrders` or an
`OperatorsOrders` as JSON. The process tells `{"state": "ready"}` once it serves, and
`{"state": "error", "message": ...}` when it cannot. SIGTERM drains: what runs is finished, nothing
new is taken. Tokens and the values of environment variables come in through the orders, never
through argv.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import msgspec

from engine.colink.client import Connections
from engine.flows import Flow
from engine.hooks.host import load_catalog
from engine.kits.parentage import Line, Parent
from engine.model.errors import EngineError
from engine.model.secrets import resolve
from engine.serving.audit import Audit
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.operators import Operators
from engine.workers.orders import OperatorsOrders, WorkerOrders

log = logging.getLogger(__name__)


def main() -> int:
    """Be what the parent's first line says, until SIGTERM or the parent's end."""
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    parent = Parent.adopt()
    first = parent.read()
    if first is None:
        return 0
    try:
        if first["kind"] == "dispatch":
            asyncio.run(_dispatch(parent, msgspec.convert(first, WorkerOrders)))
        else:
            asyncio.run(_operators(parent, first))
    except EngineError as error:
        parent.tell({"state": "error", "message": str(error)})
        log.error("%s", error)
        return 1
    return 0


async def _dispatch(parent: Parent, orders: WorkerOrders) -> None:
    """Run flows at one dispatch point of one user."""
    parent.watch()
    os.environ.update(orders.environment)
    catalog = load_catalog(Flow)
    async with Connections() as connections:
        client = connections.client(orders.address, orders.jwt, orders.tls)
        ready, stop = asyncio.Event(), _stop_event()
        announce = asyncio.create_task(_announce(parent, ready, orders.name))
        try:
            await run_dispatch_worker(
                client,
                catalog,
                orders.dispatch_point,
                resolve_secrets=_resolver(orders.environment),
                ready=ready,
                stop=stop,
                name=orders.name,
                audit=Audit(parent.tell),
            )
        finally:
            announce.cancel()


async def _operators(parent: Parent, first: Line) -> None:
    """Run the get_instance and scheduler operators of all users that the newest line names."""
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue()
    lines.put_nowait(first)

    def take(line: Line) -> None:
        loop.call_soon_threadsafe(lines.put_nowait, line)

    parent.watch(take)
    stop = _stop_event()
    async with Connections() as connections:
        operators = Operators(connections, tell=parent.tell)
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                line = asyncio.create_task(lines.get())
                await asyncio.wait({line, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if line.done():
                    await operators.follow(msgspec.convert(line.result(), OperatorsOrders))
                else:
                    line.cancel()
        finally:
            stopping.cancel()
            await operators.close()


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    return stop


async def _announce(parent: Parent, ready: asyncio.Event, name: str) -> None:
    await ready.wait()
    parent.tell({"state": "ready"})
    log.info("%s is ready", name)


def _resolver(environment: Mapping[str, str]) -> Any:
    known = dict(os.environ) | dict(environment)
    return lambda value: resolve(value, known)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
