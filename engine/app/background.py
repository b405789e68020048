"""The background engine's process: `python -m engine.app.background HOME`.

Everything is built here, once, and taken down in the opposite order. SIGTERM and SIGINT drain.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

from engine.colink.client import Connections
from engine.controller.controller import Controller
from engine.controller.cores import Cores
from engine.controller.events import EventLog
from engine.controller.identities import Identities
from engine.controller.operations import Operations
from engine.controller.plugins import Plugins
from engine.controller.sessions import Sessions
from engine.daemon.lock import EngineLock
from engine.daemon.server import ControlServer
from engine.kits.aio import cancel_and_wait
from engine.kits.clock import SystemClock
from engine.kits.files import private_folder
from engine.model.composition import Composition
from engine.model.errors import EngineError
from engine.model.home import Home
from engine.workers.supervisor import Supervisor

_FOR_EVER = 366 * 86_400.0


class Engine:
    """One engine in one ENGINE_HOME; `async with` starts and drains it."""

    def __init__(self, home: Path) -> None:
        self.home = Home(home)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Engine":
        """Take the lock, start the control loop and answer the command line.

        Raises LockHeldError when another engine runs in this ENGINE_HOME.
        """
        async with AsyncExitStack() as stack:
            home = self.home
            private_folder(home.logs)
            stack.enter_context(EngineLock(home.lock))
            clock = SystemClock()
            events = EventLog(home.events, clock)
            connections = await stack.enter_async_context(Connections())
            supervisor = Supervisor(clock=clock)
            stack.push_async_callback(supervisor.close)
            cores = Cores(home, supervisor, connections, events)
            sessions = Sessions(cores, connections, Identities(home.identities), clock)
            plugins = Plugins()
            self.controller = Controller(home, clock, events, supervisor, cores, sessions, plugins)
            await stack.enter_async_context(self.controller)
            operations = Operations(self.controller, sessions)
            self.server = ControlServer(self.controller, operations, home)
            await self.server.start()
            stack.push_async_callback(self.server.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()


async def serve(
    home: Path, manifests: Sequence[Composition] = (), environment: Mapping[str, str] = {}
) -> int:
    """Run an engine until it is told to stop; apply `manifests` first, if there are any.

    Returns the exit code, 0; raises what makes the apply impossible.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with Engine(home) as engine:
        ends = [asyncio.create_task(e.wait()) for e in (stop, engine.server.stopped)]
        applying = asyncio.create_task(_apply(engine.controller, manifests, environment))
        try:
            await asyncio.wait((*ends, applying), return_when=asyncio.FIRST_COMPLETED)
            if applying.done():
                applying.result()
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait((*ends, applying))
    return 0


async def _apply(
    controller: Controller, manifests: Sequence[Composition], environment: Mapping[str, str]
) -> None:
    """Apply manifests and print how it goes; what fails is tried again by the engine, in time."""
    if not manifests:
        return
    async for line in controller.apply(manifests, environment, wait=True, timeout=_FOR_EVER):
        if "text" in line or "message" in line:
            print(line.get("text") or line["message"], flush=True)  # noqa: T201


def main() -> int:
    """Run the engine of the ENGINE_HOME named by the first argument."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"]),
        ],
    )
    try:
        return asyncio.run(serve(Path(sys.argv[1])))
    except EngineError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    sys.exit(main())
