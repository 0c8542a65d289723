"""The process's life: signals, the orderly end of connections, the loop's lag and garbage collection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from offhook.server.logs import get_logger
from offhook.server.metrics import Metrics

logger = get_logger(__name__)

SLICE_SECONDS = 0.05
MIN_RATE = 200.0
"""Goodbyes a second at least: few clients need no spreading."""
LAG_WARNING = 0.25
"""Seconds of lateness of the loop that are worth a warning."""


class Connection(Protocol):
    """A client's connection, as far as its end is concerned."""

    def goodbye(self) -> None:
        """Tells the client in its protocol's way to come back later, and closes. Does not wait."""


class Signals:
    """SIGTERM and SIGINT: the first asks for an orderly end, a second for an immediate one. SIGHUP: reload.

    Args:
        reload: called on SIGHUP.
    """

    def __init__(self, reload: Callable[[], None]) -> None:
        self.stop = asyncio.Event()
        """Set by the first signal to end."""
        self.kill = asyncio.Event()
        """Set by the second."""
        self._reload = reload

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handles the signals while the context lasts. Needs the running loop in the main thread."""
        loop = asyncio.get_running_loop()
        ends = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.getsignal(number) for number in (*ends, signal.SIGHUP)}
        for number in ends:
            loop.add_signal_handler(number, self._end, number)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        try:
            yield
        finally:
            for number, handler in before.items():
                loop.remove_signal_handler(number)
                signal.signal(number, handler)

    def _end(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            logger.warning("stopping at once", signal=number.name)
            self.kill.set()
        else:
            logger.info("stopping", signal=number.name)
            self.stop.set()

    def _hang_up(self) -> None:
        logger.info("reloading", signal="SIGHUP")
        try:
            self._reload()
        except Exception:
            logger.exception("reload failed")


async def drain(
    connections: Iterable[Connection],
    seconds: float,
    count: Callable[[], int],
    close_timeout: float = 5.0,
    kill: asyncio.Event | None = None,
) -> int:
    """Sends all clients away, spread over a time, so that they do not come back all at once.

    Args:
        connections: those open now; whoever closes by themselves meanwhile may get a goodbye too.
        seconds: over how long the goodbyes are spread; fewer than 200 a second are not worth the wait.
        count: how many connections are open now.
        close_timeout: seconds to wait for the last ones after the last goodbye.
        kill: once set, nothing is waited for any more.

    Returns:
        How many connections are open still.
    """
    waiting: Sequence[Connection] = list(connections)
    rate = max(len(waiting) / seconds, MIN_RATE) if seconds > 0 else float("inf")
    began = time.monotonic()
    done = 0
    while done < len(waiting) and not (kill is not None and kill.is_set()):
        elapsed = time.monotonic() - began
        target = len(waiting) if seconds <= 0 else min(int((elapsed + SLICE_SECONDS) * rate), len(waiting))
        for connection in waiting[done:target]:
            try:
                connection.goodbye()
            except Exception:
                logger.exception("goodbye failed")
        done = target
        await _pause(SLICE_SECONDS if done < len(waiting) else 0.0, kill)
    end = time.monotonic() + close_timeout
    while (left := count()) and time.monotonic() < end and not (kill is not None and kill.is_set()):
        await _pause(SLICE_SECONDS, kill)
    logger.info("drained", goodbyes=done, left=left, seconds=round(time.monotonic() - began, 3))
    return left


class LagMonitor:
    """Measures by how much the event loop is late, and complains when it is much.

    Args:
        metrics: where the lag is shown.
        interval: seconds between two measurements.
    """

    def __init__(self, metrics: Metrics, interval: float = 0.5) -> None:
        self._metrics = metrics
        self._interval = interval
        self._handle: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Starts measuring on the running loop."""
        self._arm(asyncio.get_running_loop())

    def stop(self) -> None:
        """Ends it. Idempotent."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        due = time.monotonic() + self._interval
        self._handle = loop.call_later(self._interval, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        lag = max(0.0, time.monotonic() - due)
        metrics = self._metrics
        metrics.loop_lag = lag
        metrics.loop_lag_max = max(metrics.loop_lag_max, lag)
        if lag > LAG_WARNING:
            logger.warning("event loop was blocked", seconds=round(lag, 3))
        self._arm(loop)


@contextlib.contextmanager
def tuned_gc() -> Iterator[None]:
    """Tunes the cyclic garbage collector for many long-lived objects, while the context lasts.

    What start-up made is taken out of its sight, and full collections, whose cost grows with the number of
    sessions, become rare. Enter when everything is set up, before clients come.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def _pause(seconds: float, kill: asyncio.Event | None) -> None:
    """Sleeps, or shorter if ``kill`` is set meanwhile."""
    if kill is None:
        await asyncio.sleep(seconds)
    else:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(kill.wait(), seconds)
