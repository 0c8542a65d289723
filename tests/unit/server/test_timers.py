"""The timer wheel against a simple model, on a loop whose clock the test moves; and on real loops."""

from __future__ import annotations

import asyncio
import functools
import gc
import heapq
import time
import weakref
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from offhook.server.timers import SLICE, Timer, TimerWheel

TICK = 0.25


class FakeHandle:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeLoop:
    """As much of an event loop as the wheel uses, with a clock that moves only when told."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.iterations = 0
        self._calls: list[tuple[float, int, Callable[[], object], FakeHandle]] = []
        self._count = 0

    def clock(self) -> float:
        return self.time

    def call_later(self, delay: float, callback: Callable[[], object]) -> FakeHandle:
        handle = FakeHandle()
        self._count += 1
        heapq.heappush(self._calls, (self.time + delay, self._count, callback, handle))
        return handle

    def call_soon(self, callback: Callable[[], object]) -> FakeHandle:
        return self.call_later(0.0, callback)

    def advance(self, seconds: float, late: float = 0.0) -> None:
        """Moves the clock, running what comes due; each call finds the clock ``late`` seconds further."""
        end = self.time + seconds
        while self._calls and self._calls[0][0] <= end:
            due, _, callback, handle = heapq.heappop(self._calls)
            self.time = max(self.time, due) + late
            if not handle.cancelled:
                self.iterations += 1
                callback()
        self.time = max(self.time, end)


def make() -> tuple[FakeLoop, TimerWheel]:
    loop = FakeLoop()
    wheel = TimerWheel(TICK, loop.clock)
    wheel.start(loop)  # type: ignore[arg-type]
    return loop, wheel


steps = st.lists(
    st.one_of(
        st.tuples(st.just("schedule"), st.integers(0, 4), st.floats(0, 40)),
        st.tuples(st.just("cancel"), st.integers(0, 4), st.just(0.0)),
        st.tuples(st.just("advance"), st.just(0), st.floats(0, 10)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=200, deadline=None)
def test_agrees_with_a_list_of_due_times(steps: list[tuple[str, int, float]]) -> None:
    loop, wheel = make()
    model: dict[int, float] = {}
    fired: list[tuple[int, float]] = []

    def fire(index: int) -> None:
        fired.append((index, loop.time))

    timers = [Timer(functools.partial(fire, index)) for index in range(5)]
    for kind, index, value in [*steps, ("advance", 0, 60.0)]:
        if kind == "schedule":
            wheel.schedule(timers[index], value)
            model[index] = loop.time + value
        elif kind == "cancel":
            wheel.cancel(timers[index])
            model.pop(index, None)
        else:
            loop.advance(value)
            for which, at in fired:
                due = model.pop(which)
                assert due <= at <= due + TICK + 0.0011, "early, or more than a tick late"
            fired.clear()
            assert all(due > loop.time - TICK - 0.0011 for due in model.values()), "forgotten"
        assert [timer.armed for timer in timers] == [index in model for index in range(5)]
    assert not model
    assert not wheel._buckets


def test_rearming_while_firing_is_periodic() -> None:
    loop, wheel = make()
    times: list[float] = []

    def again() -> None:
        times.append(loop.time)
        wheel.schedule(timer, 1.0)

    timer = Timer(again)
    wheel.schedule(timer, 1.0)
    loop.advance(5.1)
    assert times == pytest.approx([1001.0, 1002.0, 1003.0, 1004.0, 1005.0], abs=TICK)


def test_a_callback_may_cancel_a_timer_of_the_same_tick() -> None:
    loop, wheel = make()
    fired: list[int] = []
    timers: list[Timer] = []

    def fire(index: int) -> None:
        fired.append(index)
        wheel.cancel(timers[1 - index])

    timers += [Timer(lambda: fire(0)), Timer(lambda: fire(1))]
    for timer in timers:
        wheel.schedule(timer, 1.0)
    loop.advance(2)
    assert len(fired) == 1
    assert not any(timer.armed for timer in timers)


def test_what_a_callback_raises_is_logged_and_costs_no_other() -> None:
    loop, wheel = make()
    fired: list[int] = []

    def fail() -> None:
        raise ValueError("broken")

    for index in range(3):
        wheel.schedule(Timer(fail), 1.0)
        wheel.schedule(Timer(functools.partial(fired.append, index)), 1.0)
    with capture_logs() as logs:
        loop.advance(2)
    assert sorted(fired) == [0, 1, 2]
    assert [entry["event"] for entry in logs] == ["timer failed"] * 3


def test_a_late_loop_fires_all_that_came_due_in_order_of_ticks() -> None:
    loop, wheel = make()
    fired: list[float] = []
    for delay in (3.0, 1.0, 2.0):
        wheel.schedule(Timer(functools.partial(fired.append, delay)), delay)
    loop.advance(0.3, late=30.0)
    assert fired == [1.0, 2.0, 3.0]
    assert wheel.now >= 1030.0


def test_many_timers_of_one_tick_are_fired_in_slices() -> None:
    loop, wheel = make()
    fired = 0

    def work() -> None:
        nonlocal fired
        fired += 1
        end = time.perf_counter() + SLICE / 4
        while time.perf_counter() < end:
            pass

    for _ in range(20):
        wheel.schedule(Timer(work), 0.2)
    loop.advance(0.25)
    assert fired == 20
    assert loop.iterations >= 5, "each slice fires at most four of them"


def test_stop_keeps_timers_armed_and_start_goes_on() -> None:
    loop, wheel = make()
    fired: list[int] = []
    timer = Timer(lambda: fired.append(1))
    wheel.schedule(timer, 1.0)
    wheel.stop()
    wheel.stop()
    loop.advance(5)
    assert not fired and timer.armed
    wheel.start(loop)  # type: ignore[arg-type]
    loop.advance(TICK)
    assert fired == [1]
    with pytest.raises(RuntimeError):
        wheel.start(loop)  # type: ignore[arg-type]


def test_a_released_timer_is_no_cycle() -> None:
    class Connection:
        def __init__(self, wheel: TimerWheel) -> None:
            self.timer = Timer(self.ping)
            wheel.schedule(self.timer, 5.0)

        def ping(self) -> None: ...

    _, wheel = make()
    gc.disable()
    try:
        connection = Connection(wheel)
        gone = weakref.ref(connection)
        wheel.release(connection.timer)
        del connection
        assert gone() is None
    finally:
        gc.enable()


def test_a_tick_must_be_positive() -> None:
    with pytest.raises(ValueError):
        TimerWheel(0)


async def test_on_a_real_loop() -> None:
    wheel = TimerWheel(0.02)
    fired = asyncio.Event()
    wheel.start(asyncio.get_running_loop())
    began = time.monotonic()
    wheel.schedule(Timer(fired.set), 0.1)
    await asyncio.wait_for(fired.wait(), 5)
    assert time.monotonic() - began >= 0.1
    assert wheel.now > began
    wheel.stop()
