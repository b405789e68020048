"""Workers beside a notebook: started with a call, ended with the process.

They run on the one loop that `engine.serving` has in a thread; plain runs of flows have threads of
their own.
"""

import asyncio
import atexit
import contextlib
import logging
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from typing import Any

from engine.model.errors import CoreUnavailableError
from engine.model.ids import DEFAULT_DISPATCH_POINT
from engine.model.secrets import resolve
from engine.serving.bridge import CoLinkLike, bridge
from engine.workers.dispatch import run_dispatch_worker
from engine.workers.get_instance import run_get_instance_worker

log = logging.getLogger(__name__)
_PATIENCE = 30.0
_FAREWELL = 5.0
_LEFT_OPEN = "???"
_API_INFOS = "api_infos"


class RunningWorker:
    """A worker that was started; it ends with the process, or with `stop`."""

    def __init__(self, running: "Future[None]", ended: "Future[None]") -> None:
        self._running = running
        self._ended = ended

    def stop(self) -> None:
        """End the worker; the message it is at work on is taken over by another."""
        self._running.cancel()
        wait((self._ended,), _FAREWELL)


def run_dispatch_worker_thread(
    cl: CoLinkLike,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    flow_modules_base_path: str | None = None,
    api_infos: Sequence[Any] | None = None,
) -> RunningWorker:
    """Run flows of the user of `cl` at a dispatch point, in the background; returns once it does.

    Flow classes come from installed plugins: `flow_modules_base_path` is accepted and not used.
    `api_infos` takes the place of every `api_infos: ???` in a flow's configuration, in this
    process only.
    """

    def resolve_secrets(config: Any) -> Any:
        return _with_api_infos(resolve(config, os.environ), api_infos)

    client, catalog = bridge().client(cl), bridge().catalog

    def run(ready: asyncio.Event) -> Coroutine[Any, Any, None]:
        return run_dispatch_worker(
            client, catalog, dispatch_point, resolve_secrets=resolve_secrets, ready=ready
        )

    return _started(run, f"the dispatch worker at {dispatch_point}")


def run_dispatch_worker_threads(
    cl: CoLinkLike,
    num_workers: int,
    dispatch_point: str = DEFAULT_DISPATCH_POINT,
    flow_modules_base_path: str | None = None,
    api_infos: Sequence[Any] | None = None,
) -> list[RunningWorker]:
    """Start `num_workers` workers as `run_dispatch_worker_thread` does."""
    return [
        run_dispatch_worker_thread(cl, dispatch_point, flow_modules_base_path, api_infos)
        for _ in range(num_workers)
    ]


def run_get_instance_worker_thread(cl: CoLinkLike) -> RunningWorker:
    """Serve and make requests for instances of the user of `cl`, in the background."""
    client, catalog = bridge().client(cl), bridge().catalog

    def run(ready: asyncio.Event) -> Coroutine[Any, Any, None]:
        return run_get_instance_worker(client, catalog, ready=ready)

    return _started(run, "the get_instance worker")


def _started(run: Callable[[asyncio.Event], Coroutine[Any, Any, None]], what: str) -> RunningWorker:
    """Start a worker on the loop and wait until it is ready, or has failed."""
    ready, settled, ended = asyncio.Event(), Future[None](), Future[None]()

    async def announce() -> None:
        await ready.wait()
        _settle(settled)

    async def work() -> None:
        announcing = asyncio.create_task(announce())
        try:
            await run(ready)
        finally:
            announcing.cancel()
            _settle(ended)

    running = bridge().start(work())
    running.add_done_callback(lambda _: _settle(settled))
    wait((settled,), _PATIENCE)
    if running.done():
        running.result()
    if not ready.is_set():
        running.cancel()
        raise CoreUnavailableError(f"{what} did not start within {_PATIENCE:g} s.")
    log.info("%s has started", what)
    worker = RunningWorker(running, ended)
    # Before the core, should that have been started in this process: it would be missed.
    atexit.register(worker.stop)
    return worker


def _settle(future: "Future[None]") -> None:
    with contextlib.suppress(InvalidStateError):
        future.set_result(None)


def _with_api_infos(config: Any, api_infos: Sequence[Any] | None) -> Any:
    if api_infos is None:
        return config
    if isinstance(config, dict):
        return {
            key: list(api_infos)
            if key == _API_INFOS and value == _LEFT_OPEN
            else _with_api_infos(value, api_infos)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_with_api_infos(item, api_infos) for item in config]
    return config
