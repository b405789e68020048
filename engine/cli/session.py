"""What all commands of one run of `engine` share: the home that is meant, and what to say."""

from dataclasses import dataclass
from pathlib import Path

import typer

from engine.app import home as homes
from engine.daemon.client import ControlClient
from engine.model.home import Home


@dataclass
class Session:
    """One run of the command line; `home_option` is what `--home` or ENGINE_HOME says."""

    home_option: str | None = None
    on_interrupt: str = ""
    """Said on Ctrl-C, by commands whose work goes on without them."""

    def home(self) -> Home:
        """Return the ENGINE_HOME, made if need be; UsageError when it cannot be written."""
        return Home(homes.resolve(self.home_option))

    def client(self) -> ControlClient:
        """Return a client of the engine in this home, whether one runs there or not."""
        return ControlClient(self.home().path)

    def ensure(self) -> ControlClient:
        """Return a client of the running engine; start one in the background if none runs."""
        from engine.app import engine  # asyncio and subprocess, which a mere question needs not

        return engine.ensure(self.home().path)

    def folder(self) -> Path:
        """Return the path of the ENGINE_HOME."""
        return self.home().path


def session_of(context: typer.Context) -> Session:
    """Return the session of the command that runs in `context`."""
    session = context.obj
    assert isinstance(session, Session)
    return session
