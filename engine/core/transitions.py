"""The life of a task as plain functions of its record: which status follows from what (§6.1-§6.5).

A record is an encoded Task; here it is a `wire.Task` whose `decisions` has one place for each
participant. A decision that was not made yet is empty.
"""

from engine.colink import wire
from engine.core.refusals import conflict, malformed

FINAL = frozenset({"rejected", "finished"})
"""From these no decision leads away, nor from `started`."""
EXPIRED = {"waiting": "ignored", "approved": "rejected"}
"""What becomes of a task that is not decided on until it expires."""


def check_request(task: wire.Task, caller: str) -> None:
    """Refuse a new task with nobody in it, with somebody twice, or with the caller not first."""
    user_ids = [participant.user_id for participant in task.participants]
    if not user_ids:
        raise malformed("A task needs participants.")
    if user_ids[0] != caller:
        raise malformed("The first participant of a task is the one who creates it.")
    if len(set(user_ids)) != len(user_ids):
        raise malformed("A user can take part in a task once only.")


def first_status(task: wire.Task) -> str:
    """Return the status that a new task has for its initiator."""
    return "approved" if task.require_agreement and len(task.participants) > 1 else "started"


def role_of(task: wire.Task, user_id: str) -> str:
    """Return the role of a participant; "" for who is none."""
    role = ""
    for participant in task.participants:
        if participant.user_id == user_id:
            role = participant.role
    return role


def places_of(task: wire.Task, user_id: str) -> list[int]:
    """Return at which places of `participants` a user stands."""
    return [
        place
        for place, participant in enumerate(task.participants)
        if participant.user_id == user_id
    ]


def is_decided(decision: wire.Decision) -> bool:
    """Tell whether a decision was made and signed."""
    return bool(decision.signature)


def check_confirm(status: str, task: wire.Task, decision: wire.Decision, now: float) -> None:
    """Refuse a ConfirmTask that is contradictory, too late, or out of order."""
    if decision.is_approved and decision.is_rejected:
        raise malformed("A decision cannot both approve and reject.")
    if status != "waiting":
        raise conflict(f"The task {task.task_id} is {status}, not waiting.")
    if now > task.expiration_time:
        raise conflict(f"The task {task.task_id} has expired.")


def confirmed_status(task: wire.Task, decision: wire.Decision) -> str:
    """Return the status after the participant's own decision, which `task` has in it already."""
    if not decision.is_approved:
        return "rejected" if decision.is_rejected else "ignored"
    if not task.require_agreement or all(d.is_approved for d in task.decisions):
        return "started"
    return "approved"


def status_after_sync(status: str, task: wire.Task) -> str:
    """Return the status after others' decisions came in, which `task` has in it already.

    What has started or ended stays, whatever is sent again later.
    """
    if status in FINAL or status == "started":
        return status
    if any(decision.is_rejected for decision in task.decisions):
        return "rejected"
    if all(decision.is_approved for decision in task.decisions):
        return "started"
    return status
