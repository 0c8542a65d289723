"""Databases on a PostgreSQL server, each made for one test in a moment and removed after it.

The server is the one that OFFHOOK_TEST_DATABASE names, whose user must be allowed to make databases; else the one that
runs on this machine; else one that is started for the tests alone.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import cache
from typing import Any, TypeVar

import asyncpg
from sqlalchemy.util import await_only
from tests.postgres_server import PostgresServer

from offhook.ports import Store, Transaction
from offhook.storage.postgres import PostgresStore

T = TypeVar("T")


def _server() -> str:
    named = os.environ.get("OFFHOOK_TEST_DATABASE")
    if named is not None:
        return named
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", 5432), timeout=2):
        return "postgresql://postgres@127.0.0.1:5432/postgres"
    own = PostgresServer()
    own.start()
    atexit.register(own.stop)
    return own.url


SERVER = _server()


def apart(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine in a thread and a loop of its own, whatever runs in this one; waits for it."""
    outcome: list[T] = []

    def run() -> None:
        outcome.append(asyncio.run(work))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


def url_of(name: str) -> str:
    """The URL of a database on the server."""
    return f"{SERVER.rpartition('/')[0]}/{name}"


async def execute(sql: str, *parameters: object, url: str = SERVER) -> list[Any]:
    """Executes a statement on a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        found: list[Any] = await connection.fetch(sql, *parameters)
        return found
    finally:
        await connection.close()


def make_database(*, empty: bool = False) -> str:
    """Makes a database and returns its URL.

    Args:
        empty: without even tables; else they are there, as this version makes them.
    """
    name = f"offhook_test_{secrets.token_hex(6)}"
    apart(execute(f"CREATE DATABASE {name}" + ("" if empty else f" TEMPLATE {_template()}")))
    if not empty:
        # A copy would go by the template's epoch.
        apart(execute("DELETE FROM meta", url=url_of(name)))
    return url_of(name)


def remove_database(url: str) -> None:
    """Removes a database, whoever is connected to it."""
    apart(execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)"))


@contextlib.contextmanager
def a_database(*, empty: bool = False) -> Iterator[str]:
    """Has a database in the context, and gives its URL; arguments as of ``make_database``."""
    url = make_database(empty=empty)
    try:
        yield url
    finally:
        remove_database(url)


@contextlib.asynccontextmanager
async def under_way(store: Store, work: Callable[[Transaction], object]) -> AsyncIterator[None]:
    """In the context, a unit of work has been done and not been committed."""
    done, go = asyncio.Event(), asyncio.Event()

    def unit(tx: Transaction) -> None:
        work(tx)
        done.set()
        await_only(go.wait())

    task = asyncio.create_task(store.transact(unit))
    await done.wait()
    try:
        yield
    finally:
        go.set()
        await task


@cache
def _template() -> str:
    url = make_database(empty=True)

    async def fill() -> None:
        store = await PostgresStore.open(url, lambda publications: None)
        await store.close()

    apart(fill())
    atexit.register(remove_database, url)
    return url.rpartition("/")[2]
