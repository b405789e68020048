"""The command line's side of the control API: HTTP over the Unix socket of an ENGINE_HOME.

Only the standard library, and nothing heavy of it: `engine status` pays for each import.
"""

import http.client
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from engine.model import errors
from engine.model.home import Home

REQUEST_TIMEOUT = 30.0
"""Seconds that the engine may keep silent, unless a request says otherwise."""

T = TypeVar("T")
_HINT = "Start one with: engine apply MANIFEST"


class ControlClient:
    """Asks the background engine in `home` (a path); each request is a connection of its own.

    Every method raises EngineNotRunningError when nobody answers or the engine goes away,
    DeadlineExceededError when it keeps silent for too long, and otherwise the error that the
    engine reports, of the class it names.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._socket = Home(home).socket

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON value that `GET path?query` answers with."""
        return self._request("GET", f"{path}?{urlencode(query)}" if query else path)

    def glance(self, path: str, *, timeout: float) -> Any:
        """Return the JSON value that `GET path` answers with within `timeout` seconds."""
        return self._request("GET", path, timeout=timeout)

    def post(
        self, path: str, body: Mapping[str, Any], *, timeout: float | None = REQUEST_TIMEOUT
    ) -> Any:
        """Return the JSON value that `POST path` with the JSON object `body` answers with.

        The answer may take `timeout` seconds; None waits for ever.
        """
        return self._request("POST", path, body, timeout)

    def stream(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yield the JSON objects that the engine sends, one a line, as each comes.

        Between two of them `timeout` seconds may pass; None waits for ever. A line that holds an
        error ends the stream by raising it.
        """
        with _Connection(self._home, self._socket, timeout) as connection:
            response = connection.ask(method, path, body)
            while line := connection.read(response.readline):
                value = json.loads(line)
                if "error" in value:
                    raise error_from_json(value["error"])
                yield value

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = REQUEST_TIMEOUT,
    ) -> Any:
        with _Connection(self._home, self._socket, timeout) as connection:
            response = connection.ask(method, path, body)
            return json.loads(connection.read(response.read))


class _Connection(http.client.HTTPConnection):
    """One HTTP exchange over a Unix socket; what goes wrong on the way becomes an EngineError."""

    def __init__(self, home: Path, path: Path, timeout: float | None) -> None:
        super().__init__("engine", timeout=timeout)
        self._home = home
        self._path = path

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def connect(self) -> None:
        """Connect to the socket in the ENGINE_HOME."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(self.timeout)
            connection.connect(str(self._path))
        except OSError:
            connection.close()
            raise
        self.sock = connection

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None
    ) -> http.client.HTTPResponse:
        """Send a request and return the response, its body unread; raise what it reports."""
        encoded = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if encoded else {}
        try:
            self.connect()
        except TimeoutError:
            raise self._silent() from None
        except OSError as error:
            # No socket, or one that a killed engine left behind: nobody is there in either case.
            raise errors.EngineNotRunningError(
                f"No engine is running in {self._home}.", _HINT
            ) from error

        def exchange() -> http.client.HTTPResponse:
            self.request(method, path, encoded, headers)
            return self.getresponse()

        response = self.read(exchange)
        if response.status >= http.client.BAD_REQUEST:
            raise _reported(self.read(response.read), response.status, path)
        return response

    def read(self, reading: Callable[[], T]) -> T:
        """Return `reading()`, with the failures of a socket as EngineErrors."""
        try:
            return reading()
        except TimeoutError:
            raise self._silent() from None
        except (OSError, http.client.HTTPException) as error:
            raise errors.EngineNotRunningError(
                f"The engine in {self._home} went away before it had answered.",
                "What it did last: engine logs engine",
            ) from error

    def _silent(self) -> errors.DeadlineExceededError:
        return errors.DeadlineExceededError(
            f"The engine in {self._home} has not answered for {self.timeout:g} seconds.",
            "What it did last: engine logs engine",
        )


def _reported(body: bytes, status: int, path: str) -> errors.EngineError:
    try:
        return error_from_json(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return errors.EngineError(
            f"The engine failed to answer {path} (HTTP status {status}).",
            "Why: engine logs engine",
        )


def error_from_json(value: Mapping[str, Any]) -> errors.EngineError:
    """Return the error that `{"type", "message", "hint", "details"}` stands for.

    A type that this version does not know becomes an EngineError with the same text.
    """
    kind = getattr(errors, str(value.get("type")), errors.EngineError)
    if not (isinstance(kind, type) and issubclass(kind, errors.EngineError)):
        kind = errors.EngineError
    details = value.get("details") or {}
    message, hint = str(value.get("message", "")), str(value.get("hint", ""))
    attributes = _ATTRIBUTES.get(kind, _no_attributes)(details)
    # Each class builds its message from arguments of its own; the message is here already.
    error: errors.EngineError = kind.__new__(kind, message)
    errors.EngineError.__init__(error, message, hint)
    vars(error).update(attributes)
    return error


def _no_attributes(details: Mapping[str, Any]) -> dict[str, Any]:
    return {}


_ATTRIBUTES: Mapping[type, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    errors.InvalidManifestError: lambda details: {
        "faults": tuple(errors.Fault(**fault) for fault in details.get("faults", ()))
    },
    errors.InvalidMessageError: lambda details: {"data_path": str(details.get("data_path", ""))},
    errors.FlowFailedError: lambda details: {"details": dict(details), "step": ""},
    errors.FlowInstanceException: lambda details: {
        name: details.get(name, "") for name in ("flow_endpoint", "user_id", "reason")
    },
    errors.BusyError: lambda details: {"retry_after": float(details.get("retry_after", 1.0))},
    errors.LockHeldError: lambda details: {"holder": details.get("holder", "")},
    errors.AppliedInPartError: lambda details: {"failures": tuple(details.get("failures", ()))},
}
