"""Signals, drain, lag and garbage collection."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time

import pytest
from structlog.testing import capture_logs

from offhook.server import lifecycle
from offhook.server.lifecycle import LagMonitor, Signals, drain, tuned_gc
from offhook.server.metrics import Metrics


class Crowd:
    """Connections that close as soon as they are told goodbye, unless they are stubborn."""

    def __init__(self, size: int, stubborn: int = 0) -> None:
        self.open = size
        self.told: list[float] = []
        self.connections = [Member(self, index < stubborn) for index in range(size)]

    def count(self) -> int:
        return self.open


class Member:
    def __init__(self, crowd: Crowd, stubborn: bool) -> None:
        self.crowd = crowd
        self.stubborn = stubborn

    def goodbye(self) -> None:
        self.crowd.told.append(time.monotonic())
        if not self.stubborn:
            self.crowd.open -= 1


async def test_goodbyes_are_spread_over_the_time() -> None:
    crowd = Crowd(400)
    began = time.monotonic()
    assert await drain(crowd.connections, 1.0, crowd.count) == 0
    assert len(crowd.told) == 400
    # The rate never exceeds 400 a second by more than one slice.
    for index, at in enumerate(crowd.told):
        assert index <= (at - began + lifecycle.SLICE_SECONDS) * 400 + 1
    assert crowd.told[-1] - began > 0.8


async def test_few_clients_are_not_kept_waiting() -> None:
    crowd = Crowd(10)
    began = time.monotonic()
    assert await drain(crowd.connections, 60.0, crowd.count) == 0
    assert time.monotonic() - began < 5


async def test_no_time_means_all_at_once() -> None:
    crowd = Crowd(5000)
    assert await drain(crowd.connections, 0.0, crowd.count) == 0
    assert len(crowd.told) == 5000


async def test_the_stubborn_are_not_awaited_for_ever() -> None:
    crowd = Crowd(5, stubborn=2)
    assert await drain(crowd.connections, 0.0, crowd.count, close_timeout=0.1) == 2


async def test_kill_ends_the_wait() -> None:
    crowd = Crowd(100_000)
    kill = asyncio.Event()
    running = asyncio.create_task(drain(crowd.connections, 600.0, crowd.count, 600.0, kill))
    while not crowd.told:
        await asyncio.sleep(0)
    kill.set()
    assert await asyncio.wait_for(running, 5) > 0


async def test_a_failing_goodbye_costs_no_other() -> None:
    crowd = Crowd(3, stubborn=1)

    class Broken:
        def goodbye(self) -> None:
            raise RuntimeError

    with capture_logs() as logs:
        await drain([Broken(), *crowd.connections], 0.0, crowd.count, close_timeout=0.0)
    assert len(crowd.told) == 3
    assert "goodbye failed" in [entry["event"] for entry in logs]


async def test_the_first_signal_stops_the_second_kills() -> None:
    reloads: list[int] = []
    signals = Signals(lambda: reloads.append(1))
    before = signal.getsignal(signal.SIGTERM)
    with signals.installed():
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(signals.stop.wait(), 5)
        assert not signals.kill.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.wait_for(signals.kill.wait(), 5)
    assert reloads == [1]
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_failing_reload_is_logged() -> None:
    failed = asyncio.Event()

    def fail() -> None:
        failed.set()
        raise RuntimeError("no such file")

    signals = Signals(fail)
    with capture_logs() as logs, signals.installed():
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(failed.wait(), 5)
    assert "reload failed" in [entry["event"] for entry in logs]
    assert not signals.stop.is_set()


async def test_lag_is_measured_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "LAG_WARNING", 0.05)
    metrics = Metrics()
    monitor = LagMonitor(metrics, 0.01)
    with capture_logs() as logs:
        monitor.start()
        time.sleep(0.2)  # blocks the loop: that is the point
        async with asyncio.timeout(5):
            while metrics.loop_lag_max == 0.0 or metrics.loop_lag == metrics.loop_lag_max:
                await asyncio.sleep(0.005)
        monitor.stop()
        monitor.stop()
    assert metrics.loop_lag_max >= 0.15
    assert metrics.loop_lag < metrics.loop_lag_max
    assert next(entry["event"] for entry in logs if entry["log_level"] == "warning") == "event loop was blocked"


def test_the_collector_is_tuned_for_a_while() -> None:
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with tuned_gc():
        assert gc.get_threshold()[0] > before[0]
        assert gc.get_freeze_count() > frozen
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0
