"""An engine that answers by the contract of the control API, for commands that ask one."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from engine.cli.main import main
from engine.kits.aio import Portal
from engine.model.home import Home


class AnsweringEngine:
    """Answers `METHOD /path` with what `answers` holds: JSON data, or a list as ndjson lines.

    `asked` are the requests so far, as (path, query or body).
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else dict(request.query)
        self.asked.append((request.path, body))
        answer = self.answers[f"{request.method} {request.path}"]
        if isinstance(answer, list):
            return web.Response(text="".join(json.dumps(line) + "\n" for line in answer))
        return web.json_response(answer, status=400 if "error" in answer else 200)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An empty ENGINE_HOME with a path that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="engine") as folder:
        monkeypatch.setenv("ENGINE_HOME", folder)
        yield Home(Path(folder))


@pytest.fixture
def engine(home: Home) -> Iterator[AnsweringEngine]:
    """A running engine in `home`."""
    engine = AnsweringEngine(home)
    portal = Portal()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", engine.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.UnixSite(runner, str(home.socket)).start()

    portal.run(start())
    yield engine
    portal.run(runner.cleanup())
    portal.close()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], home: Home):
    """Run `engine ARGUMENTS` in this process; returns exit code, standard output and error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
