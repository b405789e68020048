"""`colink-server check` and `backup`: on a core that runs, and on one that was damaged."""

import sqlite3
import stat
from pathlib import Path

import pytest

from engine.colink import wire
from engine.core.check import back_up, check
from engine.core.main import main
from engine.core.server import Core
from engine.core.settings import Settings
from engine.model.errors import UsageError
from tests.support.core import make_user


@pytest.fixture
async def home(core: Core) -> Path:
    """A running core's home, with something in each table."""
    parts = core.parts
    user_id = (await make_user(core, ("coflows_scheduler",))).user_id
    parts.entries.create(user_id, "a:b:c", b"1")
    parts.entries.update(user_id, "a:b:c", b"2")
    parts.entries.create(user_id, "gone", b"1")
    parts.entries.delete(user_id, "gone")
    participants = [wire.Participant(user_id=user_id, role="local")]
    for number in range(3):
        task_id = parts.tasks.create(
            user_id, wire.Task(protocol_name="p", participants=participants)
        )
        if number:
            parts.tasks.finish(user_id, task_id)
    await parts.store.committed()
    return core.settings.home


async def test_a_core_in_use_is_sound(home: Path) -> None:
    faults, sizes = check(home)
    assert faults == []
    assert sizes["tasks"] == 3
    assert sizes["versions"] > 3


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("DELETE FROM versions WHERE ts=(SELECT latest FROM keys WHERE name='a:b:c')", "a:b:c"),
        ("DELETE FROM keys WHERE name='a:b:c'", "belongs to no key"),
        ("UPDATE keys SET directory='x:' WHERE name='a:b:c'", "not in its directory"),
        ("DELETE FROM directories WHERE name='a'", "a of user"),
        ("UPDATE tasks SET status='waiting' WHERE status='started'", "and is waiting"),
        ("UPDATE tasks SET record=x'ff' WHERE status='started'", "cannot be read"),
        ("UPDATE tasks SET status_list=protocol_list WHERE status='started'", "but stands in"),
        ("UPDATE tasks SET protocol_list=0", "a list that is not there"),
        ("INSERT INTO outbox VALUES(1, 'q', x'')", "for the queue q"),
        ("INSERT INTO subscriptions VALUES('q', 1, 'a')", "who has no account"),
        ("INSERT INTO mailbox VALUES(1, 99, 'f', 'k')", "the user 99"),
    ],
)
async def test_what_does_not_fit_together_is_told(home: Path, tmp_path, damage, told) -> None:
    back_up(home, tmp_path / "copy")
    connection = sqlite3.connect(tmp_path / "copy" / "core.sqlite")
    connection.execute(damage)
    connection.commit()
    connection.close()
    faults, sizes = check(tmp_path / "copy")
    assert sizes == {}
    assert any(told in fault for fault in faults), faults


async def test_pages_that_are_damaged_are_told(home: Path, tmp_path: Path, capsys) -> None:
    back_up(home, tmp_path / "copy")
    with (tmp_path / "copy" / "core.sqlite").open("r+b") as file:
        file.seek(4096 * 3)
        file.write(b"x" * 4096 * 4)
    assert main(["check", "--home", str(tmp_path / "copy")]) in (1, 2)
    printed = capsys.readouterr()
    assert "core.sqlite" in printed.err or "NOT sound" in printed.out


async def test_a_backup_is_the_home_of_a_core_with_all_that_was_there(
    core: Core, home: Path, tmp_path: Path, capsys
) -> None:
    user = await make_user(core)
    core.parts.entries.create(user.user_id, "kept", b"1")
    await core.parts.store.committed()
    copy = tmp_path / "copy"
    assert main(["backup", str(copy), "--home", str(home)]) == 0
    assert "sound: " in capsys.readouterr().out
    core.parts.entries.update(user.user_id, "kept", b"later")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700
    for file in ("core.sqlite", "init_state/priv_key.txt", "init_state/jwt_secret.txt"):
        assert stat.S_IMODE((copy / file).stat().st_mode) == 0o600
    second = Core(Settings(home=copy, port=0))
    await second.start()
    try:
        assert second.host_id == core.host_id
        assert user.user_id in second.parts.users
        assert second.parts.entries.get(user.user_id, "kept") == b"1"
    finally:
        await second.stop()
    assert main(["backup", str(copy), "--home", str(home)]) == 2
    assert "is there already" in capsys.readouterr().err


def test_where_no_core_ever_ran_there_is_nothing_to_check(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no core's storage"):
        check(tmp_path)
    assert list(tmp_path.iterdir()) == []
