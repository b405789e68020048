"""Storage entries: versions, listings, and the hooks of built-in operators on writes (§4).

The names that the core itself keeps for tasks (§6.4) are no rows here: `KeptNames` presents them.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

from engine.core.refusals import conflict, denied
from engine.core.store import Store
from engine.core.subscriptions import Subscriptions

_INTERNAL = "_internal:"
_BULK = 16
"""From so many names on, one statement for all is faster than one for each."""


class Version(NamedTuple):
    """One version of an entry."""

    timestamp: int
    payload: bytes


class KeptNames(Protocol):
    """Entries that are made from tables when they are read, below `_internal:`."""

    def find(self, owner_id: int, name: str) -> Version | None:
        """Return the entry's present version."""
        ...

    def is_kept(self, name: str) -> bool:
        """Tell whether only the core may write `name`."""
        ...

    def since(self, owner_id: int, name: str, timestamp: int) -> list[Version]:
        """Return the versions from `timestamp` on, oldest first."""
        ...

    def listing(self, owner_id: int, directory: str) -> Iterable[tuple[str, int]]:
        """Return names and timestamps in a directory, 0 for markers."""
        ...


OnWrite = Callable[[str, int, bytes | None], None]
"""Is told owner, timestamp and value (None: deleted) of a written entry, inside the transaction."""


class Entries:
    """All owners' entries. Users are named by their ids; all methods are atomic and do not wait."""

    def __init__(self, store: Store, subscriptions: Subscriptions, kept: KeptNames) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._kept = kept
        self._on_name: dict[str, OnWrite] = {}
        self._saved_watches: dict[tuple[int, str], list[Callable[[bytes], None]]] = {}
        store.before_savepoint.append(self._save_watches)
        store.on_rollback.append(self._restore_watches)
        self._watches: dict[tuple[int, str], list[Callable[[bytes], None]]] = {}

    # Writing

    def create(self, owner: str, name: str, payload: bytes) -> str:
        """Make an entry and return its key path; refused when it has a value."""
        owner_id = self._writable(owner, name)
        known = self._key(owner_id, name)
        if known is not None and known[1] > 0:
            raise conflict(f"The entry {name} exists already.")
        return self._write(owner_id, name, known, payload, "create")

    def update(self, owner: str, name: str, payload: bytes) -> str:
        """Write an entry, whether it exists or not, and return its key path."""
        owner_id = self._writable(owner, name)
        return self._write(owner_id, name, self._key(owner_id, name), payload, "update")

    def update_silently(self, owner: str, name: str, payload: bytes) -> None:
        """Write an entry of the core's own without telling anybody (§5.1)."""
        owner_id = self._store.owner_id(owner)
        self._put(owner_id, name, self._key(owner_id, name), payload)

    def update_all(self, owner: str, entries: Sequence[tuple[str, bytes]]) -> list[str]:
        """Write several entries, all or none, and return their key paths."""
        for name, _ in entries:
            self._writable(owner, name)
        return [self.update(owner, name, payload) for name, payload in entries]

    def delete(self, owner: str, name: str) -> str:
        """Delete an entry and return its tombstone's path; refused when there is none."""
        owner_id = self._writable(owner, name)
        known = self._key(owner_id, name)
        if known is None or known[1] < 0:
            raise conflict(f"There is no entry {name}.")
        timestamp = self._store.tick()
        self._store.write(
            "UPDATE keys SET latest=? WHERE owner=? AND name=?", (-timestamp, owner_id, name)
        )
        seconds = timestamp // 10**9
        self._subscriptions.emit(owner_id, name, "delete", seconds, b"")
        self._tell(owner_id, name, timestamp, None)
        return f"{owner}::{name}@{seconds}"

    def delete_all(self, owner: str, names: Iterable[str]) -> list[str]:
        """Delete those of several entries that exist, all or none, and return tombstones' paths."""
        wanted = list(names)
        for name in wanted:
            self._writable(owner, name)
        return [self.delete(owner, name) for name in wanted if self.get(owner, name) is not None]

    # Reading

    def get(self, owner: str, name: str) -> bytes | None:
        """Return an entry's value, or None."""
        found = self.find(owner, name)
        return None if found is None else found.payload

    def find(self, owner: str, name: str) -> Version | None:
        """Return an entry's latest version, or None when it is absent or deleted."""
        owner_id = self._store.known_owner_id(owner)
        row = self._store.execute(
            "SELECT v.ts, v.payload FROM keys k JOIN versions v ON v.ts=k.latest"
            " WHERE k.owner=? AND k.name=?",
            (owner_id, name),
        ).fetchone()
        if row is not None:
            return Version(*row)
        return self._kept.find(owner_id, name) if name.startswith(_INTERNAL) else None

    def find_all(self, owner: str, names: Sequence[str]) -> list[Version] | None:
        """Return the latest versions of several entries, in order; None when one is missing."""
        if len(names) < _BULK:
            found = []
            for name in names:
                version = self.find(owner, name)
                if version is None:
                    return None
                found.append(version)
            return found
        rows = self._store.execute(
            "SELECT v.ts, v.payload FROM json_each(?) j"
            " LEFT JOIN keys k ON k.owner=? AND k.name=j.value"
            " LEFT JOIN versions v ON v.ts=k.latest ORDER BY j.key",
            (json.dumps(names), self._store.known_owner_id(owner)),
        ).fetchall()
        if all(row[0] is not None for row in rows):
            return [Version(*row) for row in rows]
        versions = [
            Version(*row) if row[0] is not None else self.find(owner, name)
            for row, name in zip(rows, names, strict=True)
        ]
        return [v for v in versions if v is not None] if None not in versions else None

    def find_version(self, owner: str, name: str, timestamp: int) -> bytes | None:
        """Return the value of one version, old ones and those of deleted entries included."""
        owner_id = self._store.known_owner_id(owner)
        row = self._store.execute(
            "SELECT v.payload FROM keys k JOIN versions v ON v.key=k.id AND v.ts=?"
            " WHERE k.owner=? AND k.name=?",
            (timestamp, owner_id, name),
        ).fetchone()
        if row is not None:
            return bytes(row[0])
        kept = self._kept.since(owner_id, name, timestamp) if name.startswith(_INTERNAL) else []
        return kept[0].payload if kept and kept[0].timestamp == timestamp else None

    def since(self, owner: str, name: str, timestamp: int) -> list[Version]:
        """Return all versions from `timestamp` on, oldest first; no tombstones, no markers."""
        owner_id = self._store.known_owner_id(owner)
        rows = self._store.execute(
            "SELECT v.ts, v.payload FROM keys k JOIN versions v ON v.key=k.id AND v.ts>=?"
            " WHERE k.owner=? AND k.name=? ORDER BY v.ts",
            (timestamp, owner_id, name),
        ).fetchall()
        if not rows and name.startswith(_INTERNAL):
            return self._kept.since(owner_id, name, timestamp)
        return [Version(*row) for row in rows]

    def present(self, owner: str, name: str) -> list[Version]:
        """Return what is to be told to somebody who may have missed everything, oldest first.

        That is the latest version; of a list's `:latest`, all tasks that are still in the list.
        """
        if name.startswith(_INTERNAL) and self._kept.is_kept(name):
            return self._kept.since(self._store.known_owner_id(owner), name, 0)
        latest = self.find(owner, name)
        return [latest] if latest is not None else []

    def listing(self, owner: str, directory: str, *, history: bool) -> list[str]:
        """Return the key paths in a directory, which is "" or ends with a colon (§4.2)."""
        owner_id = self._store.known_owner_id(owner)
        # Markers end in @0; a set, since what the core keeps may stand beside ordinary entries.
        found = {
            (name, 0)
            for (name,) in self._store.execute(
                "SELECT name FROM directories WHERE owner=? AND parent=?", (owner_id, directory)
            )
        }
        # Left to itself, SQLite goes through all of the owner's entries.
        if history:
            statement = (
                "SELECT k.name, v.ts FROM keys k INDEXED BY keys_by_directory"
                " JOIN versions v ON v.key=k.id WHERE k.owner=? AND k.directory=?"
            )
        else:
            statement = (
                "SELECT name, latest FROM keys INDEXED BY keys_by_directory"
                " WHERE owner=? AND directory=? AND latest>0"
            )
        found.update(self._store.execute(statement, (owner_id, directory)))
        if directory.startswith(_INTERNAL):
            found.update(self._kept.listing(owner_id, directory))
        return [f"{owner}::{name}@{timestamp}" for name, timestamp in sorted(found)]

    def tree(self, owner: str, prefix: str) -> list[tuple[str, Version]]:
        """Return all entries below the key name `prefix` ("" for all), at every level, by name.

        What the core keeps for tasks is left out.
        """
        first, end = (f"{prefix}:", f"{prefix};") if prefix else ("", "\U0010ffff")
        rows = self._store.execute(
            "SELECT k.name, v.ts, v.payload FROM keys k JOIN versions v ON v.ts=k.latest"
            " WHERE k.owner=? AND k.name>=? AND k.name<? ORDER BY k.name",
            (self._store.known_owner_id(owner), first, end),
        )
        return [(name, Version(timestamp, payload)) for name, timestamp, payload in rows]

    # Hooks

    def on_write(self, name: str, action: OnWrite) -> None:
        """Call `action` whenever anybody writes his entry `name`."""
        self._on_name[name] = action

    def watch(self, owner: str, name: str, action: Callable[[bytes], None]) -> None:
        """Call `action` once, with the value that the entry gets at its next write."""
        self._watches.setdefault((self._store.owner_id(owner), name), []).append(action)

    # Inside

    def _save_watches(self) -> None:
        self._saved_watches = {key: list(actions) for key, actions in self._watches.items()}

    def _restore_watches(self) -> None:
        self._watches = self._saved_watches

    def _writable(self, owner: str, name: str) -> int:
        if name.startswith(_INTERNAL) and self._kept.is_kept(name):
            raise denied(f"The entry {name} is kept by the core.")
        return self._store.owner_id(owner)

    def _key(self, owner_id: int, name: str) -> tuple[int, int] | None:
        """Return a key's id and latest version, negative after a delete; None if never written."""
        row: tuple[int, int] | None = self._store.execute(
            "SELECT id, latest FROM keys WHERE owner=? AND name=?", (owner_id, name)
        ).fetchone()
        return row

    def _write(
        self,
        owner_id: int,
        name: str,
        known: tuple[int, int] | None,
        payload: bytes,
        change_type: str,
    ) -> str:
        timestamp = self._put(owner_id, name, known, payload)
        self._subscriptions.emit(owner_id, name, change_type, timestamp, payload)
        self._tell(owner_id, name, timestamp, payload)
        return f"{self._store.owner(owner_id)}::{name}@{timestamp}"

    def _put(self, owner_id: int, name: str, known: tuple[int, int] | None, payload: bytes) -> int:
        """Store a new version and return its timestamp."""
        timestamp = self._store.tick()
        if known is None:
            directory = _directory(name)
            self._store.write(
                "INSERT INTO keys(owner, name, id, directory, latest) VALUES(?, ?, ?, ?, ?)",
                (owner_id, name, timestamp, directory, timestamp),
            )
            if directory:
                self._mark(owner_id, directory)
        else:
            self._store.write(
                "UPDATE keys SET latest=? WHERE owner=? AND name=?", (timestamp, owner_id, name)
            )
        self._store.write(
            "INSERT INTO versions(ts, key, payload) VALUES(?, ?, ?)",
            (timestamp, timestamp if known is None else known[0], payload),
        )
        return timestamp

    def _mark(self, owner_id: int, directory: str) -> None:
        """Make the markers of a directory and those above, up to the first that is there."""
        while directory:
            name = directory[:-1]
            parent = _directory(name)
            done = self._store.write(
                "INSERT OR IGNORE INTO directories(owner, parent, name) VALUES(?, ?, ?)",
                (owner_id, parent, name),
            )
            if done.rowcount == 0:
                return
            directory = parent

    def _tell(self, owner_id: int, name: str, timestamp: int, payload: bytes | None) -> None:
        action = self._on_name.get(name)
        if action is not None:
            action(self._store.owner(owner_id), timestamp, payload)
        if payload is not None and self._watches:
            for watch in self._watches.pop((owner_id, name), ()):
                watch(payload)


def _directory(name: str) -> str:
    """Return everything up to the last colon of a name, the colon included; "" without one."""
    head, colon, _ = name.rpartition(":")
    return head + colon
