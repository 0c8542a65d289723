"""What has been judged already, or is being judged, so that it is not judged again for every request."""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections import OrderedDict
from collections.abc import Callable, Coroutine

MAX_PROVEN = 50_000


class Proven:
    """Credentials that were good, as keyed digests; the least recently used go first.

    The key is random and never leaves the process: nobody can tell from the digests what the credentials were.

    Args:
        now: a clock in seconds that only goes forward.
        capacity: how many are remembered.
    """

    def __init__(self, now: Callable[[], float], capacity: int = MAX_PROVEN) -> None:
        self._now = now
        self._capacity = capacity
        self._key = secrets.token_bytes(32)
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def digest(self, *parts: object) -> bytes:
        """What stands for credentials and all that makes them good: numbers, texts, digests and None."""
        # Unlike the parts themselves, their representations cannot run into one another, and are always valid text.
        return hashlib.blake2b(repr(parts).encode(), digest_size=32, key=self._key).digest()

    def add(self, digest: bytes, seconds: float = math.inf) -> None:
        """Remembers credentials for so long."""
        self._until[digest] = self._now() + seconds
        self._until.move_to_end(digest)
        if len(self._until) > self._capacity:
            self._until.popitem(last=False)

    def __contains__(self, digest: bytes) -> bool:
        until = self._until.get(digest)
        if until is None:
            return False
        if self._now() >= until:
            del self._until[digest]
            return False
        self._until.move_to_end(digest)
        return True

    def __len__(self) -> int:
        return len(self._until)


class Flights:
    """Work that several callers want at the same time, and that is done once for all of them."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, asyncio.Task[None]] = {}

    async def join(self, key: bytes, work: Callable[[], Coroutine[object, object, None]]) -> None:
        """Does the work, or waits for what is under way with the same key. Raises whatever it raises.

        It goes on if its first caller is cancelled, for the others.
        """
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.get_running_loop().create_task(work())
            task.add_done_callback(lambda _: self._under_way.pop(key))
        await asyncio.shield(task)

    def __len__(self) -> int:
        return len(self._under_way)
