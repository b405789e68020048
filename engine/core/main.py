"""The console script `colink-server`: the embedded core in a process of its own (§3.5, §11)."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.core import maintenance
from engine.core.install import install
from engine.core.server import Core
from engine.core.settings import Settings, parse
from engine.kits.aio import cancel_and_wait
from engine.kits.files import private_folder
from engine.kits.parentage import Parent
from engine.model.errors import EngineError, UsageError
from engine.serving.audit import Audit

_STORAGE_FAILED = 75
_DAY = 86400.0
_INSTANT_SERVERS = "instant_servers"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a core until SIGTERM, Ctrl-C, or the end of the engine that started it; or `install` it.

    `check` and `backup` as the first argument do that instead: see `maintenance`. Returns 0; 2
    for wrong settings, 1 when it cannot start, 75 when the storage failed.
    """
    parent: Parent | None = None
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given[:1] == ["install"]:
            print(f"{install(given[1:])} runs this core.")  # noqa: T201 - the program's output
            return 0
        if given and given[0] in maintenance.COMMANDS:
            return maintenance.run(given)
        settings = parse(given, os.environ)
        # Storage and queues have users' secrets in them; so for what Valkey writes as well.
        os.umask(0o077)
        if settings.child:
            parent = Parent.adopt()
            first = parent.read()
            if first is None:
                return 0
            settings = replace(settings, port=int(first.get("port", settings.port)))
            parent.watch()
        elif settings.home.parent.name == _INSTANT_SERVERS:
            _detach(settings.home)
        logging.basicConfig(
            level=logging.INFO,
            stream=sys.stderr,
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        )
        return asyncio.run(_run(settings, parent))
    except (EngineError, OSError) as error:
        if parent is not None:
            parent.tell({"state": "error", "message": str(error)})
        print(f"colink-server: {error}", file=sys.stderr)  # noqa: T201 - the program's output
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 0


async def _run(settings: Settings, parent: Parent | None) -> int:
    core, stop = Core(settings, Audit(parent.tell) if parent else None), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await core.start()
    renewing = asyncio.create_task(_renew(core, parent))
    try:
        _tell_ready(core, parent)
        waits = [asyncio.create_task(event.wait()) for event in (stop, core.failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
    finally:
        await cancel_and_wait([renewing])
        await core.stop()
    return _STORAGE_FAILED if core.failed.is_set() else 0


async def _renew(core: Core, parent: Parent | None) -> None:
    """Renew the host's token each day: upstream's ends while the core runs on."""
    while True:
        await asyncio.sleep(_DAY)
        core.renew_host_token()
        _tell_ready(core, parent)


def _tell_ready(core: Core, parent: Parent | None) -> None:
    if parent is not None:
        parent.tell({"state": "ready", "address": core.address, "host_token": core.host_token})


def _detach(home: Path) -> None:
    """Live like an InstantServer's core: apart from the client's output, but not beyond its life.

    The client ends it with SIGKILL, or not at all when it is killed itself.
    """
    client = os.getppid()
    log = private_folder(home) / "core.log"
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)

    def watch() -> None:
        while os.getppid() == client:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="client", daemon=True).start()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
