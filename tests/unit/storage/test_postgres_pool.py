"""The pool of connections when those who wait for one are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.databases import a_database

from offhook.storage.postgres import DatabaseClock
from offhook.storage.postgres.driver import connect
from offhook.storage.postgres.pool import Link, Pool


@pytest.fixture
def url() -> Iterator[str]:
    with a_database() as url:
        yield url


@pytest.fixture
async def pool(url: str) -> AsyncIterator[Pool]:
    """A pool of one connection."""

    async def opened() -> Link:
        return Link(await connect(url), "epoch", DatabaseClock())

    pool = Pool(opened, 1, 1.0)
    yield pool
    await pool.close()


@pytest.mark.parametrize("broken", [False, True])
async def test_what_comes_to_one_who_was_cancelled_is_the_next_ones(pool: Pool, broken: bool) -> None:
    held = await pool.acquire()
    waiting = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    pool.release(held, broken=broken)
    # It was handed over, and not taken yet.
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.opened == (0 if broken else 1)
    link = await pool.acquire()
    assert await link.connection.fetchval("SELECT 1") == 1
    pool.release(link)


async def test_one_who_is_cancelled_while_waiting_takes_nothing(pool: Pool) -> None:
    held = await pool.acquire()
    waiting = [asyncio.create_task(pool.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    pool.release(held)
    assert await waiting[1] is held
    pool.release(held)
    assert pool.opened == 1 and not pool.wanted
