"""Who uses which flow endpoint of whom: whether each is served, may be used, and ends somewhere."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.loading.faults import Faults
from engine.loading.paths import Path, path_text
from engine.loading.suggestions import Suggestions, listing
from engine.model.ids import LOCAL, is_user_id


def mapping(value: Any) -> Mapping[str, Any]:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True)
class Endpoint:
    """A flow endpoint of a user, who is called by name."""

    user: str
    name: str

    def __str__(self) -> str:
        return f"{self.user}/{self.name}"


class Add(Protocol):
    """Notes a fault at a path."""

    def __call__(self, path: Path, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """Note it; `at_key` places it at the key rather than the value."""


@dataclass(frozen=True)
class _Use:
    """One use of an endpoint; `path` is of the subflow or mount, or of the flow for a default."""

    path: Path
    client: str
    label: str
    written: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @property
    def is_written(self) -> bool:
        """Tell whether the manifest mentions it, rather than only the class's defaults."""
        return self.path[-2] != "flows"

    def field(self, name: str) -> Any:
        return self.written.get(name, self.defaults.get(name))

    def place(self, name: str) -> tuple[Path, bool]:
        """Return where to point when the field is wrong, and whether at the key."""
        return ((*self.path, name), False) if name in self.written else (self.path, True)


class References:
    """Collects and checks the uses of one manifest's endpoints."""

    def __init__(
        self,
        users: Mapping[str, Any],
        faults: Faults,
        suggestions: Suggestions,
        add: Add,
    ) -> None:
        self._users = users
        self._faults = faults
        self._suggestions = suggestions
        self._add = add
        self._uses: dict[Endpoint, list[tuple[Endpoint, Path, bool]]] = {}
        self._servers: dict[str, list[str]] | None = None

    def check_mount(self, path: Path, user: str, mount: Mapping[str, Any]) -> None:
        """Check what a mount is an instance of."""
        if mount:
            self._target(_Use(path, user, "", mount, {"user_id": LOCAL}))

    def add_flow(
        self,
        path: Path,
        endpoint: Endpoint,
        subflows: Mapping[str, Any],
        declared: Mapping[str, Any] | None,
    ) -> None:
        """Check the subflows of a flow: the written ones and, of a known class, its defaults."""
        uses = self._uses.setdefault(endpoint, [])
        keys = [*subflows, *(key for key in declared or {} if key not in subflows)]
        for key in keys:
            is_written = key in subflows
            use = _Use(
                path=(*path, "subflows", key) if is_written else path,
                client=endpoint.user,
                label=key,
                written=mapping(subflows.get(key)),
                defaults={"user_id": LOCAL, **mapping((declared or {}).get(key))},
            )
            if self._faults.spoiled(use.path) or self._unknowable(use, declared):
                continue
            target = self._target(use)
            if target is not None:
                place, at_key = use.place("user_id")
                if at_key:
                    place, at_key = use.place("flow_endpoint")
                uses.append((target, place, at_key))

    def _unknowable(self, use: _Use, declared: Mapping[str, Any] | None) -> bool:
        """Tell whether the class's defaults, which are not known, might say the rest."""
        return declared is None and not {"user_id", "flow_endpoint"} <= set(use.written)

    # --- one use ------------------------------------------------------------------------------

    def _target(self, use: _Use) -> Endpoint | None:
        """Return the endpoint of this manifest that is used, None when it is not to be judged."""
        server = self._server(use)
        name = use.field("flow_endpoint")
        path, _ = use.place("flow_endpoint")
        if name is None and use.label and not self._faults.doubtful(use.path):
            message = f"{_of(use)}nobody says at which flow_endpoint it is served."
            hint = "Write flow_endpoint: <endpoint>"
            hint += "." if use.is_written else f" for it in subflows.{use.label}."
            self._add(path, message, hint, at_key=True)
        if server is None or not isinstance(name, str) or self._faults.spoiled(path):
            return None
        served = mapping(mapping(self._users.get(server)).get("flows"))
        if name not in served:
            self._not_served(use, server, name, served)
            return None
        self._check_access(use, server, name, mapping(served[name]))
        return Endpoint(server, name)

    def _server(self, use: _Use) -> str | None:
        """Return the name of the user of this manifest who serves it, else None."""
        path, at_key = use.place("user_id")
        user_id = use.field("user_id")
        if not isinstance(user_id, str) or self._faults.spoiled((*use.path, "user_id")):
            return None
        name = use.client if user_id == LOCAL else user_id
        if is_user_id(name) or self._faults.doubtful(("users",)):
            return None
        if name not in self._users:
            otherwise = f"Write local, a 66-digit id, or one of: {listing(self._users)}."
            hint = self._suggestions.hint(name, [*self._users, LOCAL], otherwise)
            there = f"{_of(use)}there" if use.label else "There"
            self._add(path, f"{there} is no user {name}.", hint, at_key=at_key)
            return None
        user = self._users[name]
        user_path: Path = ("users", name)
        foreign = isinstance(user, Mapping) and "user_id" in user
        unclear = self._faults.doubtful(user_path, (*user_path, "flows"))
        return None if foreign or unclear else name

    def _not_served(self, use: _Use, server: str, name: str, served: Mapping[str, Any]) -> None:
        path, at_key = use.place("flow_endpoint")
        message = f"{_of(use)}{server} serves no flow at {name}."
        elsewhere = self._others_serving(name, server)
        if elsewhere:
            hint = f"{elsewhere[0]} does: write user_id: {elsewhere[0]}"
            hint += "." if use.is_written else f" for it in subflows.{use.label}."
        else:
            known = f"It serves: {listing(served)}." if served else "It serves none."
            hint = self._suggestions.hint(name, served, known)
        self._add(path, message, hint, at_key=at_key)

    def _others_serving(self, name: str, server: str) -> list[str]:
        if self._servers is None:
            self._servers = {}
            for user, spec in self._users.items():
                for endpoint in mapping(mapping(spec).get("flows")):
                    self._servers.setdefault(endpoint, []).append(user)
        return [user for user in self._servers.get(name, []) if user != server]

    def _check_access(self, use: _Use, server: str, name: str, flow: Mapping[str, Any]) -> None:
        """Check that the client may use it, and that both can exchange instances."""
        if server == use.client:
            return
        path, at_key = use.place("user_id")
        allow_path: Path = ("users", server, "flows", name, "allow")
        for users, users_path in _allowed(flow.get("allow"), allow_path):
            refused = not {use.client, "any"} & {str(who) for who in users}
            if refused and not self._faults.doubtful(allow_path, users_path):
                message = f"{_of(use)}{server} does not allow {use.client} to use {name}."
                hint = f"Add {use.client} to {path_text(users_path)}."
                self._add(path, message, hint, at_key=at_key)
        for user in (use.client, server):
            workers = mapping(mapping(self._users.get(user)).get("workers"))
            if workers.get("get_instance", 1) == 0:
                message = f"{_of(use)}{user} has no get_instance worker to have an instance with."
                hint = f"Let users.{user}.workers.get_instance be 1 or more."
                self._add(path, message, hint, at_key=at_key)

    # --- cycles -------------------------------------------------------------------------------

    def check_cycles(self) -> None:
        """Note each cycle of subflows once, where it closes: getting an instance would not end."""
        done: set[Endpoint] = set()
        for start in self._uses:
            if start not in done:
                self._walk(start, done)

    def _walk(self, start: Endpoint, done: set[Endpoint]) -> None:
        """Go down from `start` depth first; with a stack, as chains may be long."""
        way = {start: None}
        stack = [(start, iter(self._uses.get(start, ())))]
        while stack:
            endpoint, uses = stack[-1]
            step = next(uses, None)
            if step is None:
                done.add(endpoint)
                del way[endpoint]
                stack.pop()
                continue
            target, path, at_key = step
            if target in way:
                self._cycle([*way], target, path, at_key)
            elif target not in done:
                way[target] = None
                stack.append((target, iter(self._uses.get(target, ()))))

    def _cycle(self, way: list[Endpoint], target: Endpoint, path: Path, at_key: bool) -> None:
        members = [*way[way.index(target) :], target]
        message = f"Subflows go round in a circle: {' -> '.join(map(str, members))}."
        self._add(path, message, "Let one of them use another flow.", at_key=at_key)


def _allowed(allow: Any, path: Path) -> Iterator[tuple[list[Any], Path]]:
    """Yield each list of users in `allow`, and where it stands."""
    if isinstance(allow, list):
        yield allow, path
    for operation, users in mapping(allow).items():
        if isinstance(users, list):
            yield users, (*path, operation)


def _of(use: _Use) -> str:
    return f"Subflow {use.label}: " if use.label else ""
