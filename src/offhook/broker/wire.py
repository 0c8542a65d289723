"""One connection to a Redis server that is made again whenever it breaks.

Nothing waits for it: what is sent is put in line, up to a bound, and goes out in as few writes as possible. A server
that does not answer a ping for a while counts as *unsteady*, and after a longer while its connection is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections.abc import Callable
from typing import Protocol

import structlog
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

CONNECT_TIMEOUT = 3.0
"""Seconds for connecting and signing in."""
PING_EVERY = 0.5
UNSTEADY_AFTER = 1.0
"""Seconds without an answer after which the server counts as slow."""
GIVE_UP_AFTER = 5.0
"""Seconds after which the connection is closed if nothing comes, not even the answer to a ping."""
RETRY_FIRST, RETRY_MOST = 0.05, 1.0
"""Seconds between attempts to connect; each pause is twice the one before, and half of it is random."""
MAX_WAITING = 8 * 1024 * 1024
"""Bytes that may wait to be written."""

Dial = Callable[[], AbstractConnection]

log = structlog.get_logger(__name__)


class Ears(Protocol):
    """Who uses a wire. None of these may raise or wait."""

    def raised(self) -> None:
        """The connection stands; what is sent from here on goes out on it."""

    def broke(self) -> None:
        """The connection is gone, with all that was not answered."""

    def steadied(self) -> None:
        """The server has become steady or unsteady."""

    def heard(self, reply: object) -> None:
        """A reply or push message came: decoded by the client library, errors as exceptions."""


class Wire:
    """A connection that is kept up.

    Args:
        dial: makes an unconnected connection of the client library.
        ears: who uses it.
        name: for the log.
    """

    def __init__(self, dial: Dial, ears: Ears, name: str) -> None:
        self._dial = dial
        self._ears = ears
        self.name = name
        self._waiting: list[bytes] = []
        self._size = 0
        self._more = asyncio.Event()
        self._heard = 0
        self._pinged_at: float | None = None
        self.settled_until = 0.0
        """When a ping was sent that was answered, and so was all that had been sent before it on this connection."""
        self._task: asyncio.Task[None] | None = None
        self.up = False
        self.steady = False
        self.breaks = 0

    def start(self) -> None:
        """Begins to connect."""
        self._task = asyncio.create_task(self._keep_up(), name=f"redis {self.name}")

    async def close(self) -> None:
        """Closes the connection and makes no other."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def send(self, *arguments: bytes) -> bool:
        """Puts a command in line. Returns False if the connection is down, or too much waits already."""
        if not self.up or self._size > MAX_WAITING:
            return False
        self._put(arguments)
        return True

    def _put(self, arguments: tuple[bytes, ...]) -> None:
        parts = [b"*%d\r\n" % len(arguments)]
        for argument in arguments:
            parts.append(b"$%d\r\n" % len(argument))
            parts.append(argument)
            parts.append(b"\r\n")
        data = b"".join(parts)
        self._waiting.append(data)
        self._size += len(data)
        self._more.set()

    async def _keep_up(self) -> None:
        pause = RETRY_FIRST
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    connection = self._dial()
                    await connection.connect()  # type: ignore[no-untyped-call]
            except (RedisError, OSError, TimeoutError) as error:
                if pause == RETRY_FIRST:
                    log.warning("redis_unreachable", server=self.name, error=str(error))
            else:
                pause = RETRY_FIRST
                await self._use(connection)
                self.breaks += 1
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads reconnects
            pause = min(2 * pause, RETRY_MOST)

    async def _use(self, connection: AbstractConnection) -> None:
        """Works with a connection until it breaks."""
        self._waiting, self._size, self._pinged_at, self.settled_until = [], 0, None, 0.0
        self.up = self.steady = True
        workers = [
            asyncio.create_task(work, name=f"redis {self.name}")
            for work in (self._read(connection), self._write(connection), self._probe())
        ]
        self._ears.raised()
        self._ears.steadied()
        try:
            done, _ = await asyncio.wait(workers, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                error = task.exception()
                if isinstance(error, RedisError | OSError | TimeoutError):
                    log.warning("redis_connection_lost", server=self.name, error=str(error))
                elif error is not None:
                    log.error("redis_connection_failed", server=self.name, exc_info=error)
        finally:
            self.up = self.steady = False
            self._waiting, self._size = [], 0
            for task in workers:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._ears.broke()
            self._ears.steadied()
            with contextlib.suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    async def _read(self, connection: AbstractConnection) -> None:
        heard = self._ears.heard
        while True:
            try:
                # Of what has arrived, each read returns at once, and would let nobody else do anything.
                reply = await connection.read_response(timeout=math.inf, push_request=True)
            except RedisError as error:
                if not connection.is_connected:
                    raise
                reply = error
            heard(reply)
            self._heard += 1
            if self._heard % 64 == 0:
                await asyncio.sleep(0)

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            await self._more.wait()
            self._more.clear()
            waiting, self._waiting, self._size = self._waiting, [], 0
            if waiting:
                await connection.send_packed_command([b"".join(waiting)], check_health=False)

    async def _probe(self) -> None:
        """Asks whether the server answers, and gives up when it has not for long."""
        heard, heard_at = self._heard, time.monotonic()
        while True:
            now = time.monotonic()
            if heard != self._heard:
                # Where much comes, the answer is somewhere behind it.
                heard, heard_at = self._heard, now
            if self._pinged_at is not None and now - max(heard_at, self._pinged_at) > GIVE_UP_AFTER:
                raise TimeoutError("the server does not answer")
            self._be_steady(self._pinged_at is None or now - self._pinged_at < UNSTEADY_AFTER)
            if self._pinged_at is None:
                self._pinged_at = now
                self._put((b"PING",))
            await asyncio.sleep(PING_EVERY)

    def answered(self) -> None:
        """The ping was answered; whoever uses the wire can tell it from other replies."""
        self.settled_until, self._pinged_at = self._pinged_at or 0.0, None
        self._be_steady(True)

    def _be_steady(self, steady: bool) -> None:
        if self.up and steady != self.steady:
            self.steady = steady
            self._ears.steadied()
