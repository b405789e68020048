"""Storage calls: entries, listings, and the extension's bulk forms with their fallbacks (§4)."""

from collections.abc import Iterable, Mapping, Sequence

from engine.colink import wire
from engine.colink.payloads import KeyPath, is_key_path, parse_key_path
from engine.colink.rpc import Caller
from engine.kits.aio import map_limited
from engine.model.errors import AlreadyExistsError, NotFoundError

_AT_ONCE = 16
_CHUNK = 2_000
"""Keys in one ReadEntries: requests stay under the 4 MiB that other cores accept."""


class StorageCalls:
    """The part of a client that reads and writes entries in the caller's own namespace.

    A `key` is a key name; where entries are read it may be a key path as well. All methods raise
    CoreUnavailableError, AccessDeniedError or UsageError besides what they say.
    """

    user_id: str
    _caller: Caller

    async def read(self, key: str) -> bytes | None:
        """Return an entry's value, or None when there is no such entry."""
        try:
            entries = await self._read_entries([key])
        except NotFoundError:
            return None
        return entries.get(key)

    async def read_version(self, key: str) -> tuple[KeyPath, bytes] | None:
        """Return an entry's value and the path of its version, or None when there is no entry."""
        request = wire.StorageEntries(entries=[wire.StorageEntry(key_name=key)])
        try:
            reply = await self._caller.call(
                "ReadEntries", request, about=key, internal=NotFoundError
            )
        except NotFoundError:
            return None
        return parse_key_path(reply.entries[0].key_path), reply.entries[0].payload

    async def read_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those `keys` that exist.

        One call when all do. ReadEntries is all or nothing, so each missing key costs about
        2 log2(n) calls more, made at once.
        """
        wanted = list(dict.fromkeys(keys))
        chunks = [wanted[start : start + _CHUNK] for start in range(0, len(wanted), _CHUNK)]
        parts = await map_limited(self._read_existing, chunks, _AT_ONCE)
        return {key: value for part in parts for key, value in part.items()}

    async def read_tree(self, prefix: str) -> dict[str, bytes]:
        """Return all entries below `prefix` (a key name), at every level, by key name."""
        tree = await self._read_tree_at_once(prefix)
        if tree is not None:
            return tree
        paths = await self._list_tree(prefix)
        values = await self.read_many(str(path) for path in paths)
        return {parse_key_path(path).key_name: value for path, value in values.items()}

    async def list_keys(self, prefix: str, include_history: bool = False) -> list[str]:
        """Return the key paths one level below `prefix`; directories end in `@0` (§4.2).

        `prefix` is a key name; empty for the root. The host may give `owner::name` or `owner:`.
        """
        if "::" not in prefix and not prefix.endswith(":"):
            prefix = f"{self.user_id}::{prefix}" if prefix else f"{self.user_id}:"
        request = wire.ReadKeysRequest(prefix=prefix, include_history=include_history)
        reply = await self._caller.call("ReadKeys", request, about=prefix)
        return [entry.key_path for entry in reply.entries]

    async def create(self, key: str, payload: bytes) -> str:
        """Make an entry and return its key path; AlreadyExistsError when there is one."""
        entry = wire.StorageEntry(key_name=key, payload=payload)
        reply = await self._caller.call(
            "CreateEntry", entry, about=key, internal=AlreadyExistsError
        )
        return str(reply.key_path)

    async def update(self, key: str, payload: bytes) -> str:
        """Write an entry, whether it exists or not, and return its key path."""
        entry = wire.StorageEntry(key_name=key, payload=payload)
        reply = await self._caller.call("UpdateEntry", entry, about=key)
        return str(reply.key_path)

    async def update_many(self, entries: Mapping[str, bytes]) -> None:
        """Write entries: in one step where the core can, else one by one in the order given."""
        if not entries:
            return
        request = wire.StorageEntries(
            entries=[
                wire.StorageEntry(key_name=key, payload=payload) for key, payload in entries.items()
            ]
        )
        if await self._caller.call_extension("UpdateEntries", request) is None:
            for key, payload in entries.items():
                await self.update(key, payload)

    async def delete(self, key: str) -> None:
        """Delete an entry; NotFoundError when there is none."""
        entry = wire.StorageEntry(key_name=key)
        await self._caller.call("DeleteEntry", entry, about=key, internal=NotFoundError)

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Delete those of `keys` that exist: in one step where the core can."""
        names = list(keys)
        if not names:
            return
        request = wire.StorageEntries(entries=[wire.StorageEntry(key_name=key) for key in names])
        if await self._caller.call_extension("DeleteEntries", request) is None:
            await map_limited(self._delete_if_there, names, _AT_ONCE)

    async def delete_tree(self, prefix: str) -> None:
        """Delete all entries below `prefix` (a key name), at every level."""
        tree = await self._read_tree_at_once(prefix)
        if tree is None:
            tree = {path.key_name: b"" for path in await self._list_tree(prefix)}
        await self.delete_many(tree)

    async def _delete_if_there(self, key: str) -> bool:
        try:
            await self.delete(key)
        except NotFoundError:
            return False
        return True

    async def _read_existing(self, keys: Sequence[str]) -> dict[str, bytes]:
        try:
            return await self._read_entries(keys)
        except NotFoundError:
            if len(keys) <= 1:
                return {}
        middle = len(keys) // 2
        halves = await map_limited(self._read_existing, [keys[:middle], keys[middle:]], 2)
        return halves[0] | halves[1]

    async def _read_entries(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Return the values of `keys`, all of them; NotFoundError when one is missing."""
        if not keys:
            return {}
        by_path = {key: wire.StorageEntry(key_path=key) for key in keys if is_key_path(key)}
        entries = [by_path.get(key) or wire.StorageEntry(key_name=key) for key in keys]
        reply = await self._caller.call(
            "ReadEntries",
            wire.StorageEntries(entries=entries),
            about=keys[0] if len(keys) == 1 else f"{len(keys)} entries",
            internal=NotFoundError,
        )
        values: dict[str, bytes] = {}
        for entry in reply.entries:
            values[entry.key_path] = entry.payload
            if entry.key_path not in by_path:
                values[parse_key_path(entry.key_path).key_name] = entry.payload
        return {key: values[key] for key in keys if key in values}

    async def _read_tree_at_once(self, prefix: str) -> dict[str, bytes] | None:
        """Return all entries below `prefix` in one call; None from a core without the extension."""
        request = wire.ReadKeysRequest(prefix=prefix)
        reply = await self._caller.call_extension("ReadTree", request, about=prefix)
        if reply is None:
            return None
        return {parse_key_path(entry.key_path).key_name: entry.payload for entry in reply.entries}

    async def _list_tree(self, prefix: str) -> list[KeyPath]:
        """Return the paths of all entries below `prefix`, listing level by level."""
        found: list[KeyPath] = []
        level = [prefix]
        while level:
            listings = await map_limited(self.list_keys, level, _AT_ONCE)
            paths = [parse_key_path(path) for listing in listings for path in listing]
            found += [path for path in paths if not path.is_directory]
            level = [path.key_name for path in paths if path.is_directory]
        return found
