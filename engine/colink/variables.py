"""Variables: values that participants of a running task send each other, through storage (§8.4)."""

from collections import OrderedDict

from engine.colink import keys, wire
from engine.colink.payloads import json_bytes
from engine.colink.tasks import TaskCalls
from engine.colink.waiting import WaitingCalls
from engine.model.errors import DeadlineExceededError

INBOX = "inbox"
PATIENCE = 0.05
"""Seconds that a receiver waits before it tells the sender where to send.

A sender of ours sends without being told. One of the SDK sends nothing before, so it loses these.
"""
_NO_INBOX = json_bytes({"addr": None, "vt_jwt": None, "tls_cert": None})
_REMEMBERED = 1024


class VariableCalls(TaskCalls, WaitingCalls):
    """The part of a client that sends and receives variables, in the remote-storage form."""

    _inboxes_sent: "OrderedDict[tuple[str, str], None]"

    async def send_variable(
        self, task_id: str, key: str, payload: bytes, receiver_user_id: str
    ) -> None:
        """Send a variable of a task; returns when the core has taken it, not when it arrives."""
        if receiver_user_id == self.user_id:
            await self.create(keys.variable(self.user_id, task_id, key), payload)
            return
        params = wire.CreateParams(
            remote_key_name=keys.variable_name(task_id, key), payload=payload
        )
        await self.run_task(
            "remote_storage.create",
            params.SerializeToString(),
            ((self.user_id, "requester"), (receiver_user_id, "provider")),
            require_agreement=False,
            parent_task=task_id,
        )

    async def recv_variable(
        self, task_id: str, key: str, sender_user_id: str, timeout: float
    ) -> bytes:
        """Return a variable of a task within `timeout` seconds; raises DeadlineExceededError.

        A sender of the SDK first waits to be told an address for direct transfer: it gets three
        nulls, once per task and sender, which mean that there is none.
        """
        async with self.expect(keys.variable(sender_user_id, task_id, key)) as expectation:
            if sender_user_id == self.user_id or (task_id, sender_user_id) in self._inboxes_sent:
                return await expectation.value(timeout)
            patience = min(PATIENCE, timeout)
            try:
                return await expectation.value(patience)
            except DeadlineExceededError:
                await self._send_inbox(task_id, sender_user_id)
            return await expectation.value(timeout - patience)

    async def _send_inbox(self, task_id: str, sender_user_id: str) -> None:
        self._inboxes_sent[task_id, sender_user_id] = None
        if len(self._inboxes_sent) > _REMEMBERED:
            self._inboxes_sent.popitem(last=False)
        await self.send_variable(task_id, INBOX, _NO_INBOX, sender_user_id)
