"""§7.4, §7.5, §8: built-in operators and the initialisation of users."""

import json
from functools import partial

import pytest

from engine.colink import wire
from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.contract import becomes
from tests.support.core import make_user
from tests.support.rpc import Code, bearer, refused
from tests.support.stock import VtP2pCtx, blocking, sdk, stock, stock_user


def _start(name: str, user_id: str, **more) -> wire.StartProtocolOperatorRequest:
    return wire.StartProtocolOperatorRequest(protocol_name=name, user_id=user_id, **more)


async def _task_of(user, task_id: str) -> wire.Task:
    payload = await blocking(user.read_entry, f"_internal:tasks:{task_id}")
    return wire.Task.FromString(payload)


async def _reaches(user, task_id: str, status: str) -> None:
    """Assert that the user's copy of a task comes to a status."""

    async def found() -> str:
        return (await _task_of(user, task_id)).status

    await becomes(found, status)


async def _has(user, name: str, payload: bytes | None) -> None:
    """Assert that an entry gets a value."""
    await becomes(partial(blocking, user.read_entry, name), payload)


def _two(initiator, receiver):
    return [
        sdk.Participant(user_id=initiator.get_user_id(), role="initiator"),
        sdk.Participant(user_id=receiver.get_user_id(), role="receiver"),
    ]


class TestStarting:
    @pytest.mark.ours  # upstream has no scheduler built in
    async def test_an_operator_is_started_and_stopped_by_its_user(self, core, stub, alice) -> None:
        user_id = alice.get_user_id()
        instance = await blocking(
            alice.start_protocol_operator, "coflows_scheduler", user_id, False
        )
        group = await blocking(
            alice.read_entry, "_internal:protocol_operator_groups:coflows_scheduler"
        )
        assert list(wire.ListOfString.FromString(group).list) == [instance]
        name = f"_internal:protocol_operator_instances:{instance}:protocol_name"
        assert await blocking(alice.read_entry, name) == b"coflows_scheduler"
        host = stock(core, core.host_token)
        owner = await blocking(host.read_entry, f"protocol_operator_instance_users:{instance}")
        assert owner.decode() == user_id
        for protocol in ("coflows_scheduler", "coflows_push"):
            key = f"_internal:protocols:{protocol}:_is_initialized"
            assert await blocking(alice.read_entry, key) == b"\x01"
        await blocking(alice.stop_protocol_operator, instance)
        group = await blocking(
            alice.read_entry, "_internal:protocol_operator_groups:coflows_scheduler"
        )
        assert group == b""
        with pytest.raises(Exception, match="INTERNAL"):
            await blocking(alice.stop_protocol_operator, instance)

    @pytest.mark.ours  # it asks for operators by name that upstream takes from an inventory
    async def test_who_may_start_what(self, core: Core, stub) -> None:
        user, other = await make_user(core), await make_user(core)
        mine = bearer(user.jwt)

        async def code(request, metadata=mine):
            return await refused(stub.StartProtocolOperator(request, metadata=metadata))

        assert await code(_start("registry", other.user_id)) is Code.PERMISSION_DENIED
        assert await code(_start("../registry", user.user_id)) is Code.INVALID_ARGUMENT
        assert await code(_start("unheard_of", user.user_id)) is Code.NOT_FOUND
        assert await code(_start("policy_module", user.user_id, upgrade=True)) is Code.ABORTED
        nobody = _start("registry", "02" + "0" * 64)
        assert await code(nobody, bearer(core.host_token)) is Code.NOT_FOUND
        started = await stub.StartProtocolOperator(
            _start("registry", other.user_id), metadata=bearer(core.host_token)
        )
        stop = wire.ProtocolOperatorInstanceId(instance_id=started.instance_id)
        assert await refused(stub.StopProtocolOperator(stop, metadata=mine)) is (
            Code.PERMISSION_DENIED
        )
        await stub.StopProtocolOperator(stop, metadata=bearer(core.host_token))


class TestInitialisation:
    async def test_without_a_file_users_get_the_default_operators(self, alice) -> None:
        for name in ("policy_module", "remote_storage", "registry"):
            key = f"_internal:protocols:{name}:_is_initialized"
            assert await blocking(alice.read_entry, key) == b"\x01"
        accept = await blocking(alice.read_entry, "_policy_module:init:accept_all_tasks")
        assert accept == b"true"

    @pytest.mark.ours  # a core of the test's own
    async def test_a_file_in_the_home_says_what_users_get(self, tmp_path) -> None:
        (tmp_path / "user_init_config.toml").write_text(
            "[remote_storage]\noperator_num = 1\nstart_after = ['policy_module']\n"
            "[policy_module]\noperator_num = 1\n"
            "create_entry = [{key_name = 'mine', value = 'yes'}]\n"
            "[registry]\noperator_num = 0\n"
        )
        running = Core(Settings(home=tmp_path, port=0))
        await running.start()
        try:
            user = await stock_user(running)
            assert await blocking(user.read_entry, "mine") == b"yes"
            assert await blocking(user.read_entry, "_internal:_is_initialized") == b"\x01"
            assert running.parts.operators.runs(user.get_user_id(), "remote_storage")
            assert not running.parts.operators.runs(user.get_user_id(), "registry")
        finally:
            await running.stop()

    @pytest.mark.ours  # cores of the test's own
    async def test_files_are_looked_up_here_and_then_in_colink_home(self, tmp_path) -> None:
        here, home = tmp_path / "here", tmp_path / "home"
        config, template = "user_init_config.toml", "user_init_config.template.toml"
        places = [here / config, home / config, here / template, home / template]
        for number, place in enumerate(places):
            place.parent.mkdir(exist_ok=True)
            entry = f"{{key_name = 'from', value = '{number}'}}"
            place.write_text(f"[registry]\noperator_num = 1\ncreate_entry = [{entry}]\n")
        running = Core(Settings(home=here, port=0, colink_home=home))
        await running.start()
        try:
            for number, place in enumerate(places):
                user = await stock_user(running)
                assert await blocking(user.read_entry, "from") == str(number).encode()
                place.unlink()
            user = await stock_user(running)
            assert await blocking(user.read_entry, "_policy_module:init:accept_all_tasks")
        finally:
            await running.stop()

    @pytest.mark.ours  # upstream leaves the user waiting for ever
    @pytest.mark.parametrize(
        "text",
        [
            "[unheard_of]\noperator_num = 1\n",
            "[registry]\noperator_num = 1\nstart_after = ['policy_module']\n",
            "not toml",
        ],
    )
    async def test_a_file_that_cannot_be_followed_is_told(self, tmp_path, text) -> None:
        (tmp_path / "user_init_config.template.toml").write_text(text)
        running = Core(Settings(home=tmp_path, port=0))
        await running.start()
        try:
            user = await stock_user(running)
            assert await blocking(user.read_entry, "_internal:_is_initialized") == b"\x00"
            assert await blocking(user.read_entry, "_internal:initialisation_error")
        finally:
            await running.stop()


class TestPolicyModule:
    async def test_all_tasks_are_accepted_by_default(self, alice, bob) -> None:
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        for user in (alice, bob):
            await _reaches(user, task_id, "started")

    async def test_the_sdk_stops_and_starts_it(self, alice, bob) -> None:
        await blocking(bob.policy_module_stop)
        first = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        assert (await _task_of(bob, first)).status == "waiting"
        await blocking(bob.policy_module_start)
        second = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        await _reaches(bob, second, "started")
        # Whose `started` task is what the module runs on.
        running = wire.CoLinkInternalTaskIDList.FromString(
            await blocking(bob.read_entry, "_internal:protocols:policy_module:local:started")
        )
        assert len(running.task_ids_with_key_paths) == 1
        await blocking(bob.policy_module_stop)
        ended = wire.CoLinkInternalTaskIDList.FromString(
            await blocking(bob.read_entry, "_internal:protocols:policy_module:local:started")
        )
        assert not ended.task_ids_with_key_paths

    async def test_what_cannot_be_decided_any_more_is_left_alone(self, alice, bob, caplog) -> None:
        expired = await blocking(alice.run_task, "greet", "", _two(alice, bob), True, 1)
        assert (await _task_of(bob, expired)).status == "waiting"
        assert "failed" not in caplog.text

    @pytest.mark.parametrize(
        ("action", "status"),
        [("reject", "rejected"), ("ignore", "ignored"), ("forward", "waiting")],
    )
    async def test_a_rule_of_smaller_priority_wins(self, alice, bob, action, status) -> None:
        rule = sdk.Rule(
            task_filter=sdk.TaskFilter(protocol_name="greet", role="^rec"),
            action=sdk.Action(type=action, forward_target_keyname="asked"),
            priority=0,
        )
        await blocking(bob.policy_module_add_rule, rule)
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        other = await blocking(alice.run_task, "else", "", _two(alice, bob), True)
        await _reaches(bob, other, "started")
        await _reaches(bob, task_id, status)
        if action == "forward":
            await _has(bob, "asked", wire.Task(task_id=task_id).SerializeToString())

    @pytest.mark.parametrize(
        ("task_filter", "covers"),
        [
            (sdk.TaskFilter(), True),
            (sdk.TaskFilter(protocol_name="greet"), True),
            (sdk.TaskFilter(protocol_name="gree"), False),
            (sdk.TaskFilter(role="ceiv"), True),
            (sdk.TaskFilter(role="^ceiv"), False),
            (sdk.TaskFilter(role="initiator"), False),
            (sdk.TaskFilter(role="("), False),
            (sdk.TaskFilter(task_id="another"), False),
            (sdk.TaskFilter(require_agreement={"value": True}), True),
            (sdk.TaskFilter(require_agreement={"value": False}), False),
        ],
        ids=str,
    )
    async def test_each_field_of_a_filter(self, alice, bob, task_filter, covers) -> None:
        rule = sdk.Rule(task_filter=task_filter, action=sdk.Action(type="ignore"), priority=0)
        await blocking(bob.policy_module_add_rule, rule)
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        await _reaches(bob, task_id, "ignored" if covers else "started")

    async def test_participants_must_all_be_among_those_of_the_filter(self, alice, bob) -> None:
        for users, priority, action in (
            ([alice.get_user_id()], -2, "reject"),
            ([alice.get_user_id(), bob.get_user_id(), "another"], -1, "ignore"),
        ):
            rule = sdk.Rule(
                task_filter=sdk.TaskFilter(participants=users),
                action=sdk.Action(type=action),
                priority=priority,
            )
            await blocking(bob.policy_module_add_rule, rule)
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        await _reaches(bob, task_id, "ignored")

    async def test_rules_that_contradict_each_other_decide_nothing(self, alice, bob) -> None:
        for action in ("approve", "reject"):
            rule = sdk.Rule(action=sdk.Action(type=action), priority=-1)
            await blocking(bob.policy_module_add_rule, rule)
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        assert (await _task_of(bob, task_id)).status == "waiting"

    @pytest.mark.ours  # upstream crashes
    @pytest.mark.parametrize("action", [None, sdk.Action(), sdk.Action(type="unheard_of")])
    async def test_a_rule_without_an_action_decides_nothing(self, alice, bob, action) -> None:
        await blocking(bob.policy_module_add_rule, sdk.Rule(action=action, priority=-1))
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        assert (await _task_of(bob, task_id)).status == "waiting"

    @pytest.mark.ours  # upstream applies it to the task itself
    async def test_the_parents_filter_is_for_the_parent(self, alice, bob) -> None:
        parent = sdk.TaskFilter(protocol_name="parent")
        rule = sdk.Rule(
            task_filter=sdk.TaskFilter(protocol_name="child", parent_task_filter=parent),
            action=sdk.Action(type="ignore"),
            priority=-1,
        )
        await blocking(bob.policy_module_add_rule, rule)
        orphan = await blocking(alice.run_task, "child", "", _two(alice, bob), True)
        parent_id = await blocking(alice.run_task, "parent", "", _two(alice, bob), True)
        alice.set_task_id(parent_id)
        child = await blocking(alice.run_task, "child", "", _two(alice, bob), True)
        assert (await _task_of(bob, orphan)).status == "started"
        assert (await _task_of(bob, child)).status == "ignored"

    @pytest.mark.ours  # a pattern on which Python's own engine would take for ever
    async def test_no_pattern_blocks_the_core(self, alice, bob) -> None:
        rule = sdk.Rule(task_filter=sdk.TaskFilter(role="(a+)+$"), action=sdk.Action(type="ignore"))
        await blocking(bob.policy_module_add_rule, rule)
        two = _two(alice, bob)
        two[1].role = "a" * 60 + "b"
        task_id = await blocking(alice.run_task, "greet", "", two, True)
        await _reaches(bob, task_id, "started")


class TestRemoteStorage:
    async def test_an_entry_is_kept_at_another_user(self, alice, bob) -> None:
        holder, provider = alice.get_user_id(), bob.get_user_id()
        await blocking(alice.remote_storage_create, [provider], "k", b"1", False)
        key = f"_remote_storage:private:{holder}:k"
        await _has(bob, key, b"1")
        await blocking(alice.remote_storage_create, [provider], "k", b"again", False)
        await blocking(alice.remote_storage_update, [provider], "k", b"2", False)
        assert await blocking(alice.remote_storage_read, provider, "k", False, holder) == b"2"
        await blocking(alice.remote_storage_delete, [provider], "k", False)
        await _has(bob, key, None)
        with pytest.raises(Exception, match="status_code"):
            await blocking(alice.remote_storage_read, provider, "k", False, holder)

    async def test_private_entries_are_their_holders_and_public_ones_everybodys(
        self, core, alice, bob
    ) -> None:
        carol = await stock_user(core)
        holder, provider = alice.get_user_id(), bob.get_user_id()
        await blocking(alice.remote_storage_create, [provider], "p", b"private", False)
        await blocking(alice.remote_storage_create, [provider], "p", b"public", True)
        with pytest.raises(Exception, match="status_code"):
            await blocking(carol.remote_storage_read, provider, "p", False, holder)
        assert await blocking(carol.remote_storage_read, provider, "p", True, holder) == b"public"

    async def test_each_of_several_providers_keeps_the_entry(self, core, alice, bob) -> None:
        carol = await stock_user(core)
        providers = [bob.get_user_id(), carol.get_user_id()]
        await blocking(alice.remote_storage_create, providers, "k", b"1", True)
        for provider in (bob, carol):
            await _has(provider, f"_remote_storage:public:{alice.get_user_id()}:k", b"1")

    async def test_the_quota_is_counted_for_each_requester(self, alice, bob) -> None:
        full = 4 * 2**20
        default = await blocking(bob.read_entry, "_remote_storage:default_remaining_quota")
        assert int.from_bytes(default, "little", signed=True) == full
        await blocking(alice.remote_storage_create, [bob.get_user_id()], "name", b"value", False)
        left = (full - len("name") - len("value")).to_bytes(8, "little", signed=True)
        await _has(bob, f"_remote_storage:remaining_quota:{alice.get_user_id()}", left)

    @pytest.mark.ours  # upstream never gives quota back, and blocks when it is used up
    async def test_the_quota_limits_and_is_given_back(self, alice, bob) -> None:
        provider = [bob.get_user_id()]
        key = f"_remote_storage:private:{alice.get_user_id()}:"
        large = b"x" * 3_000_000
        await blocking(alice.remote_storage_create, provider, "one", large, False)
        await blocking(alice.remote_storage_create, provider, "two", large, False)
        assert await blocking(bob.read_entry, key + "two") is None
        await blocking(alice.remote_storage_delete, provider, "one", False)
        await blocking(alice.remote_storage_create, provider, "two", large, False)
        assert await blocking(bob.read_entry, key + "two") == large

    @pytest.mark.ours  # upstream's policy module has a task of its own that stays started
    async def test_all_its_tasks_are_finished(self, alice, bob) -> None:
        provider, holder = bob.get_user_id(), alice.get_user_id()
        await blocking(alice.remote_storage_create, [provider], "k", b"1", False)
        await blocking(alice.remote_storage_read, provider, "k", False, holder)

        async def started(user) -> int:
            found = await blocking(user.read_entry, "_internal:tasks:status:started")
            return len(wire.CoLinkInternalTaskIDList.FromString(found).task_ids_with_key_paths)

        for user in (alice, bob):
            await becomes(partial(started, user), 0)


class TestVariables:
    async def test_the_sdk_sends_a_variable_to_the_sdk(self, alice, bob) -> None:
        task_id = await blocking(alice.run_task, "greet", "", _two(alice, bob), True)
        for user in (alice, bob):
            user.set_task_id(task_id)
            user.vt_p2p_ctx = VtP2pCtx()  # as operators have it
        sender, receiver = _two(alice, bob)
        alice.send_variable("v", b"value" * 10**6, [receiver])
        assert await blocking(bob.recv_variable, "v", sender) == b"value" * 10**6
        inbox = await blocking(
            alice.read_entry,
            f"_remote_storage:private:{bob.get_user_id()}:_variable_transfer:{task_id}:inbox",
        )
        assert json.loads(inbox)["addr"] is None


class TestRegistry:
    async def test_users_of_this_core_are_found_and_registries_kept(self, alice, bob) -> None:
        wanted, me = bob.get_user_id(), alice.get_user_id()
        local = [sdk.Participant(user_id=me, role="query_from_registries")]
        record = wire.UserRecord(user_id=wanted).SerializeToString()
        task_id = await blocking(alice.run_task, "registry", record, local, False)
        await blocking(alice.wait_task, task_id)
        address = await blocking(alice.read_entry, f"_internal:known_users:{wanted}:core_addr")
        assert address.decode().startswith("http://127.0.0.1:")
        registries = sdk.Registries(registries=[sdk.Registry(address="x", guest_jwt="y")])
        await blocking(alice.update_registries, registries)
        kept = await blocking(alice.read_entry, "_registry:registries")
        assert wire.Registries.FromString(kept).registries[0].address == "x"
