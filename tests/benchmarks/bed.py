"""Where it all runs: an engine in a temporary ENGINE_HOME, its embedded core, and users on it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colink import CoLink

from engine.colink.client import Connections
from engine.colink.identity import KeyPair
from engine.model.home import Home
from tests.benchmarks.failure import BenchmarkError, tail
from tests.support.engine import EngineCommand, engine_home

_DAY = 86_400


class Bed:
    """Runs `engine` commands against one ENGINE_HOME; the first `apply` starts engine and core."""

    def __init__(self, engine: EngineCommand) -> None:
        self._engine = engine
        self.home = engine.home

    def __call__(self, *arguments: str | Path) -> str:
        """Run a command and return what it prints; BenchmarkError when it fails."""
        done = self._engine(*arguments, expect=None)
        if done.returncode:
            words = " ".join(map(str, arguments))
            raise BenchmarkError(
                f"`engine {words}` ended with {done.returncode}:\n{tail(done.stdout + done.stderr)}"
            )
        return done.stdout

    def seconds(self, *arguments: str | Path) -> float:
        """Return how long a command takes."""
        return duration(lambda: self(*arguments))

    def write(self, name: str, text: str) -> Path:
        """Write a manifest, as an editor does, in one move; return its path."""
        file, draft = self.home / f"{name}.yaml", self.home / f"{name}.draft"
        draft.write_text(text)
        return draft.replace(file)

    @property
    def address(self) -> str:
        """The core's address."""
        return str(self._engine.status()["core"]["address"])

    def user(self, name: str) -> CoLink:
        """Return the stock SDK's object for a user of an applied manifest."""
        return CoLink(self.address, self("users", "token", name).strip())

    async def strangers(self, count: int) -> list[str]:
        """Import fresh users of whom the engine knows nothing; return their tokens."""
        host_token = (Home(self.home).core / "host_token.txt").read_text()
        tokens = []
        async with Connections() as connections:
            host = connections.client(self.address, host_token)
            public_key = (await host.request_info()).core_public_key
            for _ in range(count):
                pair = KeyPair.generate()
                consent = pair.sign_consent(public_key, int(time.time()) + _DAY)
                tokens.append(await host.import_user(consent))
        return tokens


@contextlib.contextmanager
def bed() -> Iterator[Bed]:
    """Give a fresh one; at the end nothing of it is left."""
    with engine_home() as engine:
        yield Bed(engine)


def duration(action: Callable[[], Any]) -> float:
    """Return how many seconds `action` takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started
