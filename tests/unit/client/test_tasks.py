"""Background tasks: none outlives its keeper, none fails in silence."""

from __future__ import annotations

import asyncio

from offhook.client.tasks import Tasks, report

Told = list[dict[str, object]]


def heard() -> Told:
    """What the event loop's exception handler gets to hear from now on."""
    told: Told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def forever(began: asyncio.Event | None = None) -> None:
    if began is not None:
        began.set()
    await asyncio.Event().wait()


async def test_close_ends_all_and_leaves_nothing() -> None:
    before = asyncio.all_tasks()
    tasks, began = Tasks(), asyncio.Event()
    running = tasks.start(forever(began), "running")
    await began.wait()
    # This one is cancelled before it began.
    fresh = tasks.start(forever(), "fresh")
    assert len(tasks) == 2
    await tasks.close()
    assert running.cancelled() and fresh.cancelled()
    assert len(tasks) == 0
    assert asyncio.all_tasks() == before


async def test_close_of_none_and_twice() -> None:
    tasks = Tasks()
    await tasks.close()
    tasks.start(forever(), "one")
    await asyncio.gather(tasks.close(), tasks.close())
    assert len(tasks) == 0


async def test_finished_tasks_are_forgotten() -> None:
    tasks, told = Tasks(), heard()
    task = tasks.start(asyncio.sleep(0, None), "short")
    await task
    async with asyncio.timeout(5):
        while len(tasks):
            await asyncio.sleep(0)
    assert told == []


async def test_one_of_its_own_may_close() -> None:
    tasks, closed = Tasks(), asyncio.Event()

    async def closing() -> None:
        await tasks.close()
        # It is not cancelled itself, and goes on.
        await asyncio.sleep(0)
        closed.set()

    other = tasks.start(forever(), "other")
    tasks.start(closing(), "closing")
    async with asyncio.timeout(5):
        await closed.wait()
    assert other.cancelled()


async def test_what_ending_tasks_start_is_ended_too() -> None:
    tasks, began = Tasks(), asyncio.Event()
    late: list[asyncio.Task[None]] = []

    async def dying() -> None:
        try:
            await forever(began)
        finally:
            late.append(tasks.start(forever(), "late"))

    tasks.start(dying(), "dying")
    await began.wait()
    await tasks.close()
    assert late[0].cancelled()
    assert len(tasks) == 0


async def test_close_waits_for_cleaning_up() -> None:
    tasks, began, cleaned = Tasks(), asyncio.Event(), []

    async def tidy() -> None:
        try:
            await forever(began)
        finally:
            for step in range(3):
                await asyncio.sleep(0)
                cleaned.append(step)

    tasks.start(tidy(), "tidy")
    await began.wait()
    await tasks.close()
    assert cleaned == [0, 1, 2]


async def test_failure_is_reported() -> None:
    tasks, told = Tasks(), heard()
    error = ValueError("broken")

    async def failing() -> None:
        raise error

    tasks.start(failing(), "the reader")
    await tasks.close()
    # close() cancelled it before it began.
    assert told == []
    task = tasks.start(failing(), "the reader")
    await asyncio.wait([task])
    async with asyncio.timeout(5):
        while not told:
            await asyncio.sleep(0)
    assert told == [{"message": "The task the reader failed", "exception": error}]


async def test_failure_while_closing_is_reported() -> None:
    tasks, told, began = Tasks(), heard(), asyncio.Event()

    async def failing() -> None:
        try:
            await forever(began)
        finally:
            raise ValueError("broken at the end")

    tasks.start(failing(), "bad end")
    await began.wait()
    await tasks.close()
    assert [context["message"] for context in told] == ["The task bad end failed"]


async def test_report_goes_to_the_loop() -> None:
    told, error = heard(), ValueError("x")
    report("Words", error)
    assert told == [{"message": "Words", "exception": error}]
