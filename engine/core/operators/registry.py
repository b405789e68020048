"""registry: how to reach a user (§8.3). This core knows its own users; others come next.

Registries elsewhere are asked over remote_storage, which needs calls between cores; the place for
that is `_query`, beside the look at this core's own users.
"""

import time
from collections.abc import Mapping

from google.protobuf.message import DecodeError

from engine.colink import keys, wire
from engine.core.operators.base import Desk, Handler
from engine.core.task_table import TaskCopy
from engine.core.tokens import GUEST

_REGISTRIES = "_registry:registries"
_GUEST_LIFETIME = 31 * 86400


class RegistryOperator:
    """Both roles of the protocol `registry`."""

    package = "registry"
    protocols: tuple[str, ...] = ("registry",)

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.handlers: Mapping[str, Handler] = {
            "registry:update_registries": self._update,
            "registry:query_from_registries": self._query,
        }

    def start(self, user_id: str) -> None:
        """Nothing has to be written: users of this core find each other without it."""

    def resume(self, user_id: str) -> None:
        """Nothing is kept besides tasks."""

    def forget(self, user_id: str) -> None:
        """Nothing is kept in memory."""

    def forget_all(self) -> None:
        """Nothing is kept in memory."""

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Only started tasks matter."""
        return None

    def _update(self, copy: TaskCopy) -> None:
        self._desk.entries.update(copy.owner, _REGISTRIES, copy.task.protocol_param)
        self._desk.finish(copy)

    def _query(self, copy: TaskCopy) -> None:
        try:
            wanted = wire.UserRecord.FromString(copy.task.protocol_param).user_id
        except DecodeError:
            wanted = ""
        if wanted in self._desk.users:
            expires = int(time.time()) + _GUEST_LIFETIME
            token = self._desk.tokens.mint(GUEST, wanted, expires)
            self._desk.entries.update(copy.owner, keys.known_user_token(wanted), token.encode())
            address = self._desk.core_uri().encode()
            self._desk.entries.update(copy.owner, keys.known_user_address(wanted), address)
        self._desk.finish(copy)
