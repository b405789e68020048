"""The RPCs of `colink.engine.v1.Extension`: what the protocol does in many calls, done in one."""

from engine.colink import wire
from engine.core import auth
from engine.core.parts import Parts
from engine.core.reserved import check_writable
from engine.core.service import answer
from engine.core.tokens import Bearer


class Extension:
    """Bulk writing and reading of the caller's own entries."""

    def __init__(self, parts: Parts) -> None:
        self._entries = parts.entries
        self._protect = not parts.settings.allow_internal_writes
        self.UpdateEntries = answer(parts, auth.OWNERS, self.update_entries)
        self.DeleteEntries = answer(parts, auth.OWNERS, self.delete_entries)
        self.ReadTree = answer(parts, auth.OWNERS, self.read_tree)

    def update_entries(self, caller: Bearer, request: wire.StorageEntries) -> wire.StorageEntries:
        """Write entries (`key_name`, `payload`), all or none, in the order given; the reply has
        their key paths.
        """
        wanted = [(entry.key_name, entry.payload) for entry in request.entries]
        for name, _ in wanted:
            check_writable(name, protect=self._protect)
        return _paths(self._entries.update_all(caller.user_id, wanted))

    def delete_entries(self, caller: Bearer, request: wire.StorageEntries) -> wire.StorageEntries:
        """Delete those of the named entries that exist; the reply has the tombstones' paths."""
        names = [entry.key_name for entry in request.entries]
        for name in names:
            check_writable(name, protect=self._protect)
        return _paths(self._entries.delete_all(caller.user_id, names))

    def read_tree(self, caller: Bearer, request: wire.ReadKeysRequest) -> wire.StorageEntries:
        """Return all entries below a key name, at every level ("" for all), in order of names.

        `prefix` has no owner in it; the entry `prefix` itself is left out, and so is what the core
        keeps for tasks (§6.4).
        """
        reply = wire.StorageEntries()
        add, owner = reply.entries.add, f"{caller.user_id}::"
        for name, (timestamp, payload) in self._entries.tree(caller.user_id, request.prefix):
            add(key_path=f"{owner}{name}@{timestamp}", payload=payload)
        return reply


def _paths(paths: list[str]) -> wire.StorageEntries:
    return wire.StorageEntries(entries=[wire.StorageEntry(key_path=path) for path in paths])
