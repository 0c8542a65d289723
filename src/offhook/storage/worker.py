"""Threads that work on the database for an event loop.

The loop puts units of work into a lane; a thread takes all that have gathered there, works on them together and sends
their outcomes back in one hop. So the more there is to do, the cheaper each unit becomes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

import structlog

from offhook.errors import Unavailable
from offhook.ports import Publication
from offhook.storage.transaction import SQLTransaction

MAX_WAITING = 50_000
"""Units of work that may wait in a lane."""
HOUSEKEEPING_EVERY = 30.0
"""Seconds after which an idle thread looks after its house."""

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Unit:
    """A unit of work on its way.

    Attributes:
        work: what to do.
        future: who waits for it; touched by the event loop alone.
        result: what ``work`` returned.
        error: why it failed.
    """

    work: Callable[[SQLTransaction], object]
    future: asyncio.Future[object]
    result: object = None
    error: BaseException | None = None


@dataclass(slots=True)
class Batch:
    """Units of work that were done together.

    Attributes:
        units: the work.
        publications: what it published, in order.
        commit_seconds: how long the commit took; None if there was none.
    """

    units: Sequence[Unit]
    publications: Sequence[Publication] = ()
    commit_seconds: float | None = None


class Performer(Protocol):
    """What a thread does with units of work. All of it is called in that thread."""

    most: int
    """Units to work on together at most."""

    def perform(self, units: Sequence[Unit]) -> Batch:
        """Does the work and sets each unit's outcome. Raises nothing."""

    def keep_house(self) -> None:
        """Called after each batch, and now and then when idle. Raises nothing."""

    def close(self) -> None:
        """Lets go of the database. Raises nothing."""


class Lane:
    """A queue of work with the threads that take from it.

    Args:
        loop: the event loop that everything is handed over from and back to.
        name: the threads' name.
        performers: one for each thread.
        settle: called on the loop with each finished batch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        performers: Sequence[Performer],
        settle: Callable[[Batch], None],
    ) -> None:
        self._loop = loop
        self._settle = settle
        self._queue: SimpleQueue[Unit | None] = SimpleQueue()
        self._open = True
        self._threads = [
            threading.Thread(target=self._run, args=(performer,), name=f"offhook-{name}-{number}", daemon=True)
            for number, performer in enumerate(performers)
        ]
        for thread in self._threads:
            thread.start()

    def put(self, work: Callable[[SQLTransaction], object]) -> asyncio.Future[object]:
        """Hands work over; it is done even if nobody waits for the future any more.

        Raises:
            Unavailable: the lane is closed or too much is waiting in it.
        """
        if not self._open:
            raise Unavailable("The database is closed")
        if self._queue.qsize() >= MAX_WAITING:
            raise Unavailable("The database cannot keep up")
        unit = Unit(work, self._loop.create_future())
        self._queue.put(unit)
        return unit.future

    async def close(self) -> None:
        """Waits for all work that was handed over, and for the threads to end."""
        if self._open:
            self._open = False
            for _ in self._threads:
                self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _run(self, performer: Performer) -> None:
        more = True
        while more:
            units, more = self._take(performer.most)
            if units:
                batch = performer.perform(units)
                try:
                    self._loop.call_soon_threadsafe(self._settle, batch)
                except RuntimeError:  # The loop was closed before the store was; nobody is left to be told.
                    log.warning("outcome_unheard", units=len(units))
            performer.keep_house()
        performer.close()

    def _take(self, most: int) -> tuple[list[Unit], bool]:
        """Waits for work. Returns what there is, and whether there will be more."""
        units: list[Unit] = []
        try:
            unit = self._queue.get(timeout=HOUSEKEEPING_EVERY)
            while unit is not None:
                units.append(unit)
                if len(units) == most:
                    return units, True
                unit = self._queue.get_nowait()
        except Empty:
            return units, True
        return units, False


def settle(units: Sequence[Unit]) -> None:
    """Tells those who wait for units of work, on the event loop."""
    for unit in units:
        if unit.future.done():  # Whoever waited was cancelled.
            continue
        if unit.error is not None:
            unit.future.set_exception(unit.error)
        else:
            unit.future.set_result(unit.result)


def failure(error: BaseException) -> BaseException:
    """What to tell the caller of a unit of work that failed with this error."""
    if isinstance(error, StopIteration):  # A future cannot carry it.
        return RuntimeError(f"a unit of work raised {error!r}")
    if isinstance(error, sqlite3.OperationalError) or type(error) is sqlite3.DatabaseError:
        log.error("database_failed", error=str(error), code=getattr(error, "sqlite_errorname", None))
        unavailable = Unavailable("The database is not available")
        unavailable.__cause__ = error
        return unavailable
    return error
