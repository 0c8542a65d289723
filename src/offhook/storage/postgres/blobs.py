"""Files in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TypeVar

from offhook.errors import InvalidInput, Unavailable
from offhook.ports import Clock
from offhook.storage.blobs import check_name
from offhook.storage.postgres.performer import PATIENCE, Performer
from offhook.storage.postgres.pool import Link
from offhook.storage.types import microseconds

T = TypeVar("T")

AT_ONCE = 2
"""Files that are stored or read at one time; the other connections, and the memory, are for everything else."""
_PUT = """
INSERT INTO files (name, data, size, created_at) VALUES ($1::varchar, $2::bytea, $3::integer, $4::bigint)
ON CONFLICT (name) DO NOTHING"""
_GET = "SELECT data FROM files WHERE name = $1::varchar"
_DELETE = "DELETE FROM files WHERE name = $1::varchar"


class DatabaseBlobs:
    """Implements ``ports.Blobs`` with one row a file, so that every node has the files of all.

    Nothing is kept in memory: what is deleted at one node is gone at all of them at once, and those who were given a
    file may keep it for ever anyway.

    Args:
        performer: executes statements; each one here may be executed twice.
        clock: tells when a file was stored.
    """

    def __init__(self, performer: Performer, clock: Clock) -> None:
        self._performer = performer
        self._clock = clock
        self._places = asyncio.Semaphore(AT_ONCE)

    async def put(self, name: str, data: bytes) -> None:
        """See ``ports.Blobs``."""
        check_name(name)
        now = microseconds(self._clock.now())

        async def put(link: Link) -> None:
            await link.connection.execute(_PUT, name, data, len(data), now)

        await self._fetch(put)

    async def get(self, name: str) -> bytes | None:
        """See ``ports.Blobs``."""
        try:
            check_name(name)
        except InvalidInput:
            return None

        async def get(link: Link) -> bytes | None:
            data: bytes | None = await link.connection.fetchval(_GET, name)
            return data

        return await self._fetch(get)

    async def delete(self, name: str) -> None:
        """See ``ports.Blobs``."""
        check_name(name)

        async def delete(link: Link) -> None:
            await link.connection.execute(_DELETE, name)

        await self._fetch(delete)

    async def _fetch(self, statement: Callable[[Link], Coroutine[object, object, T]]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._places.acquire()
        except TimeoutError:
            raise Unavailable("The database cannot keep up") from None
        try:
            return await self._performer.fetch(statement)
        finally:
            self._places.release()
