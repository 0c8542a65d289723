"""What a process uses, read from the system (Linux)."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads, user and system, to the nanosecond.

    The clock's number is made as clock_getcpuclockid(3) of the GNU C library makes it.

    Raises:
        OSError: there is no such process.
    """
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM, without what it shares with others. Raises OSError."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE")


def open_files(pid: int) -> int:
    """How many file descriptors a process has open. Raises OSError."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def settled_memory(pid: int, most: float = 10.0) -> int:
    """The resident bytes of a process, once they stand still (or ``most`` seconds have passed)."""
    last = resident_bytes(pid)
    deadline = time.monotonic() + most
    while time.monotonic() < deadline:
        await asyncio.sleep(1.0)
        now = resident_bytes(pid)
        if abs(now - last) < 64 * 1024:
            return now
        last = now
    return last


class CPU:
    """Measures the CPU time that a process uses within a ``with`` block.

    Attributes:
        seconds: what it used, after the block.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = 0.0
        self.seconds = 0.0

    def __enter__(self) -> Self:
        self._began = cpu_seconds(self._pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.seconds = cpu_seconds(self._pid) - self._began


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` (0 to 1) of all values do not exceed.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("there is nothing to rank")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
