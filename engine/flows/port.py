"""What a flow may do to the world.

A flow sends through this small interface and knows nothing of CoLink. Workers and notebooks bring
ports that talk to a core; `engine.testing.ports` has one that lives in memory.
"""

from typing import Protocol

from engine.model.message import FlowMessage


class FlowPort(Protocol):
    """The world of one user's flows.

    A port takes a copy (usually the JSON) of a message before it returns, so that the flow may go
    on to change the message's data. `user_id` arguments are hex ids or `local` for the own user.
    """

    @property
    def user_id(self) -> str:
        """The hex id of the user in whose name messages are sent."""
        ...

    def push(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message` to an instance and return its key, `push_tasks:<uuid>:msg`."""
        ...

    def reply(self, message: FlowMessage) -> None:
        """Send a reply the way its `reply_data` asks for (protocol sheet §9.8)."""
        ...

    def future(self, user_id: str, flow_id: str, message: FlowMessage) -> str:
        """Send `message` at once, even inside a turn; return the key where its answer will be."""
        ...

    def wait(self, response_key: str, timeout: float) -> FlowMessage:
        """Return the answer, waiting for it at most `timeout` seconds; blocks the thread.

        Raises DeadlineExceededError.
        """
        ...

    async def wait_async(self, response_key: str, timeout: float) -> FlowMessage:
        """Do the same as `wait` without blocking the event loop."""
        ...

    def cancel(self, response_key: str) -> None:
        """Give up the message sent by `future`: its receiver need not go on with it."""
        ...

    def try_read(self, response_key: str) -> FlowMessage | None:
        """Return the answer if it is there already, else None."""
        ...
