"""Events to handlers and to streams: in order, each once, and nobody harms another."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.client import emitter as module
from offhook.client.emitter import Emitter, EventStream
from offhook.client.errors import EventsLost

Told = list[dict[str, object]]


def heard() -> Told:
    """What the event loop's exception handler gets to hear from now on."""
    told: Told = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    return told


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


# --- plain handlers -------------------------------------------------------------------------------------------------


async def test_handlers_are_called_in_order_and_at_once() -> None:
    emitter: Emitter[int] = Emitter()
    calls: list[tuple[str, int]] = []
    emitter.on("a", lambda event: calls.append(("first", event)))
    emitter.on("a", lambda event: calls.append(("second", event)))
    emitter.on("b", lambda event: calls.append(("other", event)))
    emitter.emit("a", 1)
    emitter.emit("b", 2)
    emitter.emit("nobody's", 3)
    assert calls == [("first", 1), ("second", 1), ("other", 2)]


async def test_a_handler_is_called_once_however_often_it_is_added() -> None:
    emitter: Emitter[int] = Emitter()
    calls: list[int] = []
    emitter.on("a", calls.append)
    remove = emitter.on("a", calls.append)
    emitter.emit("a", 1)
    assert calls == [1]
    remove()
    remove()
    emitter.off("never", calls.append)
    emitter.emit("a", 2)
    assert calls == [1]


async def test_a_failing_handler_costs_nobody_else_anything() -> None:
    emitter: Emitter[int] = Emitter()
    told, calls, error = heard(), list[int](), ValueError("broken")

    def broken(_: int) -> None:
        raise error

    emitter.on("a", broken)
    emitter.on("a", calls.append)
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    assert calls == [1, 2]
    assert told == [{"message": "A handler of events failed", "exception": error}] * 2


async def test_taken_off_during_an_event_is_not_called_for_it() -> None:
    emitter: Emitter[int] = Emitter()
    calls: list[str] = []

    def first(_: int) -> None:
        calls.append("first")
        emitter.off("a", first)
        emitter.off("a", second)

    def second(_: int) -> None:
        calls.append("second")

    emitter.on("a", first)
    emitter.on("a", second)
    emitter.on("a", lambda _: calls.append("third"))
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    assert calls == ["first", "third", "third"]


async def test_added_during_an_event_hears_the_next() -> None:
    emitter: Emitter[int] = Emitter()
    calls: list[tuple[int, int]] = []

    def adding(event: int) -> None:
        # A new function each time: this would never end if it were called for the same event.
        emitter.on("a", lambda later: calls.append((event, later)))

    emitter.on("a", adding)
    emitter.emit("a", 1)
    assert calls == []
    emitter.emit("a", 2)
    assert calls == [(1, 2)]


async def test_an_event_within_an_event() -> None:
    emitter: Emitter[int] = Emitter()
    calls: list[tuple[str, int]] = []

    def first(event: int) -> None:
        calls.append(("first", event))
        if event == 1:
            emitter.emit("a", 2)

    emitter.on("a", first)
    emitter.on("a", lambda event: calls.append(("second", event)))
    emitter.emit("a", 1)
    assert calls == [("first", 1), ("first", 2), ("second", 2), ("second", 1)]


# --- coroutine handlers ---------------------------------------------------------------------------------------------


async def test_coroutine_handlers_run_one_after_the_other_in_order() -> None:
    emitter: Emitter[int] = Emitter()
    done: list[int] = []
    inside = 0

    async def handler(event: int) -> None:
        nonlocal inside
        inside += 1
        assert inside == 1
        for _ in range(3 - event % 3):
            await asyncio.sleep(0)
        done.append(event)
        inside -= 1

    emitter.on("a", handler)
    for event in range(10):
        emitter.emit("a", event)
        if event % 4 == 0:
            await asyncio.sleep(0)
    assert done != list(range(10))
    await until(lambda: len(done) == 10)
    assert done == list(range(10))
    # It is idle now, and begins anew.
    emitter.emit("a", 10)
    await until(lambda: len(done) == 11)
    await emitter.close()


async def test_two_coroutine_handlers_do_not_wait_for_each_other() -> None:
    emitter: Emitter[int] = Emitter()
    done: list[int] = []
    gate = asyncio.Event()

    async def slow(_: int) -> None:
        await gate.wait()

    async def quick(event: int) -> None:
        done.append(event)

    emitter.on("a", slow)
    emitter.on("a", quick)
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    await until(lambda: done == [1, 2])
    await emitter.close()


async def test_a_failing_coroutine_handler_goes_on() -> None:
    emitter: Emitter[int] = Emitter()
    told, done, error = heard(), list[int](), ValueError("broken")

    async def handler(event: int) -> None:
        if event == 1:
            raise error
        if event == 2:
            # Something it waits for was cancelled by somebody else, not the handler itself.
            raise asyncio.CancelledError
        done.append(event)

    emitter.on("a", handler)
    for event in (1, 2, 3):
        emitter.emit("a", event)
    await until(lambda: done == [3])
    assert [context["message"] for context in told] == [
        "A handler of events failed",
        "A handler of events was cancelled",
    ]
    await emitter.close()


async def test_falling_behind_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING", 5)
    emitter: Emitter[int] = Emitter()
    told, done, gate = heard(), list[int](), asyncio.Event()

    async def handler(event: int) -> None:
        await gate.wait()
        done.append(event)

    emitter.on("a", handler)
    emitter.emit("a", 0)
    # The first is being handled and waits no longer.
    await asyncio.sleep(0)
    for event in range(1, 9):
        emitter.emit("a", event)
    gate.set()
    await until(lambda: bool(told))
    assert done == [0, 1, 2, 3, 4, 5]
    (context,) = told
    assert isinstance(context["exception"], EventsLost)
    assert context["exception"].count == 3
    emitter.emit("a", 9)
    await until(lambda: done[-1] == 9)
    await emitter.close()


async def test_taken_off_it_finishes_what_it_was_called_for() -> None:
    emitter: Emitter[int] = Emitter()
    done: list[int] = []

    async def handler(event: int) -> None:
        await asyncio.sleep(0)
        done.append(event)

    remove = emitter.on("a", handler)
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    remove()
    emitter.emit("a", 3)
    await until(lambda: done == [1, 2])
    await emitter.close()
    assert done == [1, 2]


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("taken_off", [True, False])
async def test_close_ends_handlers_without_a_warning(begun: bool, taken_off: bool) -> None:
    before = asyncio.all_tasks()
    emitter: Emitter[int] = Emitter()
    ended: list[int] = []

    async def handler(event: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(event)

    remove = emitter.on("a", handler)
    for event in range(3):
        emitter.emit("a", event)
    if begun:
        await asyncio.sleep(0)
    if taken_off:
        remove()
    await emitter.close()
    assert ended == ([0] if begun else [])
    assert asyncio.all_tasks() == before
    # A coroutine that nobody awaited would warn here, and warnings are errors.
    del handler, remove
    gc.collect()


async def test_a_handler_may_close() -> None:
    emitter: Emitter[int] = Emitter()
    done: list[int] = []

    async def closing(event: int) -> None:
        await emitter.close()
        done.append(event)

    remove = emitter.on("a", closing)
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    remove()
    await until(lambda: bool(done))
    await asyncio.sleep(0)
    assert done == [1]


async def test_nothing_happens_after_the_end() -> None:
    before = asyncio.all_tasks()
    emitter: Emitter[int] = Emitter()
    calls: list[int] = []

    async def handler(event: int) -> None:
        calls.append(event)

    emitter.on("a", calls.append)
    await emitter.close()
    await emitter.close()
    emitter.on("a", handler)()
    emitter.on("a", calls.append)
    emitter.emit("a", 1)
    assert calls == []
    assert asyncio.all_tasks() == before
    assert [event async for event in emitter.stream("a")] == []


# --- streams --------------------------------------------------------------------------------------------------------


async def test_stream_gives_what_it_was_asked_for_in_order() -> None:
    emitter: Emitter[int] = Emitter()
    everything, some = emitter.stream(), emitter.stream("a", "b")
    for number, name in enumerate("abcab"):
        emitter.emit(name, number)
    await emitter.close()
    assert [event async for event in everything] == [0, 1, 2, 3, 4]
    assert [event async for event in some] == [0, 1, 3, 4]


async def test_stream_waits_and_wakes() -> None:
    emitter: Emitter[int] = Emitter()
    got: list[int] = []

    async def reading() -> None:
        async with emitter.stream("a") as events:
            async for event in events:
                got.append(event)  # noqa: PERF401 - looked at while it goes on

    task = asyncio.create_task(reading())
    await asyncio.sleep(0)
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    await until(lambda: got == [1, 2])
    emitter.emit("a", 3)
    await until(lambda: got == [1, 2, 3])
    await emitter.close()
    await task


async def test_stream_that_is_closed_gets_no_more() -> None:
    emitter: Emitter[int] = Emitter()
    async with emitter.stream() as events:
        emitter.emit("a", 1)
    emitter.emit("a", 2)
    assert [event async for event in events] == [1]
    events.close()


async def test_overflow_is_told_at_its_place() -> None:
    emitter: Emitter[int] = Emitter()
    events = emitter.stream(size=3)
    for number in range(5):
        emitter.emit("a", number)
    assert await anext(events) == 0
    # There is room again, but what comes now must not come before the loss is told.
    emitter.emit("a", 5)
    assert await anext(events) == 1
    assert await anext(events) == 2
    with pytest.raises(EventsLost) as lost:
        await anext(events)
    assert lost.value.count == 3
    emitter.emit("a", 6)
    assert await anext(events) == 6
    for number in range(7, 12):
        emitter.emit("a", number)
    await emitter.close()
    assert [await anext(events) for _ in range(3)] == [7, 8, 9]
    with pytest.raises(EventsLost, match="2 events"):
        await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 4))
def test_each_event_is_read_once_or_told_as_lost(steps: list[int], size: int) -> None:
    """0 reads once; other numbers emit so many events."""
    emitter: Emitter[int] = Emitter()
    events = emitter.stream(size=size)
    read: list[int] = []
    emitted = expected = 0

    async def step() -> bool:
        nonlocal expected
        try:
            read.append(await anext(events))
        except EventsLost as lost:
            expected += lost.count
        except StopAsyncIteration:
            return False
        else:
            assert read[-1] == expected
            expected += 1
        return True

    async def scenario() -> None:
        nonlocal emitted
        waiting = 0
        for number in steps:
            for _ in range(number):
                emitter.emit("x", emitted)
                emitted += 1
            if number == 0 and expected < emitted:
                await step()
            waiting = max(waiting, emitted - expected)
        await emitter.close()
        while await step():
            pass
        assert expected == emitted
        if waiting <= size:
            assert read == list(range(emitted))

    asyncio.run(scenario())


async def test_cancelling_a_reader_loses_nothing() -> None:
    emitter: Emitter[int] = Emitter()
    events = emitter.stream()
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    # The event comes, and the reader is cancelled before it can take it.
    emitter.emit("a", 1)
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()
    assert await anext(events) == 1
    # Cancelled while there is nothing.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(events)
    emitter.emit("a", 2)
    assert await anext(events) == 2


async def test_two_tasks_cannot_read_one_stream() -> None:
    emitter: Emitter[int] = Emitter()
    events = emitter.stream()
    reading = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Two tasks"):
        await anext(events)
    emitter.emit("a", 1)
    assert await reading == 1


async def test_a_handler_may_close_a_stream() -> None:
    emitter: Emitter[int] = Emitter()
    one, two = emitter.stream(), emitter.stream()
    emitter.on("a", lambda _: one.close())
    emitter.emit("a", 1)
    emitter.emit("a", 2)
    await emitter.close()
    assert [event async for event in one] == []
    assert [event async for event in two] == [1, 2]


def test_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EventStream(frozenset(), 0, [])
