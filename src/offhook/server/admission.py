"""Who may connect: how many at once, in all and from each address, and how fast new ones may come."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from offhook.domain.limits import Rate, RateLimiter


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is turned away.

    Attributes:
        limit: the limit's name: ``connections``, ``address`` or ``rate``.
        retry_after: whole seconds after which to come again; differs from client to client, so that they
            do not all come at once.
    """

    limit: str
    retry_after: int


class Admission:
    """Counts connections. Whoever entered must leave.

    Args:
        max_connections: connections at once.
        max_per_address: connections at once from one address.
        rate: how fast new connections may come from one address.
        clock: a monotonic time in seconds.
    """

    def __init__(
        self,
        max_connections: int,
        max_per_address: int,
        rate: Rate,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max = max_connections
        self._max_per_address = max_per_address
        self._limiter = RateLimiter(rate)
        self._clock = clock
        self._by_address: dict[str, int] = {}
        self.total = 0
        """Connections now."""

    def enter(self) -> Refusal | None:
        """Counts a connection, whosoever it is. Returns why not, if it may not; then it is not counted."""
        if self.total >= self._max:
            return Refusal("connections", random.randint(2, 10))  # noqa: S311 - spreads clients, protects nothing
        self.total += 1
        return None

    def leave(self) -> None:
        """The connection has ended."""
        self.total -= 1

    def enter_from(self, address: str) -> Refusal | None:
        """Counts a connection of an address. Returns why not, if it may not; then it is not counted."""
        count = self._by_address.get(address, 0)
        if count >= self._max_per_address:
            return Refusal("address", random.randint(2, 10))  # noqa: S311
        wait = self._limiter.take(address, self._clock())
        if wait:
            return Refusal("rate", int(wait) + random.randint(1, 5))  # noqa: S311
        self._by_address[address] = count + 1
        return None

    def leave_from(self, address: str) -> None:
        """A connection of the address has ended."""
        count = self._by_address.get(address, 0)
        if count > 1:
            self._by_address[address] = count - 1
        else:
            self._by_address.pop(address, None)

    def count_from(self, address: str) -> int:
        """Connections now from an address."""
        return self._by_address.get(address, 0)
