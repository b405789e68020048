"""What this core refuses and upstream does not (§12): too much, too often, and what is its own."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from engine.colink import identity, wire
from engine.core.guard import Guard
from engine.core.limits import Limits
from engine.core.refusals import Refusal
from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.core import make_user
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import blocking, sdk, stock

pytestmark = pytest.mark.ours


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    """A core with narrow limits."""
    limits = Limits(
        max_message_bytes=100_000,
        max_payload_bytes=1000,
        max_key_bytes=200,
        max_key_depth=5,
        max_token_days=40,
        max_queues=3,
        max_queue_messages=5,
    )
    running = Core(Settings(home=tmp_path, port=0, limits=limits, lock_lease_seconds=0.2))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def _entry(name: str, payload: bytes = b"1") -> wire.StorageEntry:
    return wire.StorageEntry(key_name=name, payload=payload)


class TestSizes:
    async def test_a_payload(self, core, stub, extension) -> None:
        user = bearer((await make_user(core)).jwt)
        await stub.CreateEntry(_entry("fits", b"x" * 1000), metadata=user)
        large = _entry("large", b"x" * 1001)
        full = Code.RESOURCE_EXHAUSTED
        assert await refused(stub.CreateEntry(large, metadata=user)) is full
        assert await refused(stub.UpdateEntry(large, metadata=user)) is full
        many = wire.StorageEntries(entries=[_entry("small"), large])
        assert await refused(extension.UpdateEntries(many, metadata=user)) is full
        task = wire.Task(protocol_name="p", protocol_param=b"x" * 1001)
        assert await refused(stub.CreateTask(task, metadata=user)) is full

    async def test_a_whole_message(self, core, stub) -> None:
        user = bearer((await make_user(core)).jwt)
        entries = [wire.StorageEntry(key_path="x" * 1000) for _ in range(200)]
        call = stub.ReadEntries(wire.StorageEntries(entries=entries), metadata=user)
        assert await refused(call) is Code.RESOURCE_EXHAUSTED

    @pytest.mark.parametrize("name", ["x" * 201, "ä" * 101, "a:b:c:d:e:f:g"])
    async def test_a_name(self, core, stub, name) -> None:
        made = await make_user(core)
        user, wrong = bearer(made.jwt), Code.INVALID_ARGUMENT
        assert await refused(stub.CreateEntry(_entry(name), metadata=user)) is wrong
        subscribe = stub.Subscribe(wire.SubscribeRequest(key_name=name), metadata=user)
        assert await refused(subscribe) is wrong
        me = wire.Participant(user_id=made.user_id, role="r")
        task = wire.Task(protocol_name=name, participants=[me])
        assert await refused(stub.CreateTask(task, metadata=user)) is wrong
        me.role = name
        task = wire.Task(protocol_name="p", participants=[me])
        assert await refused(stub.CreateTask(task, metadata=user)) is wrong

    async def test_remote_storage_keeps_to_them_too(self, core) -> None:
        alice, bob = [stock(core, (await make_user(core)).jwt) for _ in range(2)]
        provider = [bob.get_user_id()]
        name = "n" * 190  # with its prefix, too long
        await blocking(alice.remote_storage_create, provider, name, b"1", False)
        await blocking(alice.remote_storage_create, provider, "n", b"1", False)
        key = f"_remote_storage:private:{alice.get_user_id()}:"
        assert await blocking(bob.read_entry, f"{key}n") == b"1"
        assert await blocking(bob.read_entry, key + name) is None


class TestRate:
    def test_a_caller_has_ten_seconds_worth_at_once_and_then_his_rate(self) -> None:
        now = 0.0
        guard = Guard(Limits(max_calls_per_second=2), lambda: now)

        def admitted(caller: str) -> int:
            count = 0
            try:
                while True:
                    guard.admit(caller, wire.Empty())
                    count += 1
            except Refusal as refusal:
                assert refusal.code is Code.RESOURCE_EXHAUSTED
            return count

        assert admitted("a") == 20
        assert admitted("b") == 20, "each has his own"
        now += 3
        assert admitted("a") == 6
        now += 1000
        assert admitted("a") == 20

    async def test_over_the_wire_it_is_resource_exhausted(self, tmp_path: Path) -> None:
        core = Core(Settings(home=tmp_path, port=0, limits=Limits(max_calls_per_second=0.01)))
        await core.start()
        try:
            async with grpc.aio.insecure_channel(core.address.removeprefix("http://")) as channel:
                call = wire.CoLinkStub(channel).RequestInfo(wire.Empty(), metadata=bearer(""))
                assert await refused(call) is Code.RESOURCE_EXHAUSTED
        finally:
            await core.stop()

    def test_zero_lifts_a_limit(self) -> None:
        guard = Guard(Limits(0, 0, 0, 0, 0))
        for _ in range(100):
            guard.admit("a", _entry("x:" * 10_000, b"x" * 10**6))


class TestQueues:
    @staticmethod
    def _subscribe(stub: wire.CoLinkStub, user: object, name: str = "k") -> object:
        return stub.Subscribe(wire.SubscribeRequest(key_name=name), metadata=user)

    async def test_a_user_has_so_many_at_once(self, core, stub) -> None:
        user, other = [bearer((await make_user(core)).jwt) for _ in range(2)]
        queues = [await self._subscribe(stub, user) for _ in range(3)]
        assert await refused(self._subscribe(stub, user)) is Code.RESOURCE_EXHAUSTED
        await self._subscribe(stub, other)
        await stub.Unsubscribe(queues[0], metadata=user)
        await self._subscribe(stub, user)

    async def test_one_that_nobody_reads_ends(self, core, stub) -> None:
        user = bearer((await make_user(core)).jwt)
        abandoned, read = [await self._subscribe(stub, user, name) for name in ("a", "b")]
        for name, count in (("a", 6), ("b", 5)):
            for _ in range(count):
                await stub.UpdateEntry(_entry(name), metadata=user)
        await core.parts.publisher.tidy()
        assert await refused(stub.Unsubscribe(abandoned, metadata=user)) is Code.INTERNAL
        await stub.Unsubscribe(read, metadata=user)


class TestTokens:
    async def test_those_asked_for_longer_end_when_the_core_says(self, core: Core) -> None:
        pair = identity.KeyPair.generate()
        host = stock(core, core.host_token)
        info = await blocking(host.request_info)
        consent = pair.sign_consent(info.core_public_key, 2**40)
        token = await blocking(
            host.import_user,
            sdk.application.coincurve.PublicKey(consent.public_key),
            consent.signature_timestamp,
            consent.expiration_timestamp,
            consent.signature,
        )
        end = time.time() + 40 * 86400
        assert abs(identity.claims(token).exp - end) < 60
        user = stock(core, token)
        assert await blocking(user.read_entry, "_internal:_is_initialized") == b"\x01"
        for asked, expected in ((2**62, end), (time.time() + 31 * 86400, None)):
            given = await blocking(user.generate_token_with_expiration_time, int(asked), "user")
            assert abs(identity.claims(given).exp - (expected or asked)) < 60


class TestLocks:
    async def test_a_lock_is_taken_over_once_its_lease_is_over(self, core: Core) -> None:
        client = stock(core, (await make_user(core)).jwt)
        abandoned = await blocking(client.lock, "thing")
        mine = await blocking(client.lock, "thing")
        with pytest.raises(Exception, match=r".+"):
            await blocking(client.unlock, abandoned)
        await blocking(client.unlock, mine)
        await blocking(client.create_entry, "_lockless", b"1")
        with pytest.raises(Exception, match="INTERNAL"):
            await blocking(client.create_entry, "_lockless", b"2")


class TestReserved:
    @pytest.mark.parametrize(
        "name",
        [
            "_internal:known_users:02ab:core_addr",
            "_internal:known_users:02ab:guest_jwt",
            "_internal:known_users:02ab:forwarding_user_id",
            "_internal:protocols:p:_is_initialized",
            "_internal:protocols:a.b:r:operator_mq",
            "_internal:protocols:p:@init:operator_mq",
            "_internal:task_po_mapping:00000000-0000-4000-8000-000000000000",
            "_internal:protocol_operator_instances:i:heartbeat",
        ],
    )
    async def test_what_stock_clients_write_they_may(self, core, stub, extension, name) -> None:
        user = bearer((await make_user(core)).jwt)
        await stub.CreateEntry(_entry(name), metadata=user)
        await stub.UpdateEntry(_entry(name), metadata=user)
        await stub.DeleteEntry(_entry(name), metadata=user)
        await extension.UpdateEntries(wire.StorageEntries(entries=[_entry(name)]), metadata=user)
        await extension.DeleteEntries(wire.StorageEntries(entries=[_entry(name)]), metadata=user)

    @pytest.mark.parametrize(
        "name",
        [
            "_internal:_is_initialized",
            "_internal:user_consent",
            "_internal:mq_uri",
            "_internal:tasks:x",
            "_internal:protocol_operator_groups:policy_module",
            "_internal:protocol_operator_instances:i:pid",
            "_internal:known_users:02ab:core_addr:more",
            "_internal:anything",
        ],
    )
    async def test_the_rest_is_the_cores_own(self, core, stub, extension, name) -> None:
        user, denied = bearer((await make_user(core)).jwt), Code.PERMISSION_DENIED
        entries = wire.StorageEntries(entries=[_entry("fine"), _entry(name)])
        for call in (
            stub.CreateEntry(_entry(name), metadata=user),
            stub.UpdateEntry(_entry(name), metadata=user),
            stub.DeleteEntry(_entry(name), metadata=user),
            extension.UpdateEntries(entries, metadata=user),
            extension.DeleteEntries(entries, metadata=user),
        ):
            assert await refused(call) is denied

    async def test_a_policy_forwards_no_task_there(self, core: Core) -> None:
        alice, bob = [stock(core, (await make_user(core)).jwt) for _ in range(2)]
        action = sdk.Action(type="forward", forward_target_keyname="_internal:user_consent")
        await blocking(bob.policy_module_add_rule, sdk.Rule(action=action, priority=0))
        before = await blocking(bob.read_entry, "_internal:user_consent")
        two = [
            sdk.Participant(user_id=user.get_user_id(), role=role)
            for user, role in ((alice, "initiator"), (bob, "receiver"))
        ]
        await blocking(alice.run_task, "p", b"", two, True)
        assert await blocking(bob.read_entry, "_internal:user_consent") == before

    async def test_a_setting_opens_it_as_upstream(self, tmp_path: Path) -> None:
        core = Core(Settings(home=tmp_path, port=0, allow_internal_writes=True))
        await core.start()
        try:
            user = stock(core, (await make_user(core)).jwt)
            await blocking(user.update_entry, "_internal:anything", b"1")
            with pytest.raises(Exception, match="PERMISSION_DENIED"):
                # What is no entry at all but made from tables stays the core's in any case.
                await blocking(user.update_entry, "_internal:tasks:x", b"1")
        finally:
            await core.stop()
