import asyncio

import pytest

from engine.colink.slots import Slots


async def test_slots_are_given_in_the_order_they_are_asked_for():
    slots = Slots(1)
    first, second, third = slots.reserve(), slots.reserve(), slots.reserve()
    await first.granted()
    order: list[str] = []

    async def work(slot, name: str) -> None:
        await slot.granted()
        order.append(name)
        slot.release()

    waiting = [
        asyncio.create_task(work(third, "third")),
        asyncio.create_task(work(second, "second")),
    ]
    await asyncio.sleep(0)
    assert order == []
    first.release()
    await asyncio.gather(*waiting)
    assert order == ["second", "third"]
    assert slots.free == 1


async def test_a_reservation_counts_before_anybody_waits_for_it():
    slots = Slots(2)
    assert await slots.available() == 2
    one, two = slots.reserve(), slots.reserve()
    waiting = asyncio.create_task(slots.available())
    await asyncio.sleep(0)
    assert not waiting.done()
    one.release()
    assert await waiting == 1
    two.release()
    two.release()
    assert slots.free == 2


async def test_who_gives_up_waiting_loses_nothing_for_others():
    slots = Slots(1)
    held, impatient, patient = slots.reserve(), slots.reserve(), slots.reserve()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(impatient.granted(), 0.01)
    impatient.release()
    held.release()
    await asyncio.wait_for(patient.granted(), 1)
    patient.release()
    assert slots.free == 1


async def test_a_released_slot_is_had_again_only_when_it_is_free():
    slots = Slots(1)
    first = slots.reserve()
    async with first.released():
        second = slots.reserve()
        await second.granted()
        asyncio.get_running_loop().call_soon(second.release)
    assert slots.free == 0
    first.release()
    assert slots.free == 1


async def test_an_exception_while_released_does_not_wait_for_a_slot():
    slots = Slots(1)
    first = slots.reserve()
    with pytest.raises(ValueError):
        async with first.released():
            second = slots.reserve()
            raise ValueError
    first.release()
    second.release()
    assert slots.free == 1
