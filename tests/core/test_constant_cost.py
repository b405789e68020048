"""The price of an operation does not depend on how much came before.

It is counted in the steps that SQLite takes, which are the same at every run; tests/benchmarks
measures the time.
"""

from collections.abc import Callable

import pytest

from engine.colink import keys, wire
from engine.core.server import Core
from tests.support.core import make_user

MANY = 2000
OPERATIONS = (
    *("create", "update", "read", "read a version", "list", "list with history", "tree"),
    *("task", "list of tasks", "tasks in a status", "subscribe"),
)


class Operations:
    """One user's operations, on a directory and a task list of ten."""

    def __init__(self, core: Core, user_id: str) -> None:
        self.core, self.user_id = core, user_id
        self.parts = core.parts
        self.participants = [wire.Participant(user_id=user_id, role="local")]
        self.count = 0
        for number in range(10):
            self.path = self.parts.entries.create(user_id, f"small:{number}", b"x")
            self.create_task("waiting")

    def create_task(self, protocol_name: str) -> str:
        request = wire.Task(protocol_name=protocol_name, participants=self.participants)
        return self.parts.tasks.create(self.user_id, request)

    def age(self) -> None:
        """Add many entries, versions and ended tasks."""
        for number in range(MANY):
            self.parts.entries.create(self.user_id, f"many:{number // 100}:{number}", b"x")
            self.parts.entries.update(self.user_id, "other", b"x")
            self.parts.tasks.finish(self.user_id, self.create_task("bench"))

    def run(self, name: str) -> None:
        entries, user_id = self.parts.entries, self.user_id
        self.count += 1
        key, _, timestamp = self.path.partition("::")[2].partition("@")
        waiting = keys.protocol_list("waiting", "started", "local")
        actions: dict[str, Callable[[], object]] = {
            "create": lambda: entries.create(user_id, f"new:{self.count}", b"x"),
            "update": lambda: entries.update(user_id, "small:1", b"x"),
            "read": lambda: entries.find(user_id, "small:1"),
            "read a version": lambda: entries.find_version(user_id, key, int(timestamp)),
            "list": lambda: entries.listing(user_id, "small:", history=False),
            "list with history": lambda: entries.listing(user_id, "small:", history=True),
            "tree": lambda: entries.tree(user_id, "small"),
            "task": lambda: self.parts.tasks.finish(user_id, self.create_task("bench")),
            "list of tasks": lambda: entries.find(user_id, waiting),
            "tasks in a status": lambda: list(self.parts.tasks.in_status(user_id, "started")),
            "subscribe": lambda: entries.since(user_id, f"{waiting}:latest", 0),
        }
        assert actions[name]() is not False

    async def steps(self, name: str) -> int:
        """Return the steps that an operation takes, its commit included."""
        await self.parts.store.committed()
        count = 0

        def step() -> int:
            nonlocal count
            count += 1
            return 0

        connection = self.parts.store.execute.__self__
        connection.set_progress_handler(step, 1)
        try:
            self.run(name)
            await self.parts.store.committed()
        finally:
            connection.set_progress_handler(None, 1)
        return count


@pytest.fixture
async def operations(core: Core) -> Operations:
    return Operations(core, (await make_user(core)).user_id)


async def test_no_operation_takes_more_steps_after_thousands(operations: Operations) -> None:
    for name in OPERATIONS:
        operations.run(name)  # the first of its kind makes directories and lists
    young = {name: await operations.steps(name) for name in OPERATIONS}
    operations.age()
    old = {name: await operations.steps(name) for name in OPERATIONS}
    assert {name: steps for name, steps in old.items() if steps > 1.5 * young[name] + 20} == {}
    assert min(young.values()) > 0
