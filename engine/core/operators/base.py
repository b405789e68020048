"""What a built-in operator is, and what it works with.

A handler runs once its task has started, in the transaction of the change that started it. It may
run again for the same task after a restart, so it first looks at what is done already.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from engine.core.effects import Effects
from engine.core.entries import Entries
from engine.core.operators.inboxes import Inboxes
from engine.core.peers.address_book import AddressBook
from engine.core.store import Store
from engine.core.task_table import TaskCopy
from engine.core.tasks import Tasks
from engine.core.tokens import Tokens
from engine.core.users import Users
from engine.serving.audit import Audit

Handler = Callable[[TaskCopy], None]


@dataclass(frozen=True)
class Desk:
    """The parts of the core that operators work with."""

    store: Store
    entries: Entries
    tasks: Tasks
    users: Users
    effects: Effects
    tokens: Tokens
    runs: Callable[[str, str], bool]
    """Tells whether the operators of a package run here for a user: `runs(user_id, package)`."""
    core_uri: Callable[[], str]
    """The address under which others reach this core."""
    book: AddressBook
    check_write: Callable[[str, bytes], None]
    """Refuses to write an entry, by name and value, that a user might not write either."""

    inboxes: Inboxes
    audit: Audit = field(default_factory=Audit)

    def finish(self, copy: TaskCopy) -> None:
        """Finish a task, if it is still started."""
        now = self.tasks.get(copy.owner, copy.task.task_id)
        if now is not None and now.status == "started":
            self.tasks.finish(copy.owner, copy.task.task_id)


class Operator(Protocol):
    """A built-in operator: one object for all users for whom it is started."""

    package: str
    """The name by which StartProtocolOperator knows it."""
    protocols: tuple[str, ...]
    """The protocols that it marks as initialised."""
    handlers: Mapping[str, Handler]
    """What to do with started tasks, by `protocol:role`."""

    def start(self, user_id: str) -> None:
        """Write what the operator's init writes. Called at each start for a user."""
        ...

    def resume(self, user_id: str) -> None:
        """Take up what was left, after a start of the operator or of the core."""
        ...

    def forget(self, user_id: str) -> None:
        """Drop what is kept in memory for a user: the file says it better."""
        ...

    def forget_all(self) -> None:
        """Do so for all users."""
        ...

    def on_task(self, copy: TaskCopy) -> Handler | None:
        """Return what to do about a task that came to `waiting` or `finished`, if anything."""
        ...
