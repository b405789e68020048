"""A save wakes once, whichever way the editor saves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from engine.controller.watch import QUIET, FileWatch

WAIT = 5.0


class Wakes:
    def __init__(self) -> None:
        self.count = 0
        self.news = asyncio.Event()

    def __call__(self) -> None:
        self.count += 1
        self.news.set()

    async def next(self) -> None:
        async with asyncio.timeout(WAIT):
            await self.news.wait()
        self.news.clear()


@pytest.fixture
async def wakes(file: Path) -> AsyncIterator[Wakes]:
    wakes = Wakes()
    watch = FileWatch(wakes)
    watch.set_files({file})
    yield wakes
    watch.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "manifest.yaml"
    file.write_text("old")
    return file


def write_in_place(file: Path) -> None:
    file.write_text("new")


def truncate_then_write(file: Path) -> None:
    with file.open("w") as stream:
        stream.flush()
        stream.write("new")


def append(file: Path) -> None:
    with file.open("a") as stream:
        stream.write("new")


def move_over(file: Path) -> None:
    other = file.with_suffix(".tmp")
    other.write_text("new")
    other.replace(file)


def backup_then_write(file: Path) -> None:
    file.rename(file.with_name("manifest.yaml~"))
    file.write_text("new")


def delete_then_write(file: Path) -> None:
    file.unlink()
    file.write_text("new")


SAVES = [write_in_place, truncate_then_write, append, move_over, backup_then_write]


@pytest.mark.parametrize("save", [*SAVES, delete_then_write])
async def test_each_way_of_saving_wakes(
    wakes: Wakes, file: Path, save: Callable[[Path], None]
) -> None:
    save(file)
    await wakes.next()
    assert "new" in file.read_text()


async def test_a_link_that_is_swapped_wakes(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a")
    (tmp_path / "b.yaml").write_text("b")
    link = tmp_path / "manifest.yaml"
    link.symlink_to("a.yaml")
    wakes = Wakes()
    watch = FileWatch(wakes)
    watch.set_files({link})
    other = tmp_path / "link.tmp"
    other.symlink_to("b.yaml")
    other.replace(link)
    await wakes.next()
    watch.close()


async def test_several_writes_of_one_save_wake_once(wakes: Wakes, file: Path) -> None:
    for _ in range(20):
        append(file)
    await wakes.next()
    assert wakes.count == 1


async def test_other_files_in_the_folder_do_not_wake(wakes: Wakes, file: Path) -> None:
    file.with_name("other.yaml").write_text("x")
    append(file)
    await wakes.next()
    assert wakes.count == 1


async def test_a_file_added_to_the_watch_wakes_too(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    second = folder / "second.yaml"
    wakes = Wakes()
    watch = FileWatch(wakes)
    watch.set_files({file})
    watch.set_files({file, second})
    second.write_text("new")
    await wakes.next()
    watch.close()


async def test_a_new_file_in_a_watched_folder_wakes(tmp_path: Path, file: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    wakes = Wakes()
    watch = FileWatch(wakes)
    watch.set_files({file}, {folder})
    (folder / "new.yaml").write_text("new")
    await wakes.next()
    watch.close()


def test_the_quiet_period_is_short_enough_for_a_person() -> None:
    assert QUIET <= 0.3
