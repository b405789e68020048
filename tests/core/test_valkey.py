"""The message queue's process, apart from any core."""

from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from engine.colink.client import Connections
from engine.colink.resp import Connection, parse_uri
from engine.core.queue.accounts import Account
from engine.core.queue.streams import Streams, acl_rule
from engine.core.queue.valkey import Valkey
from engine.core.server import Core
from engine.core.settings import Settings
from tests.support.core import make_user


async def _touch(valkey: Valkey) -> None:
    """Start a server and see that it answers."""
    await (await Streams(valkey).connect()).close()


@pytest.fixture
async def stale(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server whose core is gone without it."""
    valkey = Valkey(tmp_path / "valkey", "127.0.0.1")
    await _touch(valkey)
    yield valkey
    await valkey.stop()


async def test_a_server_left_behind_is_ended_and_replaced(stale: Valkey, tmp_path: Path) -> None:
    fresh = Valkey(tmp_path / "valkey", "127.0.0.1")
    try:
        await _touch(fresh)
        assert fresh.address == stale.address
        assert fresh.pid != stale.pid
        assert not psutil.pid_exists(stale.pid)
    finally:
        await fresh.stop()


async def test_one_of_another_folder_is_left_alone(stale: Valkey, tmp_path: Path) -> None:
    other = Valkey(tmp_path / "other", "127.0.0.1")
    (tmp_path / "other" / "valkey.pid").write_text(str(stale.pid))
    try:
        await _touch(other)
        assert psutil.Process(stale.pid).is_running()
    finally:
        await other.stop()


async def test_it_moves_when_its_port_is_taken(stale: Valkey, tmp_path: Path) -> None:
    other = Valkey(tmp_path / "other", "127.0.0.1")
    (tmp_path / "other" / "port").write_text(stale.address.partition(":")[2])
    other = Valkey(tmp_path / "other", "127.0.0.1")
    try:
        await _touch(other)
        assert other.address != stale.address
    finally:
        await other.stop()


async def test_a_core_can_use_one_that_somebody_else_runs(stale: Valkey, tmp_path: Path) -> None:
    password = (tmp_path / "valkey" / "password").read_text()
    uri = f"redis://default:{password}@{stale.address}/"
    core = Core(Settings(home=tmp_path / "core", port=0, mq_uri=uri, mq_prefix="mine"))
    await core.start()
    try:
        async with Connections() as connections:
            user = connections.client(core.address, (await make_user(core)).jwt)
            queue = await user.queue(await user.subscribe("a", 0))
            assert (await user.request_info()).mq_uri.startswith("redis://mine--")
            await user.update("a", b"1")
            assert [delivery.payload for delivery in await queue.take("reader")] == [b"1"]
        assert not (tmp_path / "core" / "valkey").exists()
    finally:
        await core.stop()


async def test_accounts_are_known_from_the_first_moment(tmp_path: Path) -> None:
    account = Account("colink--abc", "secret")
    valkey = Valkey(tmp_path / "valkey", "127.0.0.1", lambda: [acl_rule(account)])
    try:
        await _touch(valkey)
        connection = await Connection.open(parse_uri(Streams(valkey).uri(account)))
        assert await connection.call("XLEN", "colink--abc:q") == 0
        connection.close()
    finally:
        await valkey.stop()
    for name in ("users.acl", "valkey.conf", "password"):
        assert (tmp_path / "valkey" / name).stat().st_mode & 0o077 == 0
