"""Endpoints on a real core: exactly the entries that the protocol names (§9.1, §9.12)."""

from collections.abc import AsyncIterator

import pytest

from engine.colink import keys
from engine.colink.payloads import integer_bytes
from engine.core.server import Core
from engine.model.errors import UsageError
from engine.serving import endpoints
from tests.support.network import Member, members


@pytest.fixture
async def user(core: Core) -> AsyncIterator[Member]:
    """A user without workers."""
    async with members(core, 1) as users:
        yield users[0]


async def test_serving_writes_the_five_entries(user: Member) -> None:
    assert await endpoints.serve(
        user.client, "ep", "test.Counter", dispatch_point="gpu_dispatch", parallel_dispatch=True
    )
    assert await user.client.read_tree("flows") == {
        "flows:ep:init": b"1",
        "flows:ep:flow_class_name": b'"test.Counter"',
        "flows:ep:default_dispatch_point": b"gpu_dispatch",
        "flows:ep:singleton": b"false",
        "flows:ep:parallel_dispatch": integer_bytes(1),
    }
    assert await user.client.read_tree(keys.ENGINE_FLOWS) == {}


async def test_what_is_served_is_not_overwritten(user: Member) -> None:
    assert await endpoints.serve(user.client, "ep", "test.Counter")
    assert not await endpoints.serve(user.client, "ep", "test.Faulty")
    assert await user.entry("flows:ep:flow_class_name") == "test.Counter"
    assert await endpoints.unserve(user.client, "ep")
    assert not await endpoints.unserve(user.client, "ep")
    assert not await endpoints.is_served(user.client, "ep")
    assert await endpoints.serve(user.client, "ep", "test.Faulty")


@pytest.mark.parametrize("name", ["", "a:b", "a@b", "a b", "a/b"])
async def test_a_name_that_cannot_be_an_endpoint_is_refused(user: Member, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be a flow endpoint"):
        await endpoints.serve(user.client, name, "test.Counter")


async def test_deleting_leaves_nothing_of_it_and_all_of_the_others(user: Member) -> None:
    await endpoints.serve(user.client, "ep", "test.Counter", singleton=True)
    await endpoints.serve(user.client, "ep2", "test.Counter")
    await user.instance("ep")
    other = await user.instance("ep2")
    await endpoints.delete(user.client, "ep")
    left = await user.client.read_tree("")
    assert not [key for key in left if key.startswith(("flows:ep:", "engine:singletons"))]
    for tree in (keys.INSTANCE_METADATA, keys.ENGINE_INSTANCES):
        assert [key for key in left if key.startswith(tree)] == [f"{tree}:{other.flow_id}"]
    await endpoints.delete_all(user.client)
    assert await user.client.read_tree("flows") == {}


def test_an_endpoint_without_a_record_is_open_to_all() -> None:
    record = endpoints.EndpointRecord.decode(None)
    assert record.may_get_instance("anybody")
    assert record.may_send("anybody")


@pytest.mark.parametrize(
    ("allow", "get_instance", "send"),
    [
        (b"[]", False, False),
        (b'["any"]', True, True),
        (b'["02"]', True, True),
        (b'{"get_instance": ["any"], "send": []}', True, False),
        (b'{"get_instance": ["03"], "send": ["02"]}', False, True),
    ],
)
def test_who_is_allowed_is_told_for_each_operation(
    allow: bytes, get_instance: bool, send: bool
) -> None:
    record = endpoints.EndpointRecord.decode(b'{"allow": %b}' % allow)
    assert (record.may_get_instance("02"), record.may_send("02")) == (get_instance, send)
