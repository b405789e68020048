"""ControlClient against a real HTTP server on a real Unix socket."""

import asyncio
import json
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from aiohttp import web

from engine.daemon.client import ControlClient, error_from_json
from engine.kits.aio import Portal
from engine.model import errors
from engine.model.home import Home

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
def home() -> Iterator[Path]:
    # A socket's path must be short; those of tmp_path are not always.
    with tempfile.TemporaryDirectory(prefix="engine") as folder:
        yield Path(folder)


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[[Handler], ControlClient]]:
    portal = Portal()
    runners: list[web.AppRunner] = []

    def start(handler: Handler) -> ControlClient:
        async def run() -> None:
            app = web.Application(client_max_size=64 * 2**20)
            app.router.add_route("*", "/{path:.*}", handler)
            runners.append(web.AppRunner(app, shutdown_timeout=0.1))
            await runners[0].setup()
            await web.UnixSite(runners[0], str(Home(home).socket)).start()

        portal.run(run())
        return ControlClient(home)

    yield start
    for runner in runners:
        portal.run(runner.cleanup())
    portal.close()


async def echo(request: web.Request) -> web.Response:
    body = await request.json() if request.can_read_body else None
    return web.json_response(
        {"method": request.method, "path": request.path, "query": dict(request.query), "body": body}
    )


def test_get_sends_the_query_and_returns_the_json_value(serve):
    client = serve(echo)
    assert client.get("/v1/storage", user="user ö", prefix="a:b", values=1) == {
        "method": "GET",
        "path": "/v1/storage",
        "query": {"user": "user ö", "prefix": "a:b", "values": "1"},
        "body": None,
    }


def test_post_sends_and_returns_json_of_five_megabytes(serve):
    body = {"data": "x" * 5_000_000}
    assert serve(echo).post("/v1/call", body)["body"] == body


def test_a_stream_yields_each_line_before_the_next_one_is_sent(serve):
    received = threading.Event()

    async def in_step(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(3):
            received.clear()
            await response.write(json.dumps({"number": number}).encode() + b"\n")
            assert await asyncio.to_thread(received.wait, 10)
        return response

    seen = []
    for line in serve(in_step).stream("POST", "/v1/apply", {}, timeout=10):
        seen.append(line["number"])
        received.set()
    assert seen == [0, 1, 2]


def test_an_error_within_a_stream_is_raised_after_the_lines_before_it(serve):
    async def failing(request: web.Request) -> web.StreamResponse:
        error = {"type": "LockHeldError", "message": "m", "hint": "", "details": {"holder": "h"}}
        return web.Response(text=f'{{"a": 1}}\n{json.dumps({"error": error})}\n')

    lines = serve(failing).stream("POST", "/v1/apply", {})
    assert next(lines) == {"a": 1}
    with pytest.raises(errors.LockHeldError) as caught:
        next(lines)
    assert caught.value.holder == "h"


def test_nobody_answers_where_no_engine_ever_was(home):
    with pytest.raises(errors.EngineNotRunningError, match="No engine is running in"):
        ControlClient(home).get("/v1/status")


def test_nobody_answers_on_the_socket_that_a_killed_engine_left(home):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(Home(home).socket))
    with pytest.raises(errors.EngineNotRunningError, match="engine apply"):
        ControlClient(home).get("/v1/status")


def test_an_engine_that_goes_away_while_asked_is_not_running(serve):
    async def dying(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    with pytest.raises(errors.EngineNotRunningError, match="went away"):
        serve(dying).get("/v1/status")


def test_an_engine_that_goes_away_within_an_answer_is_not_running(serve):
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b'{"a": ')
        assert request.transport is not None
        request.transport.close()
        return response

    with pytest.raises(errors.EngineNotRunningError, match="went away"):
        serve(cut).get("/v1/status")


def test_an_engine_that_keeps_silent_is_given_up_on(home):
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(Home(home).socket))
        silent.listen()
        with pytest.raises(errors.DeadlineExceededError, match=r"0\.05 seconds"):
            ControlClient(home).post("/v1/call", {}, timeout=0.05)


def test_the_error_that_the_engine_names_is_raised(serve):
    async def failing(request: web.Request) -> web.Response:
        error = {"type": "NotFoundError", "message": "No user x.", "hint": "Look.", "details": {}}
        return web.json_response({"error": error}, status=404)

    with pytest.raises(errors.NotFoundError) as caught:
        serve(failing).get("/v1/storage")
    assert (caught.value.message, caught.value.hint) == ("No user x.", "Look.")


def test_a_failure_without_a_named_error_says_where_to_look(serve):
    async def broken(request: web.Request) -> web.Response:
        return web.Response(status=500, text="500 Internal Server Error")

    with pytest.raises(errors.EngineError, match=r"HTTP status 500.*engine logs engine"):
        serve(broken).get("/v1/status")


FAULT = errors.Fault("f.yaml", 3, 5, "users.a", "wrong", "Mend it.")


@pytest.mark.parametrize(
    ("error", "details"),
    [
        (errors.UsageError("m", "h"), {}),
        (errors.InvalidManifestError([FAULT]), {"faults": [asdict(FAULT)]}),
        (errors.FlowFailedError("m", {"flow": "f"}), {"flow": "f"}),
        (errors.InvalidMessageError("m", "data.n"), {"data_path": "data.n"}),
        (errors.LockHeldError("m", "pid 7", "h"), {"holder": "pid 7"}),
        (errors.AppliedInPartError(["a", "b"]), {"failures": ["a", "b"]}),
        (
            errors.FlowInstanceException("ep", "02ab", "why"),
            {"flow_endpoint": "ep", "user_id": "02ab", "reason": "why"},
        ),
    ],
)
def test_an_error_survives_the_way_through_json(error, details):
    sent = {
        "type": type(error).__name__,
        "message": error.message,
        "hint": error.hint,
        "details": details,
    }
    received = error_from_json(json.loads(json.dumps(sent)))
    assert type(received) is type(error)
    assert str(received) == str(error)
    assert vars(received) == vars(error)


@pytest.mark.parametrize("name", ["SomethingNew", "Fault", "Any", ""])
def test_an_unknown_error_keeps_its_text(name):
    received = error_from_json({"type": name, "message": "m", "hint": "h"})
    assert type(received) is errors.EngineError
    assert str(received) == "m h"
