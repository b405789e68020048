"""The life of a task as plain functions of its record: which status follows from what (§6.1-§6.5).

A record is an encoded Task; here it is a `wire.Task` whose `decisions` has one place for each
participant. A decision that was not made yet is empty.
"""

import re
from collections.abc import Iterator

from engine.colink import wire
from engine.core.refusals import conflict, malformed

FINAL = frozenset({"rejected", "finished"})
"""From these no decision leads away, nor from `started`."""
EXPIRED = {"waiting": "ignored", "approved": "rejected"}
"""What becomes of a task that is not decided on until it expires."""
_TASK_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_request(task: wire.Task, caller: str) -> None:
    """Refuse a new task with nobody in it, with somebody twice, or with the caller not first."""
    user_ids = [participant.user_id for participant in task.participants]
    if not user_ids:
        raise malformed("A task needs participants.")
    if user_ids[0] != caller:
        raise malformed("The first participant of a task is the one who creates it.")
    _check_once(user_ids)


def check_invitation(task: wire.Task, owner: str, now: float) -> None:
    """Refuse a task from another core that `owner` is not asked to take part in, or too late.

    Its signatures are another question. `now` is in Unix seconds.
    """
    user_ids = [participant.user_id for participant in task.participants]
    if owner not in user_ids[1:]:
        raise malformed("The task is not one that this user is asked to take part in.")
    _check_once(user_ids)
    if _TASK_ID.fullmatch(task.task_id) is None:
        # It becomes part of key names.
        raise malformed("The id of the task is not of the form of a task's id.")
    if len(task.decisions) != len(task.participants):
        raise malformed("A task has one decision for each participant.")
    if not task.decisions[0].is_approved:
        raise conflict("The initiator did not approve the task.")
    if now > task.expiration_time:
        raise conflict(f"The task {task.task_id} has expired.")


def _check_once(user_ids: list[str]) -> None:
    if len(set(user_ids)) != len(user_ids):
        raise malformed("A user can take part in a task once only.")


def news(mine: wire.Task, theirs: wire.Task, owner: str) -> Iterator[tuple[int, wire.Decision]]:
    """Yield the decisions in `theirs` that the copy `mine` of `owner` lacks, with their places.

    One's own decision is never taken from others, and who has rejected does not approve again:
    what is replayed changes nothing.
    """
    places = min(len(mine.participants), len(mine.decisions))
    for place, decision in enumerate(theirs.decisions[:places]):
        known = mine.decisions[place]
        if (
            mine.participants[place].user_id != owner
            and is_decided(decision)
            and decision != known
            and not (known.is_rejected and decision.is_approved)
        ):
            yield place, decision


def same_but_for_decisions(one: wire.Task, other: wire.Task) -> bool:
    """Tell whether two records are of one task, apart from what was decided and its status."""
    bare = []
    for task in (one, other):
        copy = wire.Task()
        copy.CopyFrom(task)
        copy.ClearField("decisions")
        copy.ClearField("status")
        bare.append(copy)
    return bool(bare[0] == bare[1])


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
