"""What the exit codes mean, and which error gives which one. The only place that says so."""

from collections.abc import Mapping
from enum import IntEnum

from engine.model import errors


class ExitCode(IntEnum):
    """The exit codes of `engine`; shells and CI rely on them."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CHANGES = 2  # only with --detailed-exitcode, which is what Terraform's users know
    INVALID_MANIFEST = 3
    IN_PART = 4
    TIMED_OUT = 5
    LOCK_HELD = 6
    INTERRUPTED = 130
    BROKEN_PIPE = 141


EXIT_CODES: Mapping[type[errors.EngineError], ExitCode] = {
    errors.UsageError: ExitCode.USAGE,
    errors.InvalidManifestError: ExitCode.INVALID_MANIFEST,
    errors.PluginError: ExitCode.FAILED,
    errors.NotFoundError: ExitCode.FAILED,
    errors.AlreadyExistsError: ExitCode.FAILED,
    errors.AccessDeniedError: ExitCode.FAILED,
    errors.FlowInstanceException: ExitCode.FAILED,
    errors.InvalidMessageError: ExitCode.FAILED,
    errors.FlowFailedError: ExitCode.FAILED,
    errors.CallCancelledError: ExitCode.FAILED,
    errors.CoreUnavailableError: ExitCode.FAILED,
    errors.DeadlineExceededError: ExitCode.TIMED_OUT,
    errors.BusyError: ExitCode.FAILED,
    errors.EngineNotRunningError: ExitCode.FAILED,
    errors.LockHeldError: ExitCode.LOCK_HELD,
    errors.AppliedInPartError: ExitCode.IN_PART,
    errors.EngineError: ExitCode.FAILED,
}


def exit_code(error: errors.EngineError) -> ExitCode:
    """Return the exit code for `error`: that of its class, or of the nearest base."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)
