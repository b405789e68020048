"""validate, plan, apply and down: what a manifest declares, made so."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.cli import completing, inputs, output, render
from engine.cli.exit_codes import ExitCode
from engine.cli.options import (
    EnvFiles,
    File,
    Files,
    Format,
    Layers,
    Output,
    Profiles,
    Timeout,
    Yes,
)
from engine.cli.session import Session, session_of
from engine.daemon.client import ControlClient
from engine.daemon.lock import wait_released
from engine.model.composition import Composition
from engine.model.errors import (
    DeadlineExceededError,
    EngineNotRunningError,
    InvalidManifestError,
    NotFoundError,
    TransientError,
    UsageError,
)

if TYPE_CHECKING:
    from engine.cli.checking import Checked

_GRACE = 15.0
"""Seconds by which we wait longer than the engine, so that its own answer comes first."""
_APPLY_TIMEOUT = 120.0
_PLAN_TIMEOUT = 120.0
_GOES_ON = "The engine goes on in the background; how far it is: engine status"
_LOOK_FURTHER = "Look further with: engine status, engine call USER/NAME, engine logs -f"
_LOSING = ("delete", "replace")


def validate(
    files: Files = None,
    layers: Layers = None,
    profiles: Profiles = None,
    env_files: EnvFiles = None,
    output_format: Output = Format.TEXT,
) -> int:
    """Check manifests; touches nothing.

    Prints all faults, each with file, line, column and what to do.
    """
    compositions = inputs.compositions(files, layers, profiles, env_files)
    try:
        _check(compositions)
    except InvalidManifestError as error:
        if output_format is Format.TEXT:
            raise
        output.show_json([asdict(fault) for fault in error.faults])
        return ExitCode.INVALID_MANIFEST
    if output_format is Format.JSON:
        output.show_json([])
    else:
        output.show("\n".join(f"{composition.file}: valid" for composition in compositions))
    return ExitCode.DONE


def plan(
    context: typer.Context,
    file: File = None,
    layers: Layers = None,
    profiles: Profiles = None,
    env_files: EnvFiles = None,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 2 if there are changes.")
    ] = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Print what apply would do; writes nothing.

    One line a step, with its cause and what it waits for.
    """
    compositions = inputs.compositions([file] if file else [], layers, profiles, env_files)
    plans = _plans(session_of(context), _check(compositions))
    _show_plans(plans, output_format)
    changes = any(plan["changes"] for plan in plans)
    return ExitCode.CHANGES if changes and detailed_exitcode else ExitCode.DONE


def apply(
    context: typer.Context,
    files: Files = None,
    layers: Layers = None,
    profiles: Profiles = None,
    env_files: EnvFiles = None,
    wait: Annotated[bool, typer.Option(help="Wait until all is as declared.")] = True,
    timeout: Timeout = _APPLY_TIMEOUT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plans.")] = False,
    yes: Yes = False,
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Run the engine in this process, until a signal.")
    ] = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Make it so, and keep it so.

    Starts the engine in the background if none runs, waits until all is as declared, and leaves
    the engine to watch the files. What is deleted or replaced is asked for at a terminal.
    """
    session = session_of(context)
    checked = _check(inputs.compositions(files, layers, profiles, env_files))
    if dry_run:
        _show_plans(_plans(session, checked), output_format)
        return ExitCode.DONE
    if foreground:
        from engine.app import engine  # asyncio, which no other way through here needs

        return engine.run_foreground(session.folder(), checked.compositions, checked.environment)
    return _apply_checked(
        session, checked, wait=wait, timeout=timeout, yes=yes, output_format=output_format
    )


def apply_composition(
    session: Session,
    composition: Composition,
    *,
    timeout: float,
    yes: bool,
    output_format: Format,
) -> int:
    """Check and apply a manifest as the command `apply` does, and wait; return the exit code."""
    checked = _check([composition])
    return _apply_checked(
        session, checked, wait=True, timeout=timeout, yes=yes, output_format=output_format
    )


def _apply_checked(
    session: Session,
    checked: "Checked",
    *,
    wait: bool,
    timeout: float,
    yes: bool,
    output_format: Format,
) -> int:
    """Let the engine take over manifests that have been checked; return the exit code."""
    client = session.ensure()
    session.on_interrupt = _GOES_ON
    if not yes and output_format is Format.TEXT and output.interactive():
        _ask_before_losses(client, checked)
    body = {
        "manifests": [composition.to_json() for composition in checked.compositions],
        "environment": checked.environment,
        "wait": wait,
        "timeout": timeout,
    }
    lines = client.stream("POST", "/v1/apply", body, timeout=timeout + _GRACE)
    result = _follow(lines, f"applying {', '.join(checked.names)}", output_format)
    if result["exit_code"] == ExitCode.DONE and output_format is Format.TEXT:
        output.show(_LOOK_FURTHER)
    return int(result["exit_code"])


def down(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME...]",
            help="Names of applied manifests; default: the one there is.",
            autocompletion=completing.manifests,
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All manifests, and the engine itself.")
    ] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Delete the identities and data as well.")
    ] = False,
    timeout: Timeout = _APPLY_TIMEOUT,
    yes: Yes = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Unserve and stop what manifests own.

    Identities and data stay, unless --purge: a later apply finds them again.
    """
    if names and everything:
        raise UsageError("Name the manifests to take down, or use --all, but not both.")
    session = session_of(context)
    if _nothing_is_applied(session):
        if names:
            raise NotFoundError(f"No manifest {names[0]} is applied in {session.folder()}.")
        message = f"Nothing is applied in {session.folder()}, and no engine is running."
        if output_format is Format.JSON:
            result = {"type": "result", "exit_code": 0, "message": message, "manifests": []}
            output.show_json_line(result)
        else:
            output.complain(message)
        return ExitCode.DONE
    if purge and not yes and output.interactive():
        typer.confirm("Delete the identities and all data of these users for ever?", abort=True)
    # What a killed engine has left served is unserved by a new one, which knows what it owns.
    client = session.ensure()
    session.on_interrupt = _GOES_ON
    body = {"names": names or [], "all": everything, "purge": purge, "timeout": timeout}
    lines = client.stream("POST", "/v1/down", body, timeout=timeout + _GRACE)
    code = int(_follow(lines, "taking down", output_format)["exit_code"])
    if everything and not wait_released(session.home().lock, timeout):
        raise DeadlineExceededError(
            "The engine has not ended yet: something it drains is still at work.",
            "What it does: engine logs engine",
        )
    return code


def _nothing_is_applied(session: Session) -> bool:
    """Tell whether no engine runs, nor would have anything to do if it were started."""
    try:
        session.client().get("/v1/status")
    except EngineNotRunningError:
        applied = session.home().applied
        return not applied.exists() or applied.read_text().strip() in ("", "[]")
    return False


def _check(compositions: Sequence[Composition]) -> "Checked":
    from engine.cli import checking  # YAML, JSON Schema and all plugins

    return checking.check(compositions, os.environ)


def _plans(session: Session, checked: "Checked") -> list[dict[str, Any]]:
    return [
        _plan(session, composition, checked.environment) for composition in checked.compositions
    ]


def _plan(
    session: Session, composition: Composition, environment: Mapping[str, str]
) -> dict[str, Any]:
    """Ask the running engine; without one, compare with what is stored."""
    try:
        body = {"manifest": composition.to_json(), "environment": dict(environment)}
        answer: dict[str, Any] = session.client().post("/v1/plan", body, timeout=_PLAN_TIMEOUT)
    except EngineNotRunningError:
        from engine.app import offline  # the embedded core's storage, rarely needed
        from engine.reconcile import text

        found = offline.plan(session.folder(), composition, environment)
        answer = text.to_json(found) | {"text": text.plan_text(found)}
    return answer


def _show_plans(plans: Sequence[Mapping[str, Any]], output_format: Format) -> None:
    for plan in plans:
        if output_format is Format.JSON:
            output.show_json({key: value for key, value in plan.items() if key != "text"})
        else:
            output.show(render.plan(plan))


def _ask_before_losses(client: ControlClient, checked: "Checked") -> None:
    for composition in checked.compositions:
        body = {"manifest": composition.to_json(), "environment": checked.environment}
        plan = client.post("/v1/plan", body, timeout=_PLAN_TIMEOUT)
        if any(step["action"] in _LOSING for step in plan["steps"]):
            output.show(render.plan(plan))
            typer.confirm("Something is deleted or replaced. Go on?", abort=True)


def _follow(
    lines: Iterator[dict[str, Any]], doing: str, output_format: Format
) -> Mapping[str, Any]:
    """Print progress as it comes and return the result, whose message is printed last.

    Raises TransientError when the engine ends before there is a result.
    """
    result = None
    text = output_format is Format.TEXT
    with output.live(doing) if text else nullcontext(output.show) as show:
        for line in lines:
            if not text:
                output.show_json_line(line)
            elif line["type"] == "progress":
                show(line["text"])
            if line["type"] == "result":
                result = line
    if result is None:
        raise TransientError("The engine ended before it was done.", "Why: engine logs engine")
    if text and result["message"]:
        if result["exit_code"] == ExitCode.DONE:
            output.show(result["message"])
        else:
            output.complain(f"error: {result['message']}")
    return result
