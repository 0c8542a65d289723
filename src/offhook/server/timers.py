"""One timer wheel for the whole process.

An event loop's own timer costs 0.6 KB and a heap operation each time it is armed; a server re-arms one per
connection and message. Here arming is adding to a set: all timers due in the same tick share a bucket, and
one loop timer wakes the wheel once a tick.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

logger: FilteringBoundLogger = structlog.get_logger(__name__)

SLICE = 0.004
"""Seconds for which callbacks may hold the loop before others get a turn."""


def _released() -> None:
    """The callback of a released timer."""


class Timer:
    """Something to call later. It is armed, re-armed and cancelled through a wheel.

    Args:
        callback: called without arguments, from the event loop, each time the timer comes due.
    """

    __slots__ = ("_bucket", "_number", "callback", "due")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.due = 0.0
        """When it is to fire, in seconds of the wheel's clock; meaningful while it is armed."""
        self._bucket: set[Timer] | None = None
        self._number = 0  # the bucket's

    @property
    def armed(self) -> bool:
        """Whether it waits to be fired."""
        return self._bucket is not None


class TimerWheel:
    """Fires timers, never early and at most one tick late (while the loop itself is not late).

    Timers of one tick fire in no particular order, those of an earlier tick before those of a later one. What
    a callback raises is logged and touches no other timer. Not thread-safe: use it in the loop's thread only.

    Args:
        tick: seconds between two looks at the clock.
        clock: a monotonic time in seconds. The default is what event loops use, but never stale: a loop
            may keep the time at which its iteration began, and a timer armed late in it would fire early.
    """

    def __init__(self, tick: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        if tick <= 0:
            raise ValueError("tick must be positive")
        self.tick = tick
        self._clock = clock
        self._epoch = clock()
        self._done = 0  # number of the last tick whose bucket was taken
        self._buckets: dict[int, set[Timer]] = {}
        self._ready: deque[set[Timer]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.Handle | None = None
        self.now = self._epoch
        """The clock's time as of the last tick: good enough for idle times, and free to read."""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Starts ticking on ``loop``. Timers may have been armed before."""
        if self._loop is not None:
            raise RuntimeError("The wheel is running")
        self._loop = loop
        self.now = self._clock()
        self._arm(loop)

    def stop(self) -> None:
        """Stops ticking. Armed timers stay armed and do not fire. Idempotent."""
        self._loop = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def schedule(self, timer: Timer, delay: float) -> None:
        """Arms the timer, or arms it anew.

        Args:
            timer: the timer; it fires once.
            delay: seconds from now.
        """
        due = self._clock() + delay
        number = max(math.ceil((due - self._epoch) / self.tick), self._done + 1)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
        if timer._bucket is not bucket:
            self.cancel(timer)
            bucket.add(timer)
            timer._bucket = bucket
        timer.due, timer._number = due, number

    def cancel(self, timer: Timer) -> None:
        """Disarms the timer; nothing happens if it is not armed."""
        bucket = timer._bucket
        if bucket is not None:
            bucket.discard(timer)
            timer._bucket = None
            if not bucket:
                self._buckets.pop(timer._number, None)

    def release(self, timer: Timer) -> None:
        """Disarms the timer for good and lets go of its callback, so that the two are no reference cycle."""
        self.cancel(timer)
        timer.callback = _released

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        delay = self._epoch + (self._done + 1) * self.tick - self._clock()
        self._handle = loop.call_later(max(delay, 0.001), self._turn)

    def _turn(self) -> None:
        """Takes the buckets that came due, and fires them."""
        self.now = now = self._clock()
        current = math.floor((now - self._epoch) / self.tick)
        for number in range(self._done + 1, current + 1):
            bucket = self._buckets.pop(number, None)
            if bucket:
                self._ready.append(bucket)
        self._done = max(self._done, current)
        self._fire()

    def _fire(self) -> None:
        """Fires what is ready for one slice of time, then goes on in the next iteration or awaits a tick."""
        ready, end = self._ready, perf_counter() + SLICE
        try:
            while ready:
                bucket = ready[0]
                while bucket:
                    timer = bucket.pop()
                    timer._bucket = None
                    try:
                        timer.callback()
                    except Exception:
                        logger.exception("timer failed")
                    if self._loop is None or perf_counter() >= end:
                        return
                ready.popleft()
        finally:
            # Even when a callback ends the process's loop by SystemExit, the wheel stays in order.
            if self._loop is not None:
                if ready:
                    self._handle = self._loop.call_soon(self._fire)
                else:
                    self._arm(self._loop)
