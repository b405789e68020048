"""§3.5: TLS and mutual TLS between cores, by `--inter-core-ca`, `-cert` and `-key`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.colink import keys
from engine.core.server import Core
from engine.core.settings import Settings
from engine.model.errors import UsageError
from tests.support.certificates import Authority
from tests.support.cores import Member, Places
from tests.support.stock import blocking


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def _tls(authority: Authority, name: str, *, mutual: bool) -> dict[str, Any]:
    """Return the settings of a core with a certificate of its own."""
    pair = authority.issue(name)
    settings = {"cert": pair.cert, "key": pair.key, "inter_core_ca": authority.ca}
    if mutual:
        settings |= {
            "ca": authority.ca,
            "inter_core_cert": pair.cert,
            "inter_core_key": pair.key,
        }
    return settings


@pytest.fixture
def members(places: Places, authority: Authority) -> Callable[..., Any]:
    """Start two cores behind TLS, with a user on each who knows the other."""

    async def start(*, mutual: bool, reverse: bool = False, **second: Any) -> list[Member]:
        users = []
        for name, more in (("ann", {}), ("bob", second)):
            settings = _tls(authority, name, mutual=mutual) | more
            place = await places.start(inter_core_reverse_mode=reverse, **settings)
            users.append(await place.member())
        ann, bob = users
        await ann.knows(bob)
        await bob.knows(ann)
        return users

    return start


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mutual"])
@pytest.mark.parametrize("reverse", [False, True], ids=["direct", "reverse"])
async def test_cores_behind_tls_work_together(members, mutual: bool, reverse: bool) -> None:
    ann, bob = await members(mutual=mutual, reverse=reverse)
    assert bob.core.address.startswith("https://")
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    await bob.reaches(task_id, "started")
    task_id = await bob.run(ann)
    await bob.reaches(task_id, "started")


async def test_a_core_without_a_certificate_is_not_let_in(members) -> None:
    ann, bob = await members(mutual=True, inter_core_cert="", inter_core_key="")
    task_id = await bob.run(ann)
    assert bob.status(task_id) == "approved", "it waits, as for a core that is down"
    assert ann.status(task_id) == ""


async def test_a_core_of_another_authority_is_not_trusted(members, tmp_path: Path) -> None:
    stranger = Authority(tmp_path, "stranger")
    pair = stranger.issue("mallory")
    own = {"cert": pair.cert, "key": pair.key, "inter_core_ca": stranger.ca}
    ann, bob = await members(mutual=False, **own)
    task_id = await ann.run(bob)
    assert ann.status(task_id) == "approved"
    assert bob.status(task_id) == ""


async def test_a_core_in_the_open_and_one_behind_tls(places: Places, authority: Authority) -> None:
    ann = await (await places.start(inter_core_ca=authority.ca)).member()
    bob = await (await places.start(**_tls(authority, "bob", mutual=False))).member()
    await ann.knows(bob)
    await bob.knows(ann)
    task_id = await ann.run(bob)
    await ann.reaches(task_id, "started")
    address = await blocking(bob.sdk.read_entry, keys.known_user_address(ann.user_id))
    assert address.startswith(b"http://")


async def test_files_that_cannot_be_read_are_told_at_the_start(tmp_path: Path) -> None:
    for settings in ({"inter_core_ca": "absent"}, {"inter_core_cert": "a", "inter_core_key": "b"}):
        with pytest.raises(UsageError, match="between cores"):
            await Core(Settings(home=tmp_path, port=0, **settings)).start()
    with pytest.raises(UsageError, match="needs both"):
        Settings(inter_core_cert="only")
