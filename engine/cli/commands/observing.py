"""status, logs, events and storage: what is, and what happened."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from engine.cli import completing, output, render
from engine.cli import logs as reading
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Follow, Format, Output
from engine.cli.session import Session, session_of
from engine.daemon.client import ControlClient
from engine.model.errors import EngineNotRunningError, NotFoundError
from engine.model.home import Home

_LOG_PERIOD = 0.2
_STATUS_PERIOD = 1.0
_NO_CORE = {"kind": "embedded", "address": "", "ready": False, "message": ""}
_NO_ENGINE = {"core": _NO_CORE, "manifests": []}


def status(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="Only this manifest.", autocompletion=completing.manifests
        ),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Show it again on each change, until Ctrl-C.")
    ] = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Show how everything is, and why something is not right."""
    session = session_of(context)
    client = session.client()
    if watch:
        return _watch(client, name, output_format)
    try:
        value = _selected(client.get("/v1/status"), name)
    except EngineNotRunningError as error:
        if output_format is Format.JSON:
            output.show_json(_NO_ENGINE)
            return ExitCode.DONE
        output.show(f"{error}")
        return ExitCode.FAILED
    if output_format is Format.JSON:
        output.show_json(value)
    else:
        output.show(render.status(value))
    return ExitCode.DONE


def _watch(client: ControlClient, name: str | None, output_format: Format) -> int:
    def changes() -> Iterator[dict[str, Any]]:
        shown = None
        while True:
            value = _selected(client.get("/v1/status"), name)
            if value != shown:
                yield value
            shown = value
            time.sleep(_STATUS_PERIOD)

    if output_format is Format.JSON:
        for value in changes():
            output.show_json_line(value)
    with output.replacing() as show:
        for value in changes():
            show(render.status(value))
    return ExitCode.DONE


def _selected(value: dict[str, Any], name: str | None) -> dict[str, Any]:
    if name is None:
        return value
    found = [manifest for manifest in value["manifests"] if manifest["name"] == name]
    if not found:
        names = ", ".join(manifest["name"] for manifest in value["manifests"]) or "none"
        raise NotFoundError(f"No manifest {name!r} is applied.", f"Applied are: {names}.")
    return value | {"manifests": found}


def logs(
    context: typer.Context,
    selector: Annotated[
        str,
        typer.Argument(
            metavar="[USER[/WORKER]]",
            help="Default: all workers; also engine, core, operators.",
            autocompletion=completing.logs,
        ),
    ] = "",
    follow: Follow = False,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=0, metavar="N", help="Only the last N lines.")
    ] = None,
) -> int:
    """Print what workers, and the flows they run, have printed."""
    home = session_of(context).home()
    files = reading.log_files(home, selector)
    if not files and not follow:
        output.complain(f"No worker has printed anything yet in {home.logs}.")
    single = selector in files
    follower = reading.Follower()
    _show_lines(_last(follower.turn(files, final=not follow), lines), single)
    while follow:
        time.sleep(_LOG_PERIOD)
        _show_lines(follower.turn(_present(home, selector)), single)
    follower.close()
    return ExitCode.DONE


def _last(found: Iterator[tuple[str, str]], count: int | None) -> Iterable[tuple[str, str]]:
    return found if count is None else deque(found, maxlen=count)


def _show_lines(found: Iterable[tuple[str, str]], single: bool) -> None:
    output.show_lines(line if single else f"{source} | {line}" for source, line in found)


def _present(home: Home, selector: str) -> dict[str, Any]:
    """Return the log files there are now; a worker that came with an edit has a new one."""
    try:
        return dict(reading.log_files(home, selector))
    except NotFoundError:
        return {}


def events(
    context: typer.Context, follow: Follow = False, output_format: Output = Format.TEXT
) -> int:
    """Print what the engine did and why, oldest first."""
    session = session_of(context)
    show: Callable[[Mapping[str, Any]], None] = (
        output.show_json_line
        if output_format is Format.JSON
        else lambda event: output.show(render.event(event))
    )
    try:
        for event in session.client().stream("GET", f"/v1/events?follow={int(follow)}"):
            show(event)
    except EngineNotRunningError:
        if follow:
            raise
        for event in _stored_events(session):
            show(event)
    return ExitCode.DONE


def _stored_events(session: Session) -> Iterator[dict[str, Any]]:
    """Yield what the last engine has written; a crash may have cut its last line."""
    try:
        lines = session.home().events.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def storage(
    context: typer.Context,
    user: Annotated[
        str,
        typer.Argument(
            metavar="USER", help="A user of the embedded core.", autocompletion=completing.users
        ),
    ],
    prefix: Annotated[
        str | None, typer.Argument(metavar="[PREFIX]", help="Only keys below it, such as flows.")
    ] = None,
    values: Annotated[bool, typer.Option("--values", help="Show the values too.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="All keys of the user.")] = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Show a user's storage as a tree.

    Without PREFIX: what is served, and the ids of all instances.
    """
    client = session_of(context).client()

    def entries(below: str) -> list[dict[str, Any]]:
        answer = client.get("/v1/storage", user=user, prefix=below, values=int(values))
        return list(answer["entries"])

    if prefix is None and not everything:
        flows, instances = entries("flows"), entries("instance_metadata")
        if output_format is Format.JSON:
            output.show_json(flows + instances)
        else:
            output.show(render.served(flows, instances, values=values))
        return ExitCode.DONE
    found = entries(prefix or "")
    if output_format is Format.JSON:
        output.show_json(found)
    else:
        output.show(render.storage(found, prefix or "", values=values) or "(nothing)")
    return ExitCode.DONE
