"""Housekeeping: prunes the journal and the leases, one node at a time, and sets the clock."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import structlog

from offhook.domain.events import Topic
from offhook.ports import Clock
from offhook.storage.journal import PRUNE_LIMIT
from offhook.storage.postgres.clock import DatabaseClock
from offhook.storage.postgres.driver import Connection
from offhook.storage.postgres.pool import Pool
from offhook.storage.postgres.publishing import DROP_ENTRIES
from offhook.storage.types import microseconds
from offhook.storage.worker import HOUSEKEEPING_EVERY

LOCK = 0x0FF40002
"""The advisory lock of the node that prunes."""
_ALONE = "SELECT pg_try_advisory_xact_lock($1::bigint)"
_SHORTEN = """
DELETE FROM journal WHERE id IN (
    SELECT j.id FROM unnest($1::varchar[], $2::bigint[]) AS grown (topic, last), LATERAL (
        SELECT id FROM journal WHERE topic = grown.topic AND "offset" <= grown.last ORDER BY "offset" LIMIT $3::bigint
    ) AS j
)"""
# All up to the last one that is too old, so that clocks that differ leave no hole in a history.
_FORGET = """
DELETE FROM journal WHERE id <= (
    SELECT max(id) FROM (SELECT id, created_at FROM journal ORDER BY id LIMIT $2::bigint) AS oldest
    WHERE created_at < $1::bigint
)"""
_CLOSED = "SELECT topic FROM topics WHERE closed_at < $1::bigint LIMIT $2::bigint"
_DROP_TOPICS = "DELETE FROM topics WHERE topic = ANY($1::varchar[]) AND closed_at < $2::bigint"
# Nobody holds a lease that is over; those of nodes that died would stay for ever.
_DROP_LEASES = """
DELETE FROM leases WHERE name IN (SELECT name FROM leases WHERE expires_at < $1::bigint LIMIT $2::bigint)
    AND expires_at < $1::bigint"""

log = structlog.get_logger(__name__)


class Housekeeper:
    """A task that looks after the database as long as the store is open.

    Args:
        pool: its connections.
        clock: tells what is too old; set by the database if it is the database's.
        size: events to keep of each topic.
        seconds: how long to keep them.
    """

    def __init__(self, pool: Pool, clock: Clock, size: int, seconds: float) -> None:
        self._pool = pool
        self._clock = clock
        self._size = size
        self._age = timedelta(seconds=seconds)
        self._every = max(1, min(1000, size // 4))
        self._grown: dict[Topic, int] = {}
        self._unpruned = 0
        self._due = asyncio.Event()
        self._task = asyncio.create_task(self._run(), name="housekeeper")

    def published(self, topic: Topic, offset: int) -> None:
        """An event was committed."""
        if offset > self._size:
            self._grown[topic] = offset
        self._unpruned += 1
        if self._unpruned >= self._every:
            self._due.set()

    async def close(self) -> None:
        """Ends the task."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOUSEKEEPING_EVERY):
                    await self._due.wait()
            self._due.clear()
            self._unpruned = 0
            try:
                await self._keep()
            except Exception as error:
                log.warning("housekeeping_failed", error=f"{type(error).__name__}: {error}")

    async def _keep(self) -> None:
        link = await self._pool.acquire()
        broken = True
        try:
            if isinstance(self._clock, DatabaseClock):
                await self._clock.set(link.connection)
            while await self._prune(link.connection):
                pass
            broken = False
        finally:
            self._pool.release(link, broken=broken)

    async def _prune(self, connection: Connection) -> bool:
        """Deletes a bounded number of events. Returns whether there are more."""
        grown = dict(self._grown)
        await connection.execute("BEGIN")
        (alone,) = await connection.fetchrow(_ALONE, LOCK)
        if not alone:  # Another node is at it; what grew here is seen to the next time.
            await connection.execute("ROLLBACK")
            return False
        deleted = 0
        if grown:
            lasts = [head - self._size for head in grown.values()]
            deleted = _count(await connection.execute(_SHORTEN, list(grown), lasts, PRUNE_LIMIT))
        before = microseconds(self._clock.now() - self._age)
        forgotten = _count(await connection.execute(_FORGET, before, PRUNE_LIMIT))
        closed = [record[0] for record in await connection.fetch(_CLOSED, before, PRUNE_LIMIT)]
        if closed:
            await connection.execute(DROP_ENTRIES, closed)
            await connection.execute(_DROP_TOPICS, closed, before)
        leases = _count(await connection.execute(_DROP_LEASES, before, PRUNE_LIMIT))
        await connection.execute("COMMIT")
        for topic, head in grown.items():
            if deleted < PRUNE_LIMIT and self._grown.get(topic) == head:
                del self._grown[topic]
        return deleted >= PRUNE_LIMIT or PRUNE_LIMIT in (forgotten, len(closed), leases)


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
