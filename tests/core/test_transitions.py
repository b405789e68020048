"""Which status follows from what: the table of §6.3, as plain functions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.colink import wire
from engine.core.refusals import Refusal
from engine.core.task_entries import STATUSES
from engine.core.transitions import (
    FINAL,
    check_confirm,
    check_invitation,
    confirmed_status,
    first_status,
    news,
    role_of,
    status_after_sync,
)

APPROVED = wire.Decision(is_approved=True, signature=b"s")
REJECTED = wire.Decision(is_rejected=True, signature=b"s")
SILENT = wire.Decision()


def _task(*decisions: wire.Decision, agreement: bool = True) -> wire.Task:
    participants = [
        wire.Participant(user_id=f"u{place}", role=f"r{place}") for place in range(len(decisions))
    ]
    return wire.Task(participants=participants, decisions=decisions, require_agreement=agreement)


@pytest.mark.parametrize(
    ("task", "status"),
    [
        (_task(APPROVED), "started"),
        (_task(APPROVED, SILENT), "approved"),
        (_task(APPROVED, SILENT, agreement=False), "started"),
    ],
)
def test_a_new_task_is_started_unless_others_have_to_agree(task, status) -> None:
    assert first_status(task) == status


@pytest.mark.parametrize(
    ("task", "own", "status"),
    [
        (_task(APPROVED, APPROVED), APPROVED, "started"),
        (_task(APPROVED, REJECTED), REJECTED, "rejected"),
        (_task(APPROVED, SILENT), SILENT, "ignored"),
        (_task(APPROVED, APPROVED, SILENT), APPROVED, "approved"),
        (_task(APPROVED, APPROVED, SILENT, agreement=False), APPROVED, "started"),
    ],
)
def test_ones_own_decision(task, own, status) -> None:
    assert confirmed_status(task, own) == status


@pytest.mark.parametrize("status", [status for status in STATUSES if status != "waiting"])
def test_only_waiting_tasks_can_be_decided_on(status) -> None:
    with pytest.raises(Refusal, match="not waiting"):
        check_confirm(status, _task(APPROVED, SILENT), APPROVED, 0)


decisions = st.lists(st.sampled_from([APPROVED, REJECTED, SILENT]), min_size=1, max_size=5)


@given(st.sampled_from(STATUSES), decisions)
def test_others_decisions_never_bring_back_what_is_settled(status, made) -> None:
    task = _task(*made)
    after = status_after_sync(status, task)
    assert status_after_sync(after, task) == after
    if status in FINAL or status == "started":
        assert after == status
    elif REJECTED in made:
        assert after == "rejected"
    elif SILENT in made:
        assert after == status
    else:
        assert after == "started"


class TestNews:
    """What a copy learns from others."""

    def test_is_what_it_lacks(self) -> None:
        mine, theirs = _task(APPROVED, SILENT, SILENT), _task(APPROVED, REJECTED, SILENT)
        assert list(news(mine, theirs, "u2")) == [(1, REJECTED)]

    def test_never_is_ones_own_decision(self) -> None:
        assert list(news(_task(APPROVED, SILENT), _task(APPROVED, REJECTED), "u1")) == []

    def test_never_is_an_approval_after_a_rejection(self) -> None:
        """An old approval may be sent again by anybody."""
        mine, theirs = _task(APPROVED, REJECTED, SILENT), _task(APPROVED, APPROVED, SILENT)
        assert list(news(mine, theirs, "u2")) == []

    @given(decisions, decisions)
    def test_is_nothing_once_it_was_taken(self, known, told) -> None:
        mine, theirs = _task(*known), _task(*told)
        for place, decision in news(mine, theirs, "u0"):
            mine.decisions[place].CopyFrom(decision)
        assert list(news(mine, theirs, "u0")) == []


class TestInvitations:
    def test_are_for_those_who_are_asked(self) -> None:
        task = _task(APPROVED, SILENT)
        task.task_id, task.expiration_time = "id", 10
        check_invitation(task, "u1", 10)
        for owner in ("u0", "u2"):
            with pytest.raises(Refusal, match="asked to take part"):
                check_invitation(task, owner, 10)

    def test_come_in_time(self) -> None:
        task = _task(APPROVED, SILENT)
        task.task_id, task.expiration_time = "id", 10
        with pytest.raises(Refusal, match="expired"):
            check_invitation(task, "u1", 10.1)


def test_the_last_role_of_somebody_counts() -> None:
    task = wire.Task(
        participants=[
            wire.Participant(user_id="a", role="first"),
            wire.Participant(user_id="a", role="last"),
        ]
    )
    assert role_of(task, "a") == "last"
    assert role_of(task, "b") == ""
