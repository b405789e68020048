"""Getting instances on a real core, from oneself and across users."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.model.errors import FlowInstanceException, NotFoundError
from engine.serving import endpoints, instances
from tests.support.network import ATOMIC, TWICE, Member, members, network


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Member]:
    """A user with one worker of each kind."""
    async with network(core, 1) as users:
        yield users[0]


@pytest.fixture
async def two(core: Core) -> AsyncIterator[list[Member]]:
    """Two users with one worker of each kind."""
    async with network(core, 2) as users:
        yield users


@pytest.fixture
async def three(core: Core) -> AsyncIterator[list[Member]]:
    """Three users with one worker of each kind."""
    async with network(core, 3) as users:
        yield users


def at(user: Member | str, endpoint: str = "below", **overrides: Any) -> dict[str, Any]:
    """Return the config of a subflow `below` that is served elsewhere."""
    user_id = user if isinstance(user, str) else user.user_id
    return {
        "subflows_config": {"below": {"user_id": user_id, "flow_endpoint": endpoint} | overrides}
    }


async def record(user: Member, endpoint: str, **fields: Any) -> None:
    """Write the engine's record of an endpoint."""
    await user.client.update(keys.engine_flow(endpoint), json.dumps(fields).encode())


async def test_an_endpoints_own_schemas_are_checked_at_its_next_message(
    three: list[Member],
) -> None:
    server, client = three[:2]
    await endpoints.serve(server.client, "ep", "test.Counter")
    instance = await client.instance("ep", server.user_id)
    assert (await client.ask(instance, {})).data["count"] == 1
    await record(server, "ep", input_schema={"type": "object", "required": ["n"]})
    await instances.reconfigure(server.client, server.catalog, "ep")
    reply = await client.ask(instance, {})
    assert (reply.failed, reply.data["data_path"]) == (True, "data.n")
    assert (await client.ask(instance, {"n": 1})).data["count"] == 2
    await record(server, "ep", output_schema={"type": "object", "required": ["n"]})
    await instances.reconfigure(server.client, server.catalog, "ep")
    reply = await client.ask(instance, {})
    assert (reply.data["error_type"], reply.data["data_path"]) == ("InvalidMessageError", "data.n")
    assert "The answer of Counter does not fit its interface" in reply.data["error"]


# --- one user -------------------------------------------------------------------------------------


async def test_the_entries_of_an_instance(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter")
    overrides = {"step": 3, "deep": {"b": 2}}
    instance = await user.instance(
        "ep",
        config_overrides=overrides,
        initial_state={"count": 10},
        dispatch_point_override="coflows_dispatch",
    )
    mount = f"flows:ep:mounts:local:{instance.flow_id}"
    stored = await user.client.read_tree("flows:ep:mounts")
    assert set(stored) == {
        f"{mount}:{field}"
        for field in ("init", "config_overrides", "state", "dispatch_point_override")
    }
    assert stored[f"{mount}:dispatch_point_override"] == b"coflows_dispatch"
    config = json.loads(stored[f"{mount}:config_overrides"])
    assert config["step"] == 3
    assert config["deep"] == {"a": 1, "b": 2}
    assert config["flow_id"] == instance.flow_id
    assert config["enable_cache"] is False, "it is complete"
    assert await user.entry(keys.instance_metadata(instance.flow_id)) == {
        "flow_endpoint": "ep",
        "user_id": "local",
    }
    assert (await user.ask(instance, {})).data["count"] == 13


async def test_a_singleton_is_one_however_many_ask_at_once(two: list[Member]) -> None:
    user, other = two
    await endpoints.serve(user.client, "ep", "test.Counter", singleton=True)
    asking = [user.instance("ep") for _ in range(10)]
    asking += [other.instance("ep", user.user_id) for _ in range(5)]
    got = await asyncio.gather(*asking)
    assert len({instance.flow_id for instance in got}) == 1
    stored = await user.client.read_tree("flows:ep:mounts")
    assert len({key.rpartition(":")[0] for key in stored}) == 1
    assert (await user.ask(got[0], {})).data["count"] == 1
    assert (await user.instance("ep")).flow_id == got[0].flow_id
    assert (await other.ask(got[-1], {})).data["count"] == 2, "getting it again changes nothing"


async def test_a_singleton_that_was_claimed_but_not_mounted_is_finished(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter", singleton=True)
    claim = b'{"flow_id": "11111111-0000-4000-8000-000000000000", "user_id": "local"}'
    await user.client.create(keys.engine_singleton("ep"), claim)
    instance = await user.instance("ep")
    assert instance.flow_id == "11111111-0000-4000-8000-000000000000"
    assert (await user.ask(instance, {})).data["count"] == 1


async def test_a_singleton_that_stock_aiflows_mounted_is_found(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter", singleton=True)
    instance = await user.instance("ep")
    await user.client.delete(keys.engine_singleton("ep"))
    assert (await user.instance("ep")).flow_id == instance.flow_id


async def test_subflows_of_the_own_user_are_got_recursively(user: Member) -> None:
    await endpoints.serve(user.client, "below", "test.Counter")
    await endpoints.serve(user.client, "top", "test.Blocking")
    overrides = {"subflows_config": {"below": {"step": 5, "label": "x"}}}
    instance = await user.instance("top", config_overrides=overrides)
    assert (await user.ask(instance, {})).data == {"below": {"count": 5, "label": "x"}}
    metadata = await user.client.read_tree(keys.INSTANCE_METADATA)
    assert len(metadata) == 2
    assert await instances.delete_instance(user.client, instance.flow_id)
    assert await user.client.read_tree(keys.INSTANCE_METADATA) == {}
    assert await user.client.read_tree(keys.ENGINE_INSTANCES) == {}


async def test_a_flow_that_needs_itself_is_an_error(user: Member) -> None:
    await endpoints.serve(user.client, "below", "test.Blocking")
    with pytest.raises(FlowInstanceException, match="below -> below"):
        await user.instance("below")


@pytest.mark.parametrize(
    ("class_name", "reason"),
    [("test.Nothing", "no such class|no plugin"), ("nowhere.Flow", "no plugin 'nowhere'")],
)
async def test_a_class_that_cannot_be_used_is_told(
    user: Member, class_name: str, reason: str
) -> None:
    await endpoints.serve(user.client, "ep", class_name)
    with pytest.raises(FlowInstanceException, match=reason):
        await user.instance("ep")


# --- the engine's record --------------------------------------------------------------------------


async def test_the_record_lies_between_class_and_caller(two: list[Member]) -> None:
    server, caller = two
    await endpoints.serve(server.client, "below", "test.Counter")
    await endpoints.serve(server.client, "top", "test.Blocking")
    await record(server, "below", config_overrides={"step": 2, "label": "served"})
    subflow = {"user_id": server.user_id, "flow_endpoint": "below", "config_overrides": {"step": 7}}
    await record(server, "top", subflows={"below": subflow})
    top = await caller.instance("top", server.user_id)
    assert (await caller.ask(top, {})).data == {"below": {"count": 7, "label": "served"}}
    overrides = {"subflows_config": {"below": {"label": "asked"}}}
    top = await caller.instance("top", server.user_id, config_overrides=overrides)
    assert (await caller.ask(top, {})).data == {"below": {"count": 7, "label": "asked"}}


async def test_only_who_is_allowed_gets_an_instance(three: list[Member]) -> None:
    server, friend, stranger = three
    await endpoints.serve(server.client, "below", "test.Counter")
    await endpoints.serve(server.client, "top", "test.Blocking")
    await record(server, "below", allow=[friend.user_id])
    await friend.instance("below", server.user_id)
    await server.instance("below")
    with pytest.raises(FlowInstanceException, match="is not allowed to use it"):
        await stranger.instance("below", server.user_id)
    await stranger.instance("top", server.user_id), "whose subflow is the server's own affair"


async def test_a_caller_does_not_choose_what_he_has_no_access_to(three: list[Member]) -> None:
    server, caller, third = three
    for user in three:
        await endpoints.serve(user.client, "below", "test.Counter")
        await endpoints.serve(user.client, "private", "test.Counter")
        await record(user, "private", allow=[server.user_id])
    await endpoints.serve(server.client, "top", "test.Blocking")
    with pytest.raises(FlowInstanceException, match="is not allowed to use it"):
        await caller.instance("top", server.user_id, config_overrides=at(server, "private"))
    with pytest.raises(FlowInstanceException, match="below is not the caller's choice"):
        await caller.instance("top", server.user_id, config_overrides=at(third, "private"))
    top = await caller.instance("top", server.user_id, config_overrides=at(caller, "private"))
    assert (await caller.ask(top, {})).data["below"]["count"] == 1


@pytest.mark.parametrize(
    "overrides",
    [{"_target_": "os.system"}, {"other": 1}, {"flow_id": "x"}, {"label": {"$env": "${oc.env:X}"}}],
)
async def test_overrides_of_others_are_checked(two: list[Member], overrides: Any) -> None:
    server, caller = two
    await endpoints.serve(server.client, "ep", "test.Counter")
    with pytest.raises(FlowInstanceException, match="Overrides cannot"):
        await caller.instance("ep", server.user_id, config_overrides=overrides)
    assert await server.client.read_tree("flows:ep:mounts") == {}


# --- across users ---------------------------------------------------------------------------------


async def test_a_composite_with_two_subflows_of_another_user(two: list[Member]) -> None:
    user0, user1 = two
    await endpoints.serve(user0.client, "reverse_number_atomic", ATOMIC, singleton=True)
    await endpoints.serve(user1.client, "twice", TWICE)
    place = {"user_id": user0.user_id, "flow_endpoint": "reverse_number_atomic"}
    overrides = {"subflows_config": {"first_reverse_flow": place, "second_reverse_flow": place}}
    instance = await user1.instance("twice", config_overrides=overrides)
    replies = await asyncio.gather(
        *(user1.ask(instance, {"number": number}) for number in (12, 34, 56))
    )
    assert [reply.data for reply in replies] == [{"output_number": n} for n in (12, 34, 56)]
    singleton = await user1.instance("reverse_number_atomic", user0.user_id)
    assert (await user1.ask(singleton, {"number": 1234})).data == {"output_number": 4321}
    stored = await user0.client.read_tree("flows:reverse_number_atomic:mounts")
    assert {key.split(":")[3:5] == [user1.user_id, singleton.flow_id] for key in stored} == {True}
    failed = await user1.ask(instance, {"number": "x"})
    assert "must be an integer" in failed.data["error"]


async def test_a_chain_over_three_users(three: list[Member]) -> None:
    first, second, third = three
    await endpoints.serve(third.client, "below", "test.Counter")
    await endpoints.serve(second.client, "middle", "test.Blocking")
    await record(second, "middle", subflows={"below": at(third)["subflows_config"]["below"]})
    await endpoints.serve(first.client, "top", "test.Blocking")
    top = await first.instance("top", config_overrides=at(second, "middle"))
    assert (await first.ask(top, {})).data["below"]["below"]["count"] == 1


async def test_a_failure_names_every_user_and_endpoint_on_the_way(three: list[Member]) -> None:
    first, second, third = three
    await endpoints.serve(second.client, "middle", "test.Blocking")
    await record(second, "middle", subflows={"below": at(third)["subflows_config"]["below"]})
    await endpoints.serve(first.client, "top", "test.Blocking")
    with pytest.raises(FlowInstanceException) as caught:
        await first.instance("top", config_overrides=at(second, "middle"))
    assert str(caught.value) == (
        f"Failed to get an instance of top served by {first.user_id}: subflow below: "
        f"Failed to get an instance of middle served by {second.user_id}: subflow below: "
        f"Failed to get an instance of below served by {third.user_id}: Not serving at below."
    )


async def test_requests_that_lead_back_to_a_user_at_work_do_not_block(two: list[Member]) -> None:
    user0, user1 = two
    await endpoints.serve(user0.client, "below", "test.Counter")
    await endpoints.serve(user1.client, "middle", "test.Blocking")
    await record(user1, "middle", subflows={"below": at(user0)["subflows_config"]["below"]})
    await endpoints.serve(user0.client, "top", "test.Blocking")
    top = await user0.instance("top", config_overrides=at(user1, "middle"))
    assert (await user0.ask(top, {})).data["below"]["below"]["count"] == 1


async def test_a_circle_of_users_comes_to_an_end(two: list[Member]) -> None:
    user0, user1 = two
    for here, there in ((user0, user1), (user1, user0)):
        await endpoints.serve(here.client, "round", "test.Blocking")
        place = at(there, "round")["subflows_config"]["below"]
        await record(here, "round", subflows={"below": place})
    with pytest.raises(FlowInstanceException):
        await user0.instance("round", timeout=2)


async def test_a_user_without_worker_is_told_within_the_timeout(core: Core) -> None:
    async with network(core, 1) as users, members(core, 1) as idle:
        started = time.monotonic()
        with pytest.raises(FlowInstanceException, match="get_instance worker"):
            await users[0].instance("ep", idle[0].user_id, timeout=2)
        assert time.monotonic() - started < 5


async def test_an_unknown_user_is_told(user: Member) -> None:
    with pytest.raises(FlowInstanceException, match="no user id"):
        await user.instance("ep", "somebody")


async def test_a_request_answered_again_gives_the_same_instance(two: list[Member]) -> None:
    server, caller = two
    await endpoints.serve(server.client, "ep", "test.Counter")
    requester = instances.Requester(
        server.client, server.catalog, time.time() + 20, parent_task="the task"
    )
    call = [["key", "ep", {}]]
    first = await instances.answer_calls(requester, caller.user_id, call)
    instance = instances.Instance(first["key"]["flow_id"], server.user_id, "ep")
    assert (await caller.ask(instance, {})).data["count"] == 1
    assert await instances.answer_calls(requester, caller.user_id, call) == first
    assert (await caller.ask(instance, {})).data["count"] == 2, "its state was left alone"


async def test_nonsense_in_a_request_is_answered(user: Member) -> None:
    requester = instances.Requester(user.client, user.catalog, time.time() + 20, parent_task="t")
    for calls in (None, {}, [1, ["a"], [1, 2, 3]], "x"):
        assert await instances.answer_calls(requester, user.user_id, calls) == {}
    results = await instances.answer_calls(requester, user.user_id, [["k", 5, None]])
    assert results["k"]["successful"] is False


# --- changes --------------------------------------------------------------------------------------


async def test_reconfiguring_keeps_ids_and_states(two: list[Member]) -> None:
    server, caller = two
    await endpoints.serve(server.client, "below", "test.Counter")
    await endpoints.serve(server.client, "top", "test.Blocking")
    top = await caller.instance("top", server.user_id)
    mine = await server.instance("below", config_overrides={"label": "mine"})
    assert (await caller.ask(top, {})).data["below"]["count"] == 1
    await record(server, "below", config_overrides={"step": 10})
    await instances.reconfigure(server.client, server.catalog, "below")
    assert (await caller.ask(top, {})).data["below"]["count"] == 11
    assert (await server.ask(mine, {})).data == {"count": 10, "label": "mine"}
    place = {"user_id": server.user_id, "flow_endpoint": "below", "config_overrides": {"step": 100}}
    await record(server, "top", subflows={"below": place})
    await instances.reconfigure(server.client, server.catalog, "top")
    assert (await caller.ask(top, {})).data["below"]["count"] == 111


async def test_reconfiguring_gets_subflows_that_are_elsewhere_now(two: list[Member]) -> None:
    server, other = two
    await endpoints.serve(server.client, "below", "test.Counter")
    await endpoints.serve(other.client, "below", "test.Counter")
    await endpoints.serve(server.client, "top", "test.Blocking")
    top = await server.instance("top")
    await server.ask(top, {})
    await record(server, "top", subflows={"below": at(other)["subflows_config"]["below"]})
    await instances.reconfigure(server.client, server.catalog, "top")
    assert (await server.ask(top, {})).data["below"]["count"] == 1
    assert len(await other.client.read_tree(keys.INSTANCE_METADATA)) == 1
    before = await server.client.read_tree("flows:top")
    await instances.reconfigure(server.client, server.catalog, "top")
    assert await server.client.read_tree("flows:top") == before | {
        key: value
        for key, value in (await server.client.read_tree("flows:top")).items()
        if key.endswith(":state")
    }
    assert len(await other.client.read_tree(keys.INSTANCE_METADATA)) == 1


async def test_overrides_of_an_own_instance_can_be_replaced(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter")
    instance = await user.instance("ep", config_overrides={"step": 2, "label": "old"})
    assert (await user.ask(instance, {})).data == {"count": 2, "label": "old"}
    await instances.set_overrides(user.client, user.catalog, instance.flow_id, {"step": 5})
    assert (await user.ask(instance, {})).data == {"count": 7, "label": ""}
    with pytest.raises(NotFoundError):
        await instances.set_overrides(user.client, user.catalog, "nothing", {})


async def test_an_instance_is_deleted_only_for_who_has_it(two: list[Member]) -> None:
    server, caller = two
    await endpoints.serve(server.client, "ep", "test.Counter")
    await endpoints.serve(server.client, "one", "test.Counter", singleton=True)
    instance = await caller.instance("ep", server.user_id)
    one = await caller.instance("one", server.user_id)
    delete = instances.delete_instance
    assert not await delete(server.client, instance.flow_id, client_id=server.user_id)
    assert await delete(server.client, instance.flow_id, client_id=caller.user_id)
    assert not await delete(server.client, instance.flow_id, client_id=caller.user_id)
    assert not await delete(server.client, one.flow_id, client_id=caller.user_id)
    assert await delete(server.client, one.flow_id)
    assert (await caller.instance("one", server.user_id)).flow_id != one.flow_id
