"""FlowFuture: the answer to a message, once it is there (protocol sheet §9.8, mode `storage`)."""

from collections.abc import Callable, Generator
from typing import Any

from engine.flows.deadlines import seconds_until
from engine.flows.port import FlowPort
from engine.model.message import FlowMessage

Data = dict[str, Any]


def _unchanged(data: Data) -> Data:
    return data


class FlowFuture:
    """The answer to one message. Read it as often as you like, blocking or with `await`.

    `deadline` (Unix seconds) is when waiting ends if the call that waits names no time of its own.
    """

    def __init__(self, port: FlowPort, response_key: str, deadline: float) -> None:
        self._port = port
        self.response_key = response_key
        self.deadline = deadline
        self._output_interface: Callable[[Data], Data] = _unchanged

    def __str__(self) -> str:
        return f"FlowFuture(user_id={self._port.user_id}, response_key={self.response_key!r})"

    def set_output_interface(self, output_interface: Callable[[Data], Data]) -> None:
        """Have `output_interface(data)` applied to what get_data, get_message and await return."""
        self._output_interface = output_interface

    def get_message(self, timeout: float | None = None) -> FlowMessage:
        """Return the answer, waiting for it; blocks the thread.

        `timeout` is in seconds, by default what is left until the deadline. Raises
        DeadlineExceededError, and FlowFailedError for an error reply.
        """
        return self._finish(self._port.wait(self.response_key, self._seconds(timeout)))

    def get_data(self, timeout: float | None = None) -> Data:
        """Return the answer's data; otherwise like `get_message`."""
        return self.get_message(timeout).data

    def try_get_message(self) -> FlowMessage | None:
        """Return the answer as it came, an error reply included, or None while there is none."""
        return self._port.try_read(self.response_key)

    def try_get_data(self) -> Data | None:
        """Return the data of the answer as it came, or None while there is none."""
        message = self.try_get_message()
        return None if message is None else message.data

    def cancel(self) -> None:
        """Give the question up: what has not begun of it is not run, async runs are ended.

        Waiting for the answer then raises CallCancelledError.
        """
        self._port.cancel(self.response_key)

    def __await__(self) -> Generator[Any, None, Data]:
        return self._get_data_async().__await__()

    async def _get_data_async(self) -> Data:
        message = await self._port.wait_async(self.response_key, self._seconds(None))
        return self._finish(message).data

    def _seconds(self, timeout: float | None) -> float:
        return seconds_until(self.deadline) if timeout is None else timeout

    def _finish(self, message: FlowMessage) -> FlowMessage:
        message.raise_for_error()
        message.data = self._output_interface(message.data)
        return message
