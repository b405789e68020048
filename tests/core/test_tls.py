"""§3.5: TLS and mutual TLS for clients, as the stock SDK speaks them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from engine.core.server import Core
from engine.core.settings import Settings
from engine.model.errors import UsageError
from tests.support.certificates import Authority
from tests.support.stock import Messages, blocking, sdk


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture(params=["tls", "mutual"])
async def core(request: Any, tmp_path: Path, authority: Authority) -> AsyncIterator[Core]:
    cert, key = authority.issue("server")
    running = Core(
        Settings(
            home=tmp_path / "core",
            port=0,
            cert=cert,
            key=key,
            ca=authority.ca if request.param == "mutual" else "",
        )
    )
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


def _host(core: Core, authority: Authority) -> Any:
    """Return the SDK's object for the host, knowing the authority and with an identity."""
    client = sdk.CoLink(core.address, core.host_token)
    client.ca_certificate(authority.ca)
    client.identity(*authority.issue("client"))
    return client


async def test_the_sdk_does_its_work_over_it(core: Core, authority: Authority) -> None:
    assert core.address.startswith("https://127.0.0.1:")
    user = await blocking(_host(core, authority).switch_to_generated_user)
    queue = await blocking(user.subscribe, "a", 0)
    messages = await Messages.of(user, queue)
    await blocking(user.create_entry, "a", b"1")
    assert (await messages.next()).payload == b"1"
    me = [sdk.Participant(user_id=user.get_user_id(), role="local")]
    task_id = await blocking(user.run_task, "p", b"", me, True)
    await blocking(user.finish_task, task_id)
    messages.close()


async def test_who_does_not_trust_the_authority_is_not_served(core, authority, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    client = _host(core, authority)
    client.ca_certificate(Authority(tmp_path / "other").ca)
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        await blocking(client.request_info)


async def test_plain_text_is_not_understood(core: Core) -> None:
    client = sdk.CoLink(core.address.replace("https", "http"), core.host_token)
    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
        await blocking(client.request_info)


@pytest.mark.parametrize("core", ["mutual"], indirect=True)
async def test_clients_need_an_identity_of_the_cores_authority(core, authority, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    anonymous = sdk.CoLink(core.address, core.host_token)
    anonymous.ca_certificate(authority.ca)
    stranger = _host(core, authority)
    stranger.identity(*Authority(tmp_path / "other").issue("client"))
    for client in (anonymous, stranger):
        with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
            await blocking(client.request_info)
    assert await blocking(_host(core, authority).request_info)


async def test_files_that_cannot_be_used_are_told(tmp_path: Path, authority: Authority) -> None:
    cert, key = authority.issue("server")
    (tmp_path / "broken").write_text("no certificate")
    for wrong in ({"cert": "absent"}, {"key": str(tmp_path / "broken")}):
        settings = Settings(home=tmp_path / "core", port=0, **({"cert": cert, "key": key} | wrong))
        with pytest.raises(UsageError, match="TLS"):
            await Core(settings).start()
