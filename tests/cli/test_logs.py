import pytest

from engine.cli.logs import Follower, Tail, log_files
from engine.model.errors import NotFoundError
from engine.model.home import Home


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    for user, worker in (("user0", "dispatch-0"), ("user0", "dispatch-1"), ("user1", "dispatch-0")):
        log = home.worker_log(user, worker)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(f"{user} {worker}\n")
    home.engine_log.write_text("engine\n")
    return home


def test_without_a_selector_all_workers_are_meant(home):
    assert list(log_files(home)) == ["user0/dispatch-0", "user0/dispatch-1", "user1/dispatch-0"]


def test_a_user_a_worker_or_a_part_of_the_engine_can_be_selected(home):
    assert list(log_files(home, "user0")) == ["user0/dispatch-0", "user0/dispatch-1"]
    assert log_files(home, "user1/dispatch-0") == {
        "user1/dispatch-0": home.worker_log("user1", "dispatch-0")
    }
    assert log_files(home, "engine") == {"engine": home.engine_log}


@pytest.mark.parametrize(
    "selector", ["user", "user0/dispatch", "core", "../logs", "user0/../user1"]
)
def test_an_unknown_selector_is_told_what_there_is(home, selector):
    with pytest.raises(NotFoundError, match=r"user0, user0/dispatch-0.*engine"):
        log_files(home, selector)


def test_a_home_without_logs_has_none(tmp_path):
    assert log_files(Home(tmp_path)) == {}
    with pytest.raises(NotFoundError, match="no logs yet"):
        log_files(Home(tmp_path), "user0")


def test_a_turn_brings_what_came_since_the_last_one(tmp_path):
    log = tmp_path / "worker.log"
    tail = Tail(log)
    assert list(tail.lines()) == []
    log.write_bytes(b"one\ntw")
    assert list(tail.lines()) == ["one"]
    with log.open("ab") as file:
        file.write(b"o\r\n\xff\n")
    assert list(tail.lines()) == ["two", "�"]
    assert list(tail.lines()) == []
    tail.close()


def test_the_last_turn_brings_a_line_without_an_end_too(tmp_path):
    log = tmp_path / "worker.log"
    log.write_bytes(b"one\ntwo")
    tail = Tail(log)
    assert list(tail.lines(final=True)) == ["one", "two"]
    tail.close()


def test_a_truncated_file_is_read_from_its_start(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("a long line\npart")
    tail = Tail(log)
    assert list(tail.lines()) == ["a long line"]
    log.write_text("new\n")
    assert list(tail.lines()) == ["new"]
    tail.close()


def test_a_rotated_file_is_read_to_its_end_and_then_the_new_one(tmp_path):
    log = tmp_path / "worker.log"
    log.write_text("one\n")
    tail = Tail(log)
    assert list(tail.lines()) == ["one"]
    with log.open("a") as file:
        file.write("last of the old\npart")
    log.rename(tmp_path / "worker.log.1")
    assert list(tail.lines()) == ["last of the old"]
    log.write_text("first of the new\n")
    assert list(tail.lines()) == ["part", "first of the new"]
    tail.close()


def test_lines_longer_than_one_read_stay_whole(tmp_path):
    log = tmp_path / "worker.log"
    long = "x" * 200_000
    log.write_text(f"{long}\nshort\n")
    tail = Tail(log)
    assert list(tail.lines()) == [long, "short"]
    tail.close()


def test_a_follower_takes_up_files_that_come_later(home):
    follower = Follower()
    assert [source for source, _ in follower.turn(log_files(home, "user1"))] == ["user1/dispatch-0"]
    home.worker_log("user1", "dispatch-1").write_text("new worker\n")
    assert list(follower.turn(log_files(home, "user1"))) == [("user1/dispatch-1", "new worker")]
    follower.close()
