"""§8.3: users of several cores find each other by a registry."""

import asyncio
import fcntl
import time
from pathlib import Path

import pytest

from engine.colink import identity, keys, wire
from engine.core.operators.registry import is_plausible
from engine.core.tokens import Tokens
from tests.support.cores import Member, Place, Places
from tests.support.stock import blocking, sdk

RECORD = "_registry:user_record"


@pytest.fixture
def colink_home(tmp_path: Path) -> Path:
    """What InstantRegistry leaves: a folder with an empty reg_config."""
    folder = tmp_path / "colink"
    folder.mkdir()
    (folder / "reg_config").touch()
    return folder


@pytest.fixture(params=[False, True], ids=["direct", "reverse"])
async def network(places: Places, colink_home: Path, request) -> list[Member]:
    """A registry, and two users who know nobody; each on a core of his own."""
    return await places.members(3, colink_home=colink_home, inter_core_reverse_mode=request.param)


def _record_of(user: Member) -> str:
    return keys.remote_storage(user.user_id, RECORD, public=True)


def _registry(user: Member) -> wire.Registry:
    token = user.core.parts.tokens.mint("guest", user.user_id, 2**31)
    return wire.Registry(address=user.core.address, guest_jwt=token)


async def test_the_first_user_becomes_the_registry_and_others_leave_records(
    network: list[Member], colink_home: Path
) -> None:
    registry, ann, _ = network
    address, token = (colink_home / "reg_config").read_text().splitlines()
    assert address == registry.core.address
    assert identity.claims(token).user_id == registry.user_id
    assert identity.claims(token).privilege == "guest"
    for user in (registry, ann):
        record = wire.UserRecord.FromString(await registry.entry(_record_of(user)))
        assert (record.user_id, record.core_addr) == (user.user_id, user.core.address)
        assert is_plausible(record, user.user_id)
    assert (
        await blocking(ann.sdk.read_entry, "_registry:registries")
        == (
            wire.Registries(registries=[wire.Registry(address=address, guest_jwt=token)])
        ).SerializeToString()
    )


async def test_users_who_were_never_introduced_run_a_task(network: list[Member]) -> None:
    _, ann, bob = network
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    await bob.reaches(task_id, "started")
    address = await blocking(ann.sdk.read_entry, keys.known_user_address(bob.user_id))
    assert address.decode() == bob.core.address


async def test_a_user_whom_no_registry_knows_is_an_error_in_seconds(network) -> None:
    _, ann, _ = network
    stranger = sdk.Participant(user_id=identity.KeyPair.generate().user_id, role="receiver")
    me = sdk.Participant(user_id=ann.user_id, role="initiator")
    for _ in range(2):
        # The second time nobody is asked any more.
        with pytest.raises(Exception, match="no registry knows him"):
            await blocking(ann.sdk.run_task, "greet", "", [me, stranger], True, timeout=15)
    queries = [
        copy
        for copy in ann.core.parts.tasks.in_status(ann.user_id, "finished")
        if copy.task.protocol_name == "registry"
    ]
    assert len(queries) == 1


async def test_a_record_that_is_on_its_way_is_waited_for(network: list[Member]) -> None:
    registry, ann, bob = network
    record = await registry.entry(_record_of(bob))
    registry.core.parts.entries.delete(registry.user_id, _record_of(bob))
    running = asyncio.create_task(ann.run(bob))
    entries, reads = registry.core.parts.entries, asyncio.Event()
    registry.core.parts.tasks.on_entered.append(lambda copy: reads.set())
    await reads.wait()
    entries.update(registry.user_id, _record_of(bob), record)
    await ann.reaches(await running, "started")


async def test_a_core_that_moved_is_found_again(places: Places, colink_home: Path) -> None:
    _, ann, bob = await places.members(3, colink_home=colink_home)
    await ann.reaches(await ann.run(bob), "started")
    await bob.place.stop()
    await _move(bob.place)
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started", timeout=40)


async def _move(place: Place) -> None:
    """Start a core elsewhere than it was."""
    old = place.settings.port
    place.settings = type(place.settings)(**{**vars(place.settings), "port": 0})
    await place.start()
    assert place.settings.port != old


async def test_a_registry_keeps_its_name_over_a_restart(places: Places, colink_home: Path) -> None:
    registry, ann = await places.members(2, colink_home=colink_home)
    await registry.place.stop()
    await _move(registry.place)
    address = (colink_home / "reg_config").read_text().splitlines()[0]
    assert address == registry.core.address
    bob = (await places.members(1, colink_home=colink_home))[0]
    await registry.entry(_record_of(bob))
    assert await registry.entry(_record_of(ann))


async def test_registries_are_changed_with_the_sdk(network: list[Member]) -> None:
    registry, ann, bob = network
    assert await registry.entry(_record_of(ann))
    gone = asyncio.Event()
    registry.core.parts.tasks.on_entered.append(
        lambda copy: copy.task.protocol_name == "remote_storage.delete" and gone.set()
    )
    new = wire.Registries(registries=[_registry(bob)])
    await blocking(ann.sdk.update_registries, new)
    record = wire.UserRecord.FromString(await bob.entry(_record_of(ann)))
    assert record.core_addr == ann.core.address
    async with asyncio.timeout(20):
        await gone.wait()
    await registry.core.parts.store.committed()
    assert registry.core.parts.entries.get(registry.user_id, _record_of(ann)) is None


async def test_a_file_that_another_core_holds_is_waited_for(
    places: Places, colink_home: Path
) -> None:
    with (colink_home / "reg_config").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (ann,) = await places.members(1, colink_home=colink_home)
        assert held.read() == ""
    await ann.entry("_registry:registries")
    assert (colink_home / "reg_config").read_text().startswith(ann.core.address)


async def test_a_choice_of_registries_outlives_a_restart(places: Places, colink_home: Path) -> None:
    _, ann, bob = await places.members(3, colink_home=colink_home)
    chosen = wire.Registries(registries=[_registry(bob)])
    await blocking(ann.sdk.update_registries, chosen)
    await ann.place.stop()
    await ann.place.start()
    kept = await blocking(ann.sdk.read_entry, "_registry:registries")
    assert wire.Registries.FromString(kept) == chosen


async def test_default_registries_come_from_the_init_file(places: Places, tmp_path: Path) -> None:
    (registry,) = await places.members(1)
    await blocking(
        registry.sdk.update_registries, wire.Registries(registries=[_registry(registry)])
    )
    home = tmp_path / "configured"
    home.mkdir()
    named = _registry(registry)
    (home / "user_init_config.toml").write_text(f"""
[policy_module]
operator_num = 1
create_entry = [{{ key_name = "_policy_module:init:accept_all_tasks", value = "true" }}]
[remote_storage]
operator_num = 1
[registry]
operator_num = 1
start_after = ["policy_module", "remote_storage"]
[[registry.create_entry]]
key_name = "_registry:init:default_registry_addr"
value = "{named.address}"
[[registry.create_entry]]
key_name = "_registry:init:default_registry_jwt"
value = "{named.guest_jwt}"
""")
    ann, bob = await places.members(2, colink_home=home)
    await ann.reaches(await ann.run(bob), "started")


async def test_a_forwarder_is_part_of_the_record(places: Places, colink_home: Path) -> None:
    registry, ann, bob = await places.members(3, colink_home=colink_home)
    await blocking(ann.sdk.create_entry, "_registry:forwarding_user_id", registry.user_id)
    registries = wire.Registries.FromString(
        await blocking(ann.sdk.read_entry, "_registry:registries")
    )
    await blocking(ann.sdk.update_registries, registries)
    async with asyncio.timeout(20):
        while not wire.UserRecord.FromString(
            await registry.entry(_record_of(ann))
        ).forwarding_user_id:
            await asyncio.sleep(0.01)
    await blocking(bob.sdk.run_task, "registry", _query(ann), _asker(bob), False)
    forwarder = await bob.entry(keys.known_user_forwarder(ann.user_id))
    assert forwarder.decode() == registry.user_id


def _query(user: Member) -> bytes:
    return wire.UserRecord(user_id=user.user_id).SerializeToString()


def _asker(user: Member) -> list:
    return [sdk.Participant(user_id=user.user_id, role="query_from_registries")]


async def test_the_engines_own_core_leaves_the_shared_file_alone(
    places: Places, colink_home: Path
) -> None:
    await places.members(1, colink_home=colink_home, child=True)
    assert (colink_home / "reg_config").read_text() == ""


async def test_a_wrong_record_is_not_believed(network: list[Member]) -> None:
    registry, ann, bob = network
    await registry.entry(_record_of(bob))
    lie = wire.UserRecord(
        user_id=bob.user_id,
        core_addr=ann.core.address,
        guest_jwt=_registry(ann).guest_jwt,
    )
    registry.core.parts.entries.update(registry.user_id, _record_of(bob), lie.SerializeToString())
    with pytest.raises(Exception, match="no registry knows him"):
        await ann.run(bob)
    assert await blocking(ann.sdk.read_entry, keys.known_user_address(bob.user_id)) is None


def test_what_a_plausible_record_is() -> None:
    user = identity.KeyPair.generate().user_id
    tokens = Tokens(b"s" * 32)
    good = wire.UserRecord(
        user_id=user,
        core_addr="https://core.example:2021",
        guest_jwt=tokens.mint("guest", user, int(time.time()) + 60),
    )
    assert is_plausible(good, user)
    for field, value in (
        ("user_id", "another"),
        ("core_addr", "file:///etc/passwd"),
        ("core_addr", "http://[broken"),
        ("guest_jwt", "no token"),
        ("guest_jwt", tokens.mint("guest", "another", 2**31)),
        ("guest_jwt", tokens.mint("host", user, 2**31)),
        ("guest_jwt", tokens.mint("guest", user, 1)),
        ("forwarding_user_id", user),
    ):
        bad = wire.UserRecord()
        bad.CopyFrom(good)
        setattr(bad, field, value)
        assert not is_plausible(bad, user), (field, value)
