"""A plan as data: steps, each with its cause and what it waits for."""

from dataclasses import dataclass
from typing import Literal

Action = Literal["create", "update", "replace", "restart", "release", "delete"]
Kind = Literal["core", "user", "worker", "flow", "mount"]

NOBODY = "-"
"""Stands for the user in the ids of what belongs to none."""


@dataclass(frozen=True)
class Step:
    """One thing to be done to one resource. `waits_for` holds ids of steps of the same plan.

    `changes` are the names of the fields that differ, sorted, for an update or replacement.
    """

    action: Action
    kind: Kind
    user: str
    name: str
    cause: str
    waits_for: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Return the step's id, unique in its plan."""
        return step_id(self.kind, self.user, self.name)


@dataclass(frozen=True)
class Problem:
    """Something that is wanted and must not be done: the owner has to decide."""

    resource: str
    message: str

    def __str__(self) -> str:
        return f"{self.resource}: {self.message}"


@dataclass(frozen=True)
class Plan:
    """The difference between what a manifest wants and what is there."""

    manifest: str
    steps: tuple[Step, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def empty(self) -> bool:
        """Tell whether there is nothing to do and nothing to decide."""
        return not self.steps and not self.problems


def step_id(kind: Kind, user: str, name: str) -> str:
    """Return what a step on this resource is called."""
    return f"{kind}/{user}/{name}"


CORE = step_id("core", NOBODY, "core")


def user_step(user: str) -> str:
    """Return what a step on a user is called."""
    return step_id("user", NOBODY, user)
