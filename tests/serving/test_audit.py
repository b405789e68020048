"""Refused attempts: told with who, what and why; a flood of them as a few lines."""

from typing import Any

from engine.model.errors import AccessDeniedError, BusyError
from engine.serving import audit
from engine.serving.audit import Audit


class Ear:
    """An audit with a clock of its own; `heard` is what it told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.heard: list[Any] = []
        self.audit = Audit(lambda line: self.heard.append(line["audit"]), lambda: self.now)

    def refuse(self, sender: str, error: Exception | None = None) -> None:
        self.audit.refused("me", sender, error or AccessDeniedError("No."), "ep")


def test_an_attempt_is_told_with_who_what_and_why() -> None:
    ear = Ear()
    ear.refuse("you")
    assert ear.heard == [
        {
            "type": "AccessDeniedError",
            "user_id": "me",
            "sender": "you",
            "resource": "ep",
            "message": "No.",
        }
    ]


def test_a_flood_is_one_line_in_ten_seconds_that_counts_the_rest() -> None:
    ear = Ear()
    for _ in range(1000):
        ear.refuse("you")
    assert len(ear.heard) == 1
    ear.now = 10.0
    ear.refuse("you")
    assert ear.heard[1]["message"] == "No. (999 more like it before)"
    ear.refuse("somebody else")
    ear.refuse("you", BusyError("Full."))
    assert len(ear.heard) == 4


def test_no_more_is_remembered_than_is_good() -> None:
    ear = Ear()
    for number in range(3000):
        ear.refuse(f"user {number}")
    assert len(ear.audit._known) <= audit._REMEMBERED
