from __future__ import annotations

import asyncio

import pytest

from offhook.functions.fair_queue import FairQueue, Place, QueueFull, QueueStuck


async def waiting(queue: FairQueue, *keys: str) -> list[asyncio.Task[Place]]:
    """Tasks that wait, in this order."""
    tasks = []
    for key in keys:
        tasks.append(asyncio.create_task(queue.enter(key)))
        await asyncio.sleep(0)
    return tasks


async def test_keys_take_turns() -> None:
    queue = FairQueue(1, 1, 100)
    place = await queue.enter("a")
    tasks = await waiting(queue, "a", "a", "a", "b", "b")
    order: list[str] = []
    while len(order) < 5:
        place.leave()
        await asyncio.sleep(0)
        done = next(task for task in tasks if task.done())
        tasks.remove(done)
        place = done.result()
        order.append(place.key)
    assert order == ["a", "b", "a", "b", "a"]
    assert queue.waiting == 0


async def test_one_key_leaves_room_for_others() -> None:
    queue = FairQueue(4, 2, 100)
    first = [await queue.enter("a"), await queue.enter("a")]
    [third] = await waiting(queue, "a")
    assert not third.done()
    assert (await queue.enter("b")).key == "b"
    first[0].leave()
    first[0].leave()
    assert (await third).key == "a"
    assert queue.held == 3


async def test_waiting_is_bounded() -> None:
    queue = FairQueue(1, 1, 1)
    await queue.enter("a")
    [task] = await waiting(queue, "a")
    with pytest.raises(QueueFull):
        await queue.enter("b")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert queue.waiting == 0


async def test_a_place_given_to_one_who_left_goes_on_to_the_next() -> None:
    queue = FairQueue(1, 1, 10)
    place = await queue.enter("a")
    first, second = await waiting(queue, "a", "a")
    place.leave()
    first.cancel()  # it holds the place by now and never learned of it
    with pytest.raises(asyncio.CancelledError):
        await first
    assert (await second).key == "a"


async def test_overrun_places_fail_the_key_at_once_and_only_it() -> None:
    queue = FairQueue(4, 2, 10)
    hung = [await queue.enter("a"), await queue.enter("a")]
    [task] = await waiting(queue, "a")
    for place in hung:
        place.overrun()
        place.overrun()
    with pytest.raises(QueueStuck):
        await task
    with pytest.raises(QueueStuck):
        await queue.enter("a")
    (await queue.enter("b")).leave()
    hung[0].leave()
    assert (await queue.enter("a")).key == "a"
