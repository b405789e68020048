"""What the data of an error reply says: who failed, where, with what. Plain data (sheet §9.6).

`error` is one sentence for people and for stock aiflows, which knows no error replies. The rest is
for programs: `flow`, `user_id`, `flow_endpoint`, `flow_id` tell which instance answers, `path` the
same of each flow from that one down to where it failed, `cause` the error there, `step_path` what
the flows on the way call their steps, `data_path` what in a message does not fit. A traceback is
never part of it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from engine.model.errors import BusyError, EngineError, FlowFailedError, InvalidMessageError

_STEP = ("flow", "user_id", "flow_endpoint", "flow_id")
_DEEPEST = 32
_LONGEST = 2_000


def failure_data(
    error: BaseException,
    *,
    flow: str,
    user_id: str,
    flow_endpoint: str = "",
    flow_id: str = "",
    where: str = "",
) -> dict[str, Any]:
    """Return the data that tells of `error`, raised in or on behalf of the flow named.

    An error reply of a subflow, as FlowFailedError, continues the path. It was written by another
    user: only texts of bounded length are taken over.
    """
    kind, message = type(error).__name__, str(error)
    step = dict(zip(_STEP, (flow, user_id, flow_endpoint, flow_id), strict=True))
    below = _reported(error)
    text = message if isinstance(error, EngineError) and not where else f"{kind}: {message}"
    data: dict[str, Any] = {
        "error": f"{flow}: {text}" + (f" ({where})" if where else ""),
        "error_type": kind,
        "message": message,
        **step,
        "where": where,
        "path": [step, *_path(below.get("path"))][:_DEEPEST],
        "cause": _cause(below) or {"error_type": kind, "message": message},
    }
    if isinstance(error, BusyError):
        data["retry_after"] = error.retry_after
    if isinstance(error, InvalidMessageError):
        data["data_path"] = error.data_path
    if isinstance(error, FlowFailedError) and error.step:
        data["step_path"] = error.step_path
    return data


def _reported(error: BaseException) -> Mapping[str, Any]:
    """Return the data of the error reply that led to `error`; nothing when none did."""
    for link in _chain(error):
        if isinstance(link, FlowFailedError):
            return link.details
    return {}


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen = 0
    current: BaseException | None = error
    while current is not None and seen < _DEEPEST:
        yield current
        seen += 1
        inner = current.exceptions[0] if isinstance(current, BaseExceptionGroup) else None
        current = inner or current.__cause__


def _path(value: Any) -> Iterator[dict[str, str]]:
    for step in value[:_DEEPEST] if isinstance(value, list) else ():
        if isinstance(step, Mapping):
            yield {name: str(step.get(name, ""))[:_LONGEST] for name in _STEP}


def _cause(below: Mapping[str, Any]) -> dict[str, str] | None:
    cause = below.get("cause") or below
    if not isinstance(cause, Mapping) or "error_type" not in cause:
        return None
    return {
        "error_type": str(cause["error_type"])[:_LONGEST],
        "message": str(cause.get("message") or cause.get("error") or "")[:_LONGEST],
    }
