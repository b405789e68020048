"""The event log is kept, bounded, and can be followed."""

import asyncio
from pathlib import Path

from engine.controller import events
from engine.controller.events import EventLog
from engine.kits.clock import ManualClock


def test_events_of_an_earlier_engine_are_still_told(tmp_path: Path) -> None:
    file = tmp_path / "events"
    EventLog(file, ManualClock(7)).add("Started", "hello", manifest="m", resource="core")
    (event,) = EventLog(file, ManualClock()).recent()
    assert (event.time, event.type, event.manifest, event.resource, event.message) == (
        7,
        "Started",
        "m",
        "core",
        "hello",
    )


def test_the_file_does_not_grow_for_ever(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", ManualClock())
    for number in range(3 * events._KEEP):
        log.add("Tick", str(number))
    lines = (tmp_path / "events").read_text().splitlines()
    assert len(lines) <= 2 * events._KEEP
    assert log.recent()[-1].message == str(3 * events._KEEP - 1)


def test_a_half_written_line_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "events"
    EventLog(file, ManualClock()).add("Started", "whole")
    with file.open("a") as stream:
        stream.write('{"time": 1, "ty')
    assert [event.message for event in EventLog(file, ManualClock()).recent()] == ["whole"]


async def test_a_follower_gets_what_comes(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events", ManualClock())
    following = log.follow()
    first = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    log.add("Started", "now")
    assert (await first).message == "now"
    await following.aclose()


async def test_what_happens_while_the_kept_events_are_told_is_told_after_them(
    tmp_path: Path,
) -> None:
    log = EventLog(tmp_path / "events", ManualClock())
    log.add("Started", "first")
    log.add("Started", "second")
    following = log.follow(recent=True)
    told = [(await anext(following)).message]
    log.add("Started", "meanwhile")
    told += [(await anext(following)).message for _ in range(2)]
    assert told == ["first", "second", "meanwhile"]
    await following.aclose()


def test_a_full_disk_does_not_stop_the_engine(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "no such folder" / "events", ManualClock())
    log.add("Started", "in memory")
    assert log.recent()[0].message == "in memory"
