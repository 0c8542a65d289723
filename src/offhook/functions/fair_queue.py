"""A bound on how many calls run at once that lets no application take the places of the others."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class QueueFull(Exception):
    """Too many are waiting already."""


class QueueStuck(Exception):
    """Every place the key could have is held by a call that overran its time."""


class Place:
    """A place in the queue's inner room. Give it back with ``leave``."""

    __slots__ = ("_left", "_overran", "_queue", "key")

    def __init__(self, queue: FairQueue, key: str) -> None:
        self.key = key
        self._queue = queue
        self._overran = False
        self._left = False

    def overrun(self) -> None:
        """Says that nobody waits for this call any more, though it has not ended."""
        if not (self._overran or self._left):
            self._overran = True
            self._queue._overran(self.key)

    def leave(self) -> None:
        """Gives the place back, once the call has really ended. Idempotent."""
        if not self._left:
            self._left = True
            self._queue._leave(self.key, self._overran)


class FairQueue:
    """At most ``places`` calls at once, ``per_key`` of them for one key; keys take turns at what is free.

    Args:
        places: calls at once.
        per_key: calls of one key at once.
        max_waiting: calls that may wait.
    """

    def __init__(self, places: int, per_key: int, max_waiting: int) -> None:
        self._free = places
        self._places = places
        self._per_key = per_key
        self._max_waiting = max_waiting
        self._held: Counter[str] = Counter()
        self._overrun: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[Place]]] = {}

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @property
    def held(self) -> int:
        """How many places are taken."""
        return self._places - self._free

    async def enter(self, key: str) -> Place:
        """Waits for a place.

        Raises:
            QueueFull: too many wait.
            QueueStuck: waiting is in vain, now or while waiting.
        """
        if self._stuck(key):
            raise QueueStuck
        if self._has_place(key):
            return self._take(key)
        if self.waiting >= self._max_waiting:
            raise QueueFull
        future: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                future.result().leave()
            else:
                self._forget(key, future)
            raise

    def _has_place(self, key: str) -> bool:
        return self._free > 0 and self._held[key] < self._per_key

    def _stuck(self, key: str) -> bool:
        return self._overrun[key] >= self._per_key or self._overrun.total() >= self._places

    def _take(self, key: str) -> Place:
        self._free -= 1
        self._held[key] += 1
        return Place(self, key)

    def _forget(self, key: str, future: asyncio.Future[Place]) -> None:
        queue = self._waiting.get(key)
        if queue is not None and future in queue:
            queue.remove(future)
            if not queue:
                del self._waiting[key]

    def _overran(self, key: str) -> None:
        self._overrun[key] += 1
        for other in list(self._waiting):
            if self._stuck(other):
                for future in self._waiting.pop(other):
                    if not future.done():
                        future.set_exception(QueueStuck())

    def _leave(self, key: str, overran: bool) -> None:
        self._free += 1
        _subtract(self._held, key)
        if overran:
            _subtract(self._overrun, key)
        while (turn := next((key for key in self._waiting if self._has_place(key)), None)) is not None:
            queue = self._waiting.pop(turn)
            future = queue.popleft()
            if not future.done():
                future.set_result(self._take(turn))
            if queue:
                self._waiting[turn] = queue  # at the end: the other keys' turn comes first


def _subtract(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
