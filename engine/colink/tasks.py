"""Task calls (§6)."""

import time
from collections.abc import Sequence

from engine.colink import keys, wire
from engine.colink.rpc import DEADLINE
from engine.colink.storage import StorageCalls

LIFETIME = 86_400
"""Seconds after which a task expires when nobody said otherwise, as in the SDKs."""
_DIAL = 75.0
"""Seconds for a task with others: their core may have to be looked up, which takes up to 61 s."""


class TaskCalls(StorageCalls):
    """The part of a client that creates, decides and finishes tasks."""

    async def run_task(
        self,
        protocol: str,
        param: bytes,
        participants: Sequence[tuple[str, str]],
        require_agreement: bool,
        *,
        expiration_time: int | None = None,
        parent_task: str = "",
    ) -> str:
        """Create a task and return its id.

        `participants` are (user id, role), this user first. `expiration_time` in Unix seconds.
        """
        task = wire.Task(
            protocol_name=protocol,
            protocol_param=param,
            participants=[wire.Participant(user_id=user, role=role) for user, role in participants],
            parent_task=parent_task,
            expiration_time=expiration_time or int(time.time()) + LIFETIME,
            require_agreement=require_agreement,
        )
        alone = all(user == self.user_id for user, _ in participants)
        timeout = DEADLINE if alone else _DIAL
        reply = await self._caller.call("CreateTask", task, about=protocol, timeout=timeout)
        return str(reply.task_id)

    async def read_task(self, task_id: str) -> wire.Task | None:
        """Return a task's record, or None when there is none."""
        payload = await self.read(keys.task(task_id))
        return None if payload is None else wire.Task.FromString(payload)

    async def confirm_task(self, task_id: str, approved: bool, reason: str = "") -> None:
        """Approve or reject a waiting task."""
        decision = wire.Decision(is_approved=approved, is_rejected=not approved, reason=reason)
        request = wire.ConfirmTaskRequest(task_id=task_id, decision=decision)
        await self._caller.call("ConfirmTask", request, about=task_id, timeout=_DIAL)

    async def finish_task(self, task_id: str) -> None:
        """Finish a started task; UsageError when it is not started."""
        await self._caller.call("FinishTask", wire.Task(task_id=task_id), about=task_id)
