"""The database's clock, by which all nodes go, however their own clocks are set."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from offhook.storage.postgres.driver import Connection

SAMPLES = 5
"""Times that the database is asked at each measurement."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ASK = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


class DatabaseClock:
    """The database's time, told without asking it each time.

    Until it is set it goes by the machine's clock. It never goes back: where it is found to be ahead it stands still
    until the database's time has come.
    """

    def __init__(self) -> None:
        self._zero = time.time_ns() // 1000 - time.monotonic_ns() // 1000
        self._last = 0

    def now(self) -> datetime:
        """See ``ports.Clock``."""
        told = self._last = max(self._last, time.monotonic_ns() // 1000 + self._zero)
        return _EPOCH + timedelta(microseconds=told)

    async def set(self, connection: Connection) -> float:
        """Asks the database for its time.

        Returns:
            By how many seconds this clock was behind; the error is at most half of the quickest answer's time.
        """
        best: tuple[int, int] | None = None
        for _ in range(SAMPLES):
            asked = time.monotonic_ns() // 1000
            told = await connection.fetchval(_ASK)
            answered = time.monotonic_ns() // 1000
            took, zero = answered - asked, int(told) - (asked + answered) // 2
            if best is None or took < best[0]:
                best = took, zero
        assert best is not None
        behind, self._zero = best[1] - self._zero, best[1]
        return behind / 1_000_000
