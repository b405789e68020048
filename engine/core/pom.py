"""Protocol operators of users: which are started, and which tasks they get (§7.4).

Started operators are rows of the table `operators`, so that they run again when the core does.
Those that are not built in are run by `external`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from engine.colink import keys, wire
from engine.core.operators.base import Desk, Handler, Operator
from engine.core.packages import check_name
from engine.core.refusals import aborted, conflict, denied, not_found
from engine.core.store import Store
from engine.core.task_table import TaskCopy
from engine.core.tokens import HOST, Bearer
from engine.model.ids import new_id

_INITIALIZED = b"\x01"


class OperatorManager:
    """Starts and stops the built-in operators for users, and brings them their tasks."""

    def __init__(self, store: Store, host_id: str) -> None:
        self._store = store
        self._host_id = host_id
        self._operators: dict[str, Operator] = {}
        self._handlers: dict[str, tuple[Operator, Handler]] = {}
        self._running: dict[str, Counter[str]] = {}
        self._desk: Desk | None = None
        for owner, package in store.execute("SELECT owner, package FROM operators"):
            self._running.setdefault(store.owner(owner), Counter())[package] += 1

    def equip(self, desk: Desk, operators: Sequence[Operator]) -> None:
        """Take in what operators work with, and the operators there are. Called once."""
        self._desk = desk
        for operator in operators:
            self._operators[operator.package] = operator
            for name, handler in operator.handlers.items():
                self._handlers[name] = (operator, handler)

    def runs(self, user_id: str, package: str) -> bool:
        """Tell whether a package's operator runs here for a user."""
        return self._running.get(user_id, Counter())[package] > 0

    def knows(self, package: str) -> bool:
        """Tell whether there is such an operator built in."""
        return package in self._operators

    def resume_all(self) -> None:
        """Take up, for all users, what was left when the core ended."""
        for user_id, packages in self._running.items():
            for package in packages:
                self._resume(user_id, package)

    def external_instances(self) -> list[tuple[str, str, str]]:
        """Return instance, user and package of what was started and is not built in."""
        rows = self._store.execute("SELECT instance_id, owner, package FROM operators").fetchall()
        return [
            (instance_id, self._store.owner(owner), package)
            for instance_id, owner, package in rows
            if package not in self._operators
        ]

    def forget_all(self) -> None:
        """Let all operators drop what they keep in memory: part of it was undone."""
        for operator in self._operators.values():
            operator.forget_all()

    def check_start(self, caller: Bearer, request: wire.StartProtocolOperatorRequest) -> None:
        """Refuse to start an operator as §2.3 says."""
        package, user_id = request.protocol_name, request.user_id
        if caller.privilege != HOST and caller.user_id != user_id:
            raise denied("Only the host starts operators for others.")
        check_name(package)
        if self.desk.entries.get(self._host_id, keys.user_jwt(user_id)) is None:
            raise not_found(f"The user {user_id} was not imported.")
        if request.upgrade and any(running[package] > 0 for running in self._running.values()):
            raise aborted(f"The operator {package} is running.")

    def run(self, user_id: str, package: str) -> str:
        """Start a built-in operator for a user; several instances of one operator work as one."""
        operator, instance_id = self._operators[package], self.add(user_id, package)
        operator.start(user_id)
        for protocol_name in operator.protocols:
            self.desk.entries.update(
                user_id, keys.protocol_is_initialized(protocol_name), _INITIALIZED
            )
        self._resume(user_id, package)
        return instance_id

    def add(self, user_id: str, package: str) -> str:
        """Note a new instance of an operator, and return its id."""
        instance_id = new_id()
        self._store.write(
            "INSERT INTO operators(instance_id, owner, package) VALUES(?, ?, ?)",
            (instance_id, self._store.owner_id(user_id), package),
        )
        self._running.setdefault(user_id, Counter())[package] += 1
        entries = self.desk.entries
        entries.update(self._host_id, keys.operator_instance_user(instance_id), user_id.encode())
        entries.update(
            user_id, keys.operator_instance(instance_id, "protocol_name"), package.encode()
        )
        self._change_group(user_id, package, instance_id, add=True)
        return instance_id

    def stop(self, caller: Bearer, instance_id: str) -> None:
        """Stop an operator's instance; refused unless it is the caller's, or he is the host.

        The process of one that is not built in is ended by `external`.
        """
        row = self._store.execute(
            "SELECT owner, package FROM operators WHERE instance_id=?", (instance_id,)
        ).fetchone()
        if row is None:
            raise conflict(f"There is no operator instance {instance_id!r}.")
        user_id, package = self._store.owner(row[0]), row[1]
        if caller.privilege != HOST and caller.user_id != user_id:
            raise denied("This operator instance is not yours.")
        self.remove(instance_id, user_id, package)

    def remove(self, instance_id: str, user_id: str, package: str) -> None:
        """Forget an instance of an operator."""
        self._store.write("DELETE FROM operators WHERE instance_id=?", (instance_id,))
        self._running[user_id][package] -= 1
        if package in self._operators and not self.runs(user_id, package):
            self._operators[package].forget(user_id)
        self._change_group(user_id, package, instance_id, add=False)

    def entered(self, copy: TaskCopy) -> None:
        """Give a task that came to a status to the user's operators, as effects."""
        packages = self._running.get(copy.owner)
        if packages is None:
            return
        if copy.status == "started":
            found = self._handlers.get(f"{copy.task.protocol_name}:{copy.role}")
            if found is not None and packages[found[0].package] > 0:
                self._add(found[0], found[1], copy)
            return
        for package, operator in self._operators.items():
            if packages[package] > 0 and (handler := operator.on_task(copy)) is not None:
                self._add(operator, handler, copy)

    @property
    def desk(self) -> Desk:
        """What operators work with."""
        assert self._desk is not None
        return self._desk

    def _add(self, operator: Operator, handler: Handler, copy: TaskCopy) -> None:
        owner, task_id, status = copy.owner, copy.task.task_id, copy.status

        def act() -> None:
            now = self.desk.tasks.get(owner, task_id)
            if now is not None and now.status == status:
                handler(now)

        def undo() -> None:
            operator.forget(owner)
            self.desk.effects.add(partial(self.desk.finish, copy))

        self.desk.effects.add(act, undo)

    def _resume(self, user_id: str, package: str) -> None:
        operator = self._operators.get(package)
        if operator is None:
            return
        self.desk.effects.add(partial(operator.resume, user_id))
        names = set(operator.handlers)
        for copy in self.desk.tasks.in_status(user_id, "started"):
            name = f"{copy.task.protocol_name}:{copy.role}"
            if name in names:
                self._add(operator, operator.handlers[name], copy)

    def _change_group(self, user_id: str, package: str, instance_id: str, *, add: bool) -> None:
        key = keys.operator_group(package)
        members = wire.ListOfString.FromString(self.desk.entries.get(user_id, key) or b"").list
        left = [member for member in members if member != instance_id]
        group = wire.ListOfString(list=[*left, instance_id] if add else left)
        self.desk.entries.update(user_id, key, group.SerializeToString())
