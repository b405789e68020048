"""remote_storage: entries that users keep in each other's storage (§8.2).

Unlike upstream, the quota is given back when an entry shrinks or goes, variables of running tasks
are not charged, and an exhausted quota blocks nobody else.
"""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.message import DecodeError

from engine.colink import keys, wire
from engine.colink.payloads import integer_value, nanoseconds_bytes
from engine.core.operators import variables
from engine.core.operators.base import Desk, Handler
from engine.core.refusals import Refusal
from engine.core.task_table import TaskCopy

OnInbox = Callable[[str, str, str, bytes], None]
"""Takes the sender of variables, their task, who is to receive them, and his inbox."""
log = logging.getLogger(__name__)
_DEFAULT_QUOTA_KEY = "_remote_storage:default_remaining_quota"
_DEFAULT_QUOTA = 4 * 2**20
_OK, _ERROR = b"\x00", b"\x01"


class RemoteStorage:
    """Both roles of the four protocols."""

    package = "remote_storage"
    protocols: tuple[str, ...] = (
        "remote_storage",
        *(f"remote_storage.{name}" for name in ("create", "read", "update", "delete")),
    )

    def __init__(self, desk: Desk, on_inbox: OnInbox) -> None:
        """`on_inbox` is told when the receiver of variables says where he is reached (§8.4)."""
        self._desk = desk
        self._on_inbox = on_inbox
        self.handlers: Mapping[str, Handler] = {
            "remote_storage.create:provider": partial(self._write, wire.CreateParams),
            "remote_storage.update:provider": partial(self._write, wire.UpdateParams),
            "remote_storage.delete:provider": self._delete,
            "remote_storage.read:provider": self._answer_read,
            "remote_storage.create:requester": desk.finish,
            "remote_storage.update:requester": desk.finish,
            "remote_storage.delete:requester": desk.finish,
            "remote_storage.read:requester": self._await_read,
        }

    def start(self, user_id: str) -> None:
        """Write the quota that each requester begins with."""
        if self._desk.entries.get(user_id, _DEFAULT_QUOTA_KEY) is None:
            self._desk.entries.create(
                user_id, _DEFAULT_QUOTA_KEY, nanoseconds_bytes(_DEFAULT_QUOTA)
            )

    def resume(self, user_id: str) -> None:
        """Nothing is kept besides tasks."""

    def forget(self, user_id: str) -> None:
        """Nothing is kept in memory."""

    def forget_all(self) -> None:
        """Nothing is kept in memory."""

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Only started tasks matter."""
        return None

    # Providers

    def _write(self, kind: Any, copy: TaskCopy) -> None:
        params, name = self._params(kind, copy)
        if params is not None:
            old = self._desk.entries.get(copy.owner, name)
            if not self._fits(name, params.payload):
                log.info("%s asks %s to keep too much", _requester(copy), copy.owner)
            elif old is not None and kind is wire.CreateParams:
                log.info("%s has the entry %s already", copy.owner, name)
            elif self._charge(copy, params.remote_key_name, len(params.payload), old):
                self._desk.entries.update(copy.owner, name, params.payload)
                task_id = variables.inbox_of(params.remote_key_name)
                if task_id:
                    self._on_inbox(copy.owner, task_id, _requester(copy), params.payload)
        self._desk.finish(copy)

    def _delete(self, copy: TaskCopy) -> None:
        params, name = self._params(wire.DeleteParams, copy)
        old = self._desk.entries.get(copy.owner, name) if params is not None else None
        if params is not None and old is not None:
            self._charge(copy, params.remote_key_name, -len(params.remote_key_name), old)
            self._desk.entries.delete(copy.owner, name)
        self._desk.finish(copy)

    def _answer_read(self, copy: TaskCopy) -> None:
        requester, task_id = _requester(copy), copy.task.task_id
        params, _ = self._params(wire.ReadParams, copy)
        value = None
        if params is not None:
            holder = params.holder_id or requester
            if params.is_public or holder == requester:
                name = keys.remote_storage(holder, params.remote_key_name, public=params.is_public)
                value = self._desk.entries.get(copy.owner, name)
        if value is not None:
            variables.send(self._desk, copy.owner, task_id, "output", value, requester)
        status = _ERROR if value is None else _OK
        variables.send(self._desk, copy.owner, task_id, "status", status, requester)
        self._desk.finish(copy)

    # Requesters

    def _await_read(self, copy: TaskCopy) -> None:
        if len(copy.task.participants) < 2:
            self._finish_read(copy, None)
            return
        provider, task_id = copy.task.participants[1].user_id, copy.task.task_id

        def got_status(status: bytes) -> None:
            if status != _OK:
                self._finish_read(copy, None)
                return
            variables.receive(
                *(self._desk, copy.owner, task_id, "output", provider),
                lambda value: self._finish_read(copy, value),
                announce=False,
            )

        # Providers send both unasked.
        variables.receive(
            *(self._desk, copy.owner, task_id, "status", provider, got_status), announce=False
        )

    def _finish_read(self, copy: TaskCopy, value: bytes | None) -> None:
        task_id, entries = copy.task.task_id, self._desk.entries
        if entries.get(copy.owner, keys.task_status(task_id)) is None:
            if value is not None:
                entries.update(copy.owner, keys.task_output(task_id), value)
            status = _ERROR if value is None else _OK
            entries.create(copy.owner, keys.task_status(task_id), status)
        self._desk.finish(copy)

    # Inside

    def _params(self, kind: Any, copy: TaskCopy) -> tuple[Any, str]:
        """Return a task's parameters and the provider's entry they mean; None if unreadable."""
        try:
            params = kind.FromString(copy.task.protocol_param)
        except DecodeError:
            log.warning("the parameters of the task %s cannot be read", copy.task.task_id)
            return None, ""
        name = keys.remote_storage(
            _requester(copy), params.remote_key_name, public=params.is_public
        )
        return params, name

    def _fits(self, name: str, payload: bytes) -> bool:
        try:
            self._desk.check_write(name, payload)
        except Refusal:
            return False
        return True

    def _charge(self, copy: TaskCopy, name: str, size: int, old: bytes | None) -> bool:
        """Take the growth of an entry off its requester's quota; False when too little is left."""
        if name.startswith("_variable_transfer:"):
            return True
        entries, key = self._desk.entries, f"_remote_storage:remaining_quota:{_requester(copy)}"
        remaining = entries.get(copy.owner, key)
        if remaining is None:
            remaining = entries.get(copy.owner, _DEFAULT_QUOTA_KEY) or b""
        growth = size - len(old) if old is not None else size + len(name)
        left = integer_value(remaining) - growth
        if left < 0 and growth > 0:
            log.warning("%s has used up his quota at %s", _requester(copy), copy.owner)
            return False
        entries.update(copy.owner, key, nanoseconds_bytes(left))
        return True


def _requester(copy: TaskCopy) -> str:
    return str(copy.task.participants[0].user_id)
