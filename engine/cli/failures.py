"""How failures are told: a user's mistake is one line, a bug is a trace in a file."""

import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from engine.kits.files import write_atomically
from engine.model.errors import AppliedInPartError, EngineError, Fault, InvalidManifestError


def mistake(error: EngineError) -> str:
    """Return what to print on standard error for `error`, without a trace."""
    if isinstance(error, InvalidManifestError) and error.faults:
        return faults(error.faults)
    if isinstance(error, AppliedInPartError) and error.failures:
        steps = "\n".join(f"  {failure}" for failure in error.failures)
        return f"error: Some steps failed, all others were made:\n{steps}"
    return f"error: {error}"


def faults(found: Sequence[Fault]) -> str:
    """Return one line a fault, `file:line:column: path: what is wrong. What to do`, and a sum."""
    count = "1 fault" if len(found) == 1 else f"{len(found)} faults"
    where = sorted({fault.file for fault in found})
    lines = [str(fault) for fault in found]
    return "\n".join([*lines, f"error: {count} in {', '.join(where)}; nothing was changed."])


def bug(error: BaseException, folder: Path | None) -> str:
    """Write the trace of `error` to a file in `folder` and return what to print about it.

    Without a folder, or when it cannot be written, the trace is part of what is printed.
    """
    trace = "".join(traceback.format_exception(error))
    last = traceback.format_exception_only(error)[-1].strip()
    summary = f"error: This is a bug in the engine: {last}"
    if folder is not None:
        file = folder / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}.log"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(file, trace.encode(errors="backslashreplace"))
        except OSError:
            return f"{summary}\n{trace}"
        return f"{summary}\nThe trace is in {file}; please report it."
    return f"{summary}\n{trace}"
