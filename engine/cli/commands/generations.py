"""history, diff and rollback: what manifests said before, and going back to it."""

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from engine.cli import completing, output, render
from engine.cli.commands.manifests import apply_composition
from engine.cli.exit_codes import ExitCode
from engine.cli.options import Format, Output, Timeout, Yes
from engine.cli.session import session_of
from engine.controller.history import CONVERGED, Generation, History
from engine.kits.files import write_atomically
from engine.model.composition import Composition
from engine.model.errors import NotFoundError, UsageError

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="A manifest; not needed if there is one.",
        autocompletion=completing.generations,
    ),
]


def history(context: typer.Context, name: Name = None, output_format: Output = Format.TEXT) -> int:
    """List the generations of a manifest: when, what was done, and how it went."""
    kept = History(session_of(context).home().history)
    found = [asdict(one) for one in kept.all(_named(kept, name))]
    for one in found:
        del one["text"], one["parts"]
    if output_format is Format.JSON:
        output.show_json(found)
    else:
        output.show(render.history(found))
    return ExitCode.DONE


def diff(
    context: typer.Context,
    name: Name = None,
    before: Annotated[
        int | None, typer.Argument(metavar="[FROM]", help="A generation; default: the newest.")
    ] = None,
    after: Annotated[
        int | None, typer.Argument(metavar="[TO]", help="Another; default: the file as it is.")
    ] = None,
) -> int:
    """Show how a manifest's text differs between generations, or from the file as it is now."""
    kept = History(session_of(context).home().history)
    name = _named(kept, name)
    old = kept.get(name, before) if before is not None else kept.all(name)[-1]
    new = kept.get(name, after) if after is not None else None
    if new is None:
        shown = _differences(old.texts, _present(old.texts), _label(old), "")
    else:
        shown = _differences(old.texts, new.texts, _label(old), _label(new))
    if shown:
        output.show(shown)
    return ExitCode.DONE


def rollback(
    context: typer.Context,
    name: Name = None,
    generation: Annotated[
        int | None,
        typer.Argument(metavar="[GENERATION]", help="Default: the last good one before this."),
    ] = None,
    timeout: Timeout = 120.0,
    yes: Yes = False,
    output_format: Output = Format.TEXT,
) -> int:
    """Write an earlier generation back into the manifest's file, and apply it."""
    session = session_of(context)
    kept = History(session.home().history)
    name = _named(kept, name)
    wanted = kept.get(name, generation) if generation is not None else _last_good(kept, name)
    # The file may have been moved since.
    file = kept.all(name)[-1].file
    composition = replace(wanted.composition, file=file)
    texts = {file: wanted.text, **wanted.parts}
    _check(composition, texts)
    present = _present(texts)
    shown = _differences(present, texts, "", _label(wanted))
    if shown and not yes and output_format is Format.TEXT and output.interactive():
        output.show(shown)
        changed = ", ".join(path for path in texts if texts[path] != present[path])
        typer.confirm(f"Write generation {wanted.generation} into {changed}?", abort=True)
    for path, text in texts.items():
        if text != present[path]:
            _write(Path(path), text)
    return apply_composition(
        session, composition, timeout=timeout, yes=True, output_format=output_format
    )


def _named(kept: History, name: str | None) -> str:
    """Return the manifest that is meant; raises NotFoundError or UsageError when none is."""
    known = kept.manifests()
    if name is None and len(known) == 1:
        return known[0]
    if name in known:
        return str(name)
    there = f"There is a history of: {', '.join(known)}." if known else "Apply one first."
    if name is None and known:
        raise UsageError("Several manifests have a history; name one.", there)
    raise NotFoundError(f"There is no history of {name or 'any manifest'}.", there)


def _last_good(kept: History, name: str) -> Generation:
    *earlier, _newest = kept.all(name)
    good = [one for one in earlier if one.result == CONVERGED]
    if not good:
        raise NotFoundError(
            f"No generation of {name} before the newest one has converged.",
            f"Name one of: engine history {name}",
        )
    return good[-1]


def _check(composition: Composition, texts: Mapping[str, str]) -> None:
    """Raise InvalidManifestError when a generation is not valid any more with what is installed."""
    from engine.cli.installation import catalog  # imports all plugins
    from engine.loading import Contents, load_composition  # YAML and JSON Schema

    load_composition(composition, catalog(), os.environ, Contents(texts))


def _present(texts: Mapping[str, str]) -> dict[str, str]:
    """Return what is in the files of `texts` now; nothing where there is no such file."""
    return {path: _read(Path(path)) for path in texts}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from error


def _write(file: Path, text: str) -> None:
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else 0o644
        # A link stays one: what it points to is written.
        write_atomically(file.resolve(), text.encode(), mode=mode)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}.") from error


def _label(generation: Generation) -> str:
    return f"{generation.manifest} generation {generation.generation}"


def _differences(old: Mapping[str, str], new: Mapping[str, str], before: str, after: str) -> str:
    """Return how the texts of files differ; an empty label stands for the file as it is."""
    lines: list[str] = []
    for path in {**old, **new}:
        one, other = (f"{path} ({label})" if label else path for label in (before, after))
        was, now = old.get(path, "").splitlines(), new.get(path, "").splitlines()
        lines += unified_diff(was, now, one, other, lineterm="")
    return "\n".join(lines)
