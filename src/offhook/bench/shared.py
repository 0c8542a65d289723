"""What several processes share while they are measured: a database and channels of their own.

The CPU time of PostgreSQL is that of the backends that serve this database. Redis is one process for all its clients:
what others do with it meanwhile is counted, too.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, cast
from urllib.parse import urlsplit

from offhook.bench.client import LoadFailed
from offhook.bench.measure import cpu_seconds
from offhook.broker.mesh import parse_broker_url
from offhook.storage.postgres.driver import Connection, connect

DATABASE_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
BROKER_URL = "redis://127.0.0.1:6379/0"
QUIET = 0.05
"""CPU seconds in each second below which a server counts as idle. A node of many looks at its topics all the time."""
TURN = 0.25
TURNS = 240
_BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname = $1"


class ServersMissing(Exception):
    """PostgreSQL or Redis cannot be used. The message says why."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Which servers several processes may share.

    Attributes:
        database_url: of PostgreSQL; its user must be allowed to make databases.
        broker_url: of Redis.
    """

    database_url: str = DATABASE_URL
    broker_url: str = BROKER_URL


@dataclass(frozen=True, slots=True)
class Spent:
    """CPU seconds, and the time that passed.

    Attributes:
        offhook: of all server processes together.
        postgresql: of the database's backends; None if they are not on this machine.
        redis: likewise.
        seconds: by the clock on the wall.
    """

    offhook: float
    postgresql: float | None
    redis: float | None
    seconds: float

    def each(self, events: int) -> Spent:
        """The same for one of so many events."""
        return Spent(
            self.offhook / events,
            None if self.postgresql is None else self.postgresql / events,
            None if self.redis is None else self.redis / events,
            self.seconds / events,
        )


class Shared:
    """A database and a prefix in Redis. Make it with :func:`shared_servers`.

    Attributes:
        settings: those of every node.
    """

    def __init__(self, name: str, settings: Mapping[str, str], admin: Connection, redis: int | None) -> None:
        self._name = name
        self._admin = admin
        self._redis = redis
        self.settings = settings

    async def cpu(self) -> tuple[Mapping[int, float] | None, float | None]:
        """CPU seconds so far: of each of the database's backends, and of Redis; None if they are on another machine."""
        pids = [int(record[0]) for record in await self._admin.fetch(_BACKENDS, self._name)]
        backends: dict[int, float] = {}
        for pid in pids:
            # One that has just ended is no more.
            with suppress(OSError):
                if _program(pid).startswith("postgres"):
                    backends[pid] = cpu_seconds(pid)
        return (
            backends if len(backends) == len(pids) else None,
            None if self._redis is None else cpu_seconds(self._redis),
        )


class Spending:
    """Measures what an ``async with`` block uses.

    Args:
        pids: of the servers.
        shared: what they share, if anything.
    """

    def __init__(self, pids: Sequence[int], shared: Shared | None) -> None:
        self._pids = pids
        self._shared = shared
        self._backends: Mapping[int, float] | None = None
        self._redis: float | None = None
        self._offhook = 0.0
        self._began = 0.0
        self._spent: Spent | None = None

    @property
    def spent(self) -> Spent:
        """What was used, after the block."""
        assert self._spent is not None
        return self._spent

    async def __aenter__(self) -> Self:
        if self._shared is not None:
            self._backends, self._redis = await self._shared.cpu()
        self._offhook = sum(map(cpu_seconds, self._pids))
        self._began = time.perf_counter()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            return
        seconds = time.perf_counter() - self._began
        offhook = sum(map(cpu_seconds, self._pids)) - self._offhook
        postgresql = redis = None
        if self._shared is not None:
            backends, now = await self._shared.cpu()
            if backends is not None and self._backends is not None:
                postgresql = sum(used - self._backends.get(pid, 0.0) for pid, used in backends.items())
            if now is not None and self._redis is not None:
                redis = now - self._redis
        self._spent = Spent(offhook, postgresql, redis, seconds)


@asynccontextmanager
async def shared_servers(servers: Servers) -> AsyncIterator[Shared]:
    """Makes a database, and drops it at the end. In Redis nothing is left behind, as nothing is kept there.

    Raises:
        ServersMissing: PostgreSQL or Redis is away, or refuses.
    """
    redis = await _redis_pid(servers.broker_url)
    name = f"offhook_bench_{secrets.token_hex(6)}"
    try:
        admin = await connect(servers.database_url)
    except Exception as error:
        raise ServersMissing(f"PostgreSQL cannot be used: {error}") from error
    try:
        try:
            await admin.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
        except Exception as error:
            raise ServersMissing(f"PostgreSQL makes no database: {error}") from error
        settings = {
            "database_url": urlsplit(servers.database_url)._replace(path=f"/{name}").geturl(),
            "broker_url": servers.broker_url,
            "broker_prefix": name,
            "secret_key": secrets.token_hex(32),
        }
        try:
            yield Shared(name, settings, admin, redis)
        finally:
            await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    finally:
        admin.terminate()


async def at_rest(pids: Sequence[int]) -> None:
    """Waits until servers have nothing to do.

    Raises:
        LoadFailed: they do not come to rest.
    """
    last = sum(map(cpu_seconds, pids))
    for _ in range(TURNS):
        await asyncio.sleep(TURN)
        now = sum(map(cpu_seconds, pids))
        if now - last < QUIET * TURN * len(pids):
            return
        last = now
    raise LoadFailed("the servers do not come to rest")


async def _redis_pid(url: str) -> int | None:
    """The process of Redis, or None if it is not on this machine."""
    try:
        servers = parse_broker_url(url)
        connection = servers.dial(servers.seeds[0])
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("INFO", "server")
            answer = cast(bytes | str, await connection.read_response())
        finally:
            await connection.disconnect()
    except Exception as error:
        raise ServersMissing(f"Redis cannot be used: {error}") from error
    text = answer.decode() if isinstance(answer, bytes) else answer
    found = [line.partition(":")[2] for line in text.splitlines() if line.startswith("process_id:")]
    if servers.cluster or not found or not _program(int(found[0])).startswith(("redis", "valkey")):
        return None
    return int(found[0])


def _program(pid: int) -> str:
    """The name of the program that a process runs; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
