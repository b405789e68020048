"""The tree of errors. Each edge (exit code, HTTP status) maps every leaf; a test holds it.

EngineError
├── PermanentError                 will never work as asked; retrying changes nothing
│   ├── UsageError                 the command or call itself is wrong
│   ├── InvalidManifestError       carries all faults
│   ├── PluginError                a flow class or plugin cannot be used
│   ├── NotFoundError              no such user, endpoint, mount, entry, task
│   ├── AlreadyExistsError         an entry or endpoint is there already
│   ├── AccessDeniedError          the caller may not
│   ├── FlowInstanceException      an instance could not be had (aiflows' name)
│   ├── InvalidMessageError        a message does not fit the interface; names the value
│   ├── FlowFailedError            the flow answered with an error reply
│   └── CallCancelledError         the caller gave the call up before it was answered
└── TransientError                 may work when tried again
    ├── CoreUnavailableError       the core or its queue does not answer
    ├── DeadlineExceededError      no answer in time
    ├── BusyError                  the instance has too many messages; says when to try again
    ├── EngineNotRunningError      no background engine answers in this ENGINE_HOME
    ├── LockHeldError              somebody else is at it; names the holder
    └── AppliedInPartError         some steps of a plan failed; names them
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_STEPS_KEPT = 64


class EngineError(Exception):
    """Base of all errors that a user may see as one line: `message`, then `hint`, what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class PermanentError(EngineError):
    """Will never work as asked."""


class TransientError(EngineError):
    """May work when tried again."""


class UsageError(PermanentError):
    """The command or call itself is wrong."""


@dataclass(frozen=True, order=True)
class Fault:
    """One thing wrong with a manifest. `line` and `column` count from 1; 0 means the whole file."""

    file: str
    line: int
    column: int
    path: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        path = f"{self.path}: " if self.path else ""
        return f"{place}{path}{self.message} {self.hint}".rstrip()


class InvalidManifestError(PermanentError):
    """The manifest has faults; all of them are in `faults`, in the order of the file."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = tuple(faults)


class PluginError(PermanentError):
    """A flow class or the plugin that brings it cannot be used."""


class NotFoundError(PermanentError):
    """There is no such user, endpoint, mount, entry or task."""


class AlreadyExistsError(PermanentError):
    """There is such an entry or endpoint already."""


class AccessDeniedError(PermanentError):
    """The caller is not allowed to do this."""


class FlowInstanceException(PermanentError):  # noqa: N818 - the name that aiflows' users know
    """An instance of a served flow could not be had; says which endpoint of whom, and why."""

    def __init__(self, flow_endpoint: str, user_id: str, message: str = "") -> None:
        super().__init__(
            f"Failed to get an instance of {flow_endpoint} served by {user_id}: {message}"
        )
        self.flow_endpoint = flow_endpoint
        self.user_id = user_id
        self.reason = message


class InvalidMessageError(PermanentError):
    """A message, or an answer, does not fit the flow's interface; `data_path` is what does not."""

    def __init__(self, message: str, data_path: str = "") -> None:
        super().__init__(message)
        self.data_path = data_path


class FlowFailedError(PermanentError):
    """A flow answered with an error reply; `details` is the reply's data as plain JSON data.

    `step` is what the asking flow calls it: the key of the subflow, or the name of the step.
    """

    def __init__(
        self, message: str, details: Mapping[str, Any] | None = None, step: str = ""
    ) -> None:
        super().__init__(message)
        self.details = dict(details or {})
        self.step = step

    @property
    def step_path(self) -> list[str]:
        """Return `step`, followed by the steps below it that `details` tells of."""
        below = self.details.get("step_path")
        steps = [step for step in below if isinstance(step, str)] if type(below) is list else []
        return [self.step, *steps[:_STEPS_KEPT]] if self.step else steps[:_STEPS_KEPT]


class CallCancelledError(PermanentError):
    """The caller gave the call up; it, and what it asked of others, is not gone on with."""


class CoreUnavailableError(TransientError):
    """The core, or its message queue, does not answer."""


class DeadlineExceededError(TransientError):
    """No answer came in time."""


class BusyError(TransientError):
    """The instance's mailbox is full; it may be tried again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float = 1.0, hint: str = "") -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class EngineNotRunningError(TransientError):
    """No background engine answers in this ENGINE_HOME."""


class LockHeldError(TransientError):
    """Somebody else holds the lock; `holder` says who."""

    def __init__(self, message: str, holder: str = "", hint: str = "") -> None:
        super().__init__(message, hint)
        self.holder = holder


class AppliedInPartError(TransientError):
    """Some steps of a plan failed, the others were made; `failures` has one line for each."""

    def __init__(self, failures: Sequence[str]) -> None:
        super().__init__("\n".join(failures))
        self.failures = tuple(failures)
