"""Tasks are ended tidily, and a cancellation reaches whom it is meant for."""

import asyncio

import pytest

from engine.kits.aio import cancel_and_wait


async def test_tasks_have_ended_and_their_errors_are_dropped() -> None:
    async def fails() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while ending")

    async def ends() -> None:
        await asyncio.Event().wait()

    tasks = [asyncio.create_task(fails()), asyncio.create_task(ends())]
    await asyncio.sleep(0)
    await cancel_and_wait(tasks)
    assert all(task.done() for task in tasks)
    await cancel_and_wait([])


async def test_a_cancellation_of_who_waits_is_not_taken_for_that_of_a_task() -> None:
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    slow = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    waiting = asyncio.create_task(cancel_and_wait([slow]))
    await ending.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    may_end.set()
    await asyncio.wait([slow])
