"""§4: entries, versions, listings; and the extension."""

import time

import pytest

from engine.colink import wire
from engine.colink.client import Connections
from engine.core.server import Core
from tests.support.contract import mint
from tests.support.core import make_user
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import blocking


def _entry(name: str, payload: bytes = b"1") -> wire.StorageEntry:
    return wire.StorageEntry(key_name=name, payload=payload)


def _names(*names: str) -> wire.StorageEntries:
    return wire.StorageEntries(entries=[wire.StorageEntry(key_name=name) for name in names])


def _paths(*paths: str) -> wire.StorageEntries:
    return wire.StorageEntries(entries=[wire.StorageEntry(key_path=path) for path in paths])


async def test_create_read_update_delete_with_the_sdk(alice) -> None:
    user_id = alice.get_user_id()
    created = await blocking(alice.create_entry, "a", "text")
    owner_and_name, _, timestamp = created.partition("@")
    assert owner_and_name == f"{user_id}::a"
    assert abs(int(timestamp) - time.time_ns()) < 10**10
    assert await blocking(alice.read_entry, "a") == b"text"
    assert await blocking(alice.read_entry, created) == b"text"
    updated = await blocking(alice.update_entry, "a", 5)
    assert await blocking(alice.read_entry, "a") == (5).to_bytes(32, "little")
    assert await blocking(alice.read_entry, created) == b"text"
    deleted = await blocking(alice.delete_entry, "a")
    assert deleted.startswith(f"{user_id}::a@")
    # The sheet's oddity: a tombstone's timestamp is in seconds.
    assert abs(int(deleted.partition("@")[2]) - time.time()) < 10
    assert await blocking(alice.read_entry, "a") is None
    assert await blocking(alice.read_entry, deleted) is None
    assert await blocking(alice.read_entry, updated) == (5).to_bytes(32, "little")


async def test_create_fails_on_a_live_key_and_works_after_a_delete(core: Core, stub) -> None:
    user = bearer((await make_user(core)).jwt)
    await stub.CreateEntry(_entry("a"), metadata=user)
    assert await refused(stub.CreateEntry(_entry("a"), metadata=user)) is Code.INTERNAL
    await stub.DeleteEntry(_entry("a"), metadata=user)
    assert await refused(stub.DeleteEntry(_entry("a"), metadata=user)) is Code.INTERNAL
    await stub.CreateEntry(_entry("a"), metadata=user)
    assert await refused(stub.DeleteEntry(_entry("never"), metadata=user)) is Code.INTERNAL


async def test_reading_is_all_or_nothing_and_without_duplicates(core: Core, stub) -> None:
    made = await make_user(core)
    user = bearer(made.jwt)
    path = (await stub.UpdateEntry(_entry("a", b"A"), metadata=user)).key_path
    await stub.UpdateEntry(_entry("b", b"B"), metadata=user)
    reply = await stub.ReadEntries(_names("a", "b", "a"), metadata=user)
    assert [(e.key_name, e.key_path.partition("@")[0], e.payload) for e in reply.entries] == [
        ("", f"{made.user_id}::a", b"A"),
        ("", f"{made.user_id}::b", b"B"),
    ]
    assert await refused(stub.ReadEntries(_names("a", "none"), metadata=user)) is Code.INTERNAL
    both = wire.StorageEntries(entries=[*_names("b").entries, *_paths(path).entries])
    reply = await stub.ReadEntries(both, metadata=user)
    assert [entry.payload for entry in reply.entries] == [b"A", b"B"], "paths come first"
    assert not (await stub.ReadEntries(wire.StorageEntries(), metadata=user)).entries
    many = [f"many:{number}" for number in range(40)]
    for name in many:
        await stub.UpdateEntry(_entry(name, name.encode()), metadata=user)
    reply = await stub.ReadEntries(_names(*many, "_internal:user_consent"), metadata=user)
    assert [entry.payload for entry in reply.entries[:-1]] == [name.encode() for name in many]
    assert await refused(stub.ReadEntries(_names(*many, "none"), metadata=user)) is Code.INTERNAL


async def test_what_a_read_must_name(core: Core, stub) -> None:
    made, other = await make_user(core), await make_user(core)
    user = bearer(made.jwt)
    path = (await stub.UpdateEntry(_entry("a"), metadata=bearer(other.jwt))).key_path
    for wrong in (wire.StorageEntry(), wire.StorageEntry(key_name="a", key_path=path)):
        call = stub.ReadEntries(wire.StorageEntries(entries=[wrong]), metadata=user)
        assert await refused(call) is Code.INVALID_ARGUMENT
    assert await refused(stub.ReadEntries(_paths(path), metadata=user)) is Code.PERMISSION_DENIED
    reply = await stub.ReadEntries(_paths(path), metadata=bearer(core.host_token))
    assert reply.entries[0].payload == b"1", "the host may read any path"
    for absent in (
        f"{made.user_id}::a@1",
        f"{made.user_id}::a",
        f"{made.user_id}::a@x",
        f"{made.user_id}::a@{9**30}",
    ):
        assert await refused(stub.ReadEntries(_paths(absent), metadata=user)) is Code.INTERNAL


async def test_listings_are_those_of_the_sheets_example(alice) -> None:
    user_id = alice.get_user_id()
    for name in ("a", "x:y", "x:z:w"):
        await blocking(alice.create_entry, name, b"1")

    async def listed(prefix: str, history: bool = False) -> list[str]:
        entries = await blocking(alice.read_keys, prefix, history)
        paths = [entry.key_path for entry in entries]
        assert all(path.startswith(f"{user_id}::") for path in paths)
        names = [path.removeprefix(f"{user_id}::") for path in paths if "::_" not in path]
        return [n if n.endswith("@0") else n.partition("@")[0] + "@ts" for n in names]

    assert await listed(f"{user_id}:") == ["a@ts", "x@0"]
    assert await listed(user_id) == []
    assert await listed(f"{user_id}::x") == ["x:y@ts", "x:z@0"]
    assert await listed(f"{user_id}::x:") == []
    assert await listed(f"{user_id}::x:z") == ["x:z:w@ts"]
    assert await listed(f"{user_id}::a") == []
    await blocking(alice.update_entry, "x:z", b"both")
    assert await listed(f"{user_id}::x") == ["x:y@ts", "x:z@0", "x:z@ts"]
    await blocking(alice.update_entry, "x:y", b"2")
    assert await listed(f"{user_id}::x", history=True) == ["x:y@ts", "x:y@ts", "x:z@0", "x:z@ts"]
    await blocking(alice.delete_entry, "x:z:w")
    assert await listed(f"{user_id}::x:z") == []
    assert await listed(f"{user_id}::x:z", history=True) == ["x:z:w@ts"]
    assert "x:z@0" in await listed(f"{user_id}::x"), "markers stay"


async def test_a_user_lists_only_his_own(core: Core, stub) -> None:
    made, other = await make_user(core), await make_user(core)
    request = wire.ReadKeysRequest(prefix=f"{other.user_id}:")
    call = stub.ReadKeys(request, metadata=bearer(made.jwt))
    assert await refused(call) is Code.INVALID_ARGUMENT
    reply = await stub.ReadKeys(request, metadata=bearer(core.host_token))
    assert f"{other.user_id}::_internal@0" in [entry.key_path for entry in reply.entries]


@pytest.mark.ours
async def test_versions_of_one_key_increase_strictly(core: Core, extension) -> None:
    user = bearer((await make_user(core)).jwt)
    request = wire.StorageEntries(entries=[_entry("a", b"%d" % n) for n in range(100)])
    reply = await extension.UpdateEntries(request, metadata=user)
    timestamps = [int(entry.key_path.partition("@")[2]) for entry in reply.entries]
    assert timestamps == sorted(set(timestamps))


async def test_the_host_has_a_storage_of_its_own(core: Core, stub) -> None:
    host = bearer(core.host_token)
    reply = await stub.CreateEntry(_entry("mine"), metadata=host)
    assert reply.key_path.startswith(f"{core.host_id}::mine@")


@pytest.mark.parametrize(
    "name",
    [
        "_internal:tasks:x",
        "_internal:tasks:status:started",
        "_internal:protocols:p:waiting",
        "_internal:protocols:p:r:started:latest",
    ],
)
@pytest.mark.ours
async def test_what_the_core_keeps_is_not_for_users_to_write(core, stub, extension, name) -> None:
    user = bearer((await make_user(core)).jwt)
    denied = Code.PERMISSION_DENIED
    assert await refused(stub.UpdateEntry(_entry(name), metadata=user)) is denied
    assert await refused(stub.CreateEntry(_entry(name), metadata=user)) is denied
    request = wire.StorageEntries(entries=[_entry("fine"), _entry(name)])
    assert await refused(extension.UpdateEntries(request, metadata=user)) is denied
    assert await refused(stub.ReadEntries(_names("fine"), metadata=user)) is Code.INTERNAL


async def test_locks_of_the_sdk_work(alice) -> None:
    lock = await blocking(alice.lock, "thing")
    assert await blocking(alice.read_entry, "_lock:thing") is not None
    await blocking(alice.unlock, lock)
    again = await blocking(alice.lock, "thing")
    await blocking(alice.unlock, again)


@pytest.mark.ours
async def test_thousands_of_entries_are_read_in_one_call(core: Core) -> None:
    made = await make_user(core)
    names = [f"flows:{number // 6}:{number % 6}" for number in range(6000)]
    async with Connections() as connections:
        client = connections.client(core.address, made.jwt)
        await client.update_many({name: name.encode() for name in names})
        assert await client.read_many(names) == {name: name.encode() for name in names}


@pytest.mark.ours
class TestExtension:
    async def test_entries_are_written_together_and_read_as_a_tree(self, core, extension) -> None:
        made = await make_user(core)
        user = bearer(made.jwt)
        names = ["t", "t:b", "t:a:c", "t;", "ta:x"]
        request = wire.StorageEntries(entries=[_entry(n, n.encode()) for n in names])
        written = await extension.UpdateEntries(request, metadata=user)
        reply = await extension.ReadTree(wire.ReadKeysRequest(prefix="t"), metadata=user)
        assert [(e.key_path, e.payload) for e in reply.entries] == [
            (written.entries[2].key_path, b"t:a:c"),
            (written.entries[1].key_path, b"t:b"),
        ]
        whole = await extension.ReadTree(wire.ReadKeysRequest(), metadata=user)
        found = {entry.key_path.split("::")[1].partition("@")[0] for entry in whole.entries}
        assert found >= {*names, "_internal:user_consent"}

    async def test_deleting_skips_what_is_absent(self, core, extension, stub) -> None:
        user = bearer((await make_user(core)).jwt)
        await stub.CreateEntry(_entry("a"), metadata=user)
        reply = await extension.DeleteEntries(_names("a", "none", "a"), metadata=user)
        assert len(reply.entries) == 1
        assert await refused(stub.ReadEntries(_names("a"), metadata=user)) is Code.INTERNAL

    async def test_replies_may_pass_four_megabytes(self, core: Core) -> None:
        made = await make_user(core)
        async with Connections() as connections:
            client = connections.client(core.address, made.jwt)
            await client.update_many({f"big:{n}": b"x" * 2_000_000 for n in range(4)})
            assert len(await client.read_tree("big")) == 4

    async def test_guests_have_no_part_in_it(self, core: Core, extension) -> None:
        made = await make_user(core)
        guest = mint(core, "guest", made.user_id, 2**31)
        call = extension.ReadTree(wire.ReadKeysRequest(), metadata=bearer(guest))
        assert await refused(call) is Code.PERMISSION_DENIED
