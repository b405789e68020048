"""Calls that their callers gave up, as a worker hears of them.

The user's scheduler writes the key of such a message into one entry that all workers of the user
watch. Nothing is kept but in memory: a worker that was started since runs the turn in vain.
"""

import contextlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

from engine.colink import keys
from engine.colink.client import Client
from engine.model.errors import CallCancelledError, CoreUnavailableError
from engine.model.message import FlowMessage
from engine.serving.endpoints import decoded

_REMEMBERED = 10_000


def _nothing() -> None:
    """React in no way."""


class Running:
    """A message at work: `given_up` once its caller has; `react` is then called."""

    def __init__(self) -> None:
        self.given_up = False
        self.react: Callable[[], None] = _nothing

    def give_up(self) -> None:
        """Note that nobody waits for the answer any more."""
        self.given_up = True
        self.react()

    def check(self) -> None:
        """Raise CallCancelledError when nobody waits any more."""
        if self.given_up:
            raise CallCancelledError("The caller has given the call up.")


class Cancellations:
    """The messages given up lately, and those at work that can be."""

    def __init__(self) -> None:
        self._given_up: OrderedDict[str, None] = OrderedDict()
        self._running: dict[str, Running] = {}

    async def follow(self, client: Client) -> None:
        """Hear of what is given up from now on, until cancelled."""
        try:
            found = await client.read_version(keys.ENGINE_CANCELLED)
        except CoreUnavailableError:
            found = None
        since = found[0].timestamp + 1 if found is not None else 0
        changes = client.changes(keys.ENGINE_CANCELLED, since)
        async with contextlib.aclosing(changes):
            async for delivery in changes:
                message_key = decoded(delivery.payload)
                if isinstance(message_key, str):
                    self.add(message_key)

    def add(self, message_key: str) -> None:
        """Note that a message is given up."""
        self._given_up[message_key] = None
        if len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)
        running = self._running.get(message_key)
        if running is not None:
            running.give_up()

    def is_given_up(self, message: FlowMessage) -> bool:
        """Tell whether a message that this user received is given up."""
        return message.reply_data.get("input_msg_path") in self._given_up

    @contextlib.contextmanager
    def running(self, message_key: str) -> Iterator[Running]:
        """Surround the work on a message."""
        running = self._running[message_key] = Running()
        running.given_up = message_key in self._given_up
        try:
            yield running
        finally:
            if self._running.get(message_key) is running:
                del self._running[message_key]
