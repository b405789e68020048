"""The control API: HTTP over a Unix socket in ENGINE_HOME, for the command line.

Whoever can open the socket is the owner (mode 0600 in a folder of mode 0700), so there is no
further authentication. Every error leaves as `{"error": {"type", "message", "hint", "details"}}`.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any, TypeVar

import structlog
from aiohttp import web

from engine.controller.controller import Controller
from engine.controller.operations import Operations
from engine.kits.aio import cancel_and_wait
from engine.model import errors
from engine.model.composition import Composition
from engine.model.home import Home
from engine.model.status import to_json
from engine.reconcile import text

log = structlog.get_logger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
_LOOK = 0.5
"""Seconds after which it is noticed that whoever waits for a call has left."""

_STATUS: dict[type[errors.EngineError], int] = {
    errors.UsageError: 400,
    errors.InvalidManifestError: 422,
    errors.PluginError: 422,
    errors.NotFoundError: 404,
    errors.AlreadyExistsError: 409,
    errors.AccessDeniedError: 403,
    errors.FlowInstanceException: 424,
    errors.InvalidMessageError: 422,
    errors.FlowFailedError: 424,
    errors.CallCancelledError: 409,
    errors.CoreUnavailableError: 503,
    errors.DeadlineExceededError: 504,
    errors.BusyError: 429,
    errors.EngineNotRunningError: 503,
    errors.LockHeldError: 423,
    errors.AppliedInPartError: 409,
    errors.PermanentError: 400,
    errors.TransientError: 503,
    errors.EngineError: 500,
}


def error_json(error: errors.EngineError) -> dict[str, Any]:
    """Return what the client needs to raise the same error on its side."""
    details: dict[str, Any] = {}
    if isinstance(error, errors.InvalidManifestError):
        details = {"faults": [asdict(fault) for fault in error.faults]}
    elif isinstance(error, errors.FlowFailedError):
        details = error.details
    elif isinstance(error, errors.BusyError):
        details = {"retry_after": error.retry_after}
    elif isinstance(error, errors.InvalidMessageError):
        details = {"data_path": error.data_path}
    elif isinstance(error, errors.LockHeldError):
        details = {"holder": error.holder}
    elif isinstance(error, errors.AppliedInPartError):
        details = {"failures": list(error.failures)}
    return {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "details": details,
    }


def status_of(error: errors.EngineError) -> int:
    """Return the HTTP status that stands for `error`: its class's, or that of the nearest base."""
    return next(_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS)


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except errors.EngineError as error:
        return web.json_response({"error": error_json(error)}, status=status_of(error))
    except (KeyError, TypeError, ValueError) as error:
        log.exception("bad request", path=request.path)
        wrong = errors.UsageError(f"The request {request.path} is malformed: {error!r}.")
        return web.json_response({"error": error_json(wrong)}, status=400)


class ControlServer:
    """Answers the command line on behalf of a controller."""

    def __init__(self, controller: Controller, operations: Operations, home: Home) -> None:
        self._controller = controller
        self._operations = operations
        self._home = home
        self._runner: web.AppRunner | None = None
        self.stopped = asyncio.Event()

    async def start(self) -> None:
        """Answer on the socket from now on; a socket left by a dead engine is replaced."""
        app = web.Application(middlewares=[_errors], client_max_size=256 * 2**20)
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.post("/v1/plan", self._plan),
                web.post("/v1/apply", self._apply),
                web.post("/v1/down", self._down),
                web.post("/v1/call", self._call),
                web.get("/v1/storage", self._storage),
                web.get("/v1/users", self._users),
                web.post("/v1/users/token", self._token),
                web.get("/v1/events", self._events),
                web.get("/v1/dead", self._dead),
                web.get("/v1/dead/letter", self._dead_letter),
                web.post("/v1/dead/retry", self._retry),
                web.post("/v1/dead/drop", self._drop),
                web.post("/v1/shutdown", self._shutdown),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        self._home.socket.unlink(missing_ok=True)
        await web.UnixSite(self._runner, str(self._home.socket)).start()
        self._home.socket.chmod(0o600)

    async def close(self) -> None:
        """Stop answering and remove the socket."""
        if self._runner is not None:
            await self._runner.cleanup()
        self._home.socket.unlink(missing_ok=True)

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(to_json(self._controller.status()))

    async def _plan(self, request: web.Request) -> web.Response:
        body = await request.json()
        composition = Composition.from_json(body["manifest"])
        plan = await self._controller.plan(composition, body.get("environment", {}))
        return web.json_response(text.to_json(plan) | {"text": text.plan_text(plan)})

    async def _apply(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        progress = self._controller.apply(
            [Composition.from_json(manifest) for manifest in body["manifests"]],
            body.get("environment", {}),
            wait=body.get("wait", True),
            timeout=float(body.get("timeout") or 120.0),
        )
        return await _stream(request, progress)

    async def _down(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        everything = bool(body.get("all"))
        progress = self._controller.down(
            body.get("names", []),
            everything=everything,
            purge=bool(body.get("purge")),
            timeout=float(body.get("timeout") or 120.0),
        )
        response = await _stream(request, progress)
        if everything:
            self.stopped.set()
        return response

    async def _call(self, request: web.Request) -> web.Response:
        body = await request.json()
        calling = self._operations.call(
            body["user"],
            body["name"],
            body["data"],
            as_user=body.get("as"),
            timeout=float(body.get("timeout") or 60.0),
        )
        return web.json_response({"data": await _while_asked(request, calling)})

    async def _dead(self, request: web.Request) -> web.Response:
        letters = await self._operations.dead_letters(request.query["user"])
        return web.json_response({"letters": [asdict(letter) for letter in letters]})

    async def _dead_letter(self, request: web.Request) -> web.Response:
        letter = await self._operations.dead_letter(request.query["user"], request.query["id"])
        return web.json_response({"letter": asdict(letter)})

    async def _retry(self, request: web.Request) -> web.Response:
        body = await request.json()
        timeout = float(body.get("timeout") or 60.0)
        retrying = self._operations.retry(body["user"], body["id"], timeout)
        return web.json_response({"data": await _while_asked(request, retrying)})

    async def _drop(self, request: web.Request) -> web.Response:
        body = await request.json()
        dropped = await self._operations.drop(
            body["user"], body.get("ids", []), everything=bool(body.get("all"))
        )
        return web.json_response({"dropped": dropped})

    async def _storage(self, request: web.Request) -> web.Response:
        entries = await self._operations.storage(
            request.query["user"],
            request.query.get("prefix", ""),
            values=request.query.get("values", "0") == "1",
        )
        return web.json_response({"entries": entries})

    async def _users(self, request: web.Request) -> web.Response:
        return web.json_response({"users": self._operations.users()})

    async def _token(self, request: web.Request) -> web.Response:
        body = await request.json()
        token = await self._operations.token(body["user"], float(body.get("expires_in") or 86400))
        return web.json_response({"jwt": token})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        follow = request.query.get("follow", "0") == "1"

        async def lines() -> AsyncIterator[Mapping[str, Any]]:
            log = self._controller.events
            if not follow:
                for event in log.recent():
                    yield asdict(event)
                return
            async with contextlib.aclosing(log.follow(recent=True)) as events:
                async for event in events:
                    yield asdict(event)

        return await _stream(request, lines())

    async def _shutdown(self, request: web.Request) -> web.Response:
        self.stopped.set()
        return web.json_response({})


async def _while_asked(request: web.Request, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancel it when the one who asked has left, as by Ctrl-C."""
    task = asyncio.create_task(work)
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=_LOOK)
            if request.transport is None or request.transport.is_closing():
                break
        if not task.done():
            raise errors.CallCancelledError("Whoever asked has left.")
        return task.result()
    finally:
        await cancel_and_wait([task])


async def _stream(
    request: web.Request, lines: AsyncIterator[Mapping[str, Any]]
) -> web.StreamResponse:
    """Send `lines` as JSON, one a line. An error ends the stream as a line `{"error": ...}`."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        try:
            async for line in lines:
                await response.write(json.dumps(line).encode() + b"\n")
        except errors.EngineError as error:
            await response.write(json.dumps({"error": error_json(error)}).encode() + b"\n")
        await response.write_eof()
    return response
