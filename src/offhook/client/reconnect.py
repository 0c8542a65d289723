"""When a client comes back: the one policy of both protocols."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime

STABLE = 5.0
"""Seconds after which a connection that came back counts as one that works; fewer if the policy waits less at most."""


@dataclass(frozen=True, slots=True)
class Reconnect:
    """How long to wait before each further attempt to connect.

    The wait before attempt *n* is a random part of ``min(maximum, initial * factor ** n)`` ("full jitter"), so that
    clients that lost their server together do not come back together. If the server asked to be left alone for a
    while, that comes first.

    Attributes:
        initial: seconds; the most that is waited before the first attempt.
        factor: by how much the bound grows with every failure.
        maximum: seconds; what the bound grows to.
        attempts: failed attempts in a row before the client gives up; None is never. An attempt whose connection is
            lost again within moments has failed.
    """

    initial: float = 1.0
    factor: float = 2.0
    maximum: float = 30.0
    attempts: int | None = None

    def __post_init__(self) -> None:
        if not (self.initial > 0 and self.factor >= 1 and self.maximum >= self.initial):
            raise ValueError("initial must be over 0, factor at least 1, and maximum at least initial")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError("attempts must be at least 1, or None")


NEVER = Reconnect(attempts=1)
"""For programs that would rather fail: one attempt to come back, then the connection counts as lost."""


class Backoff:
    """The waits of one client that is away from its server.

    Args:
        policy: how to wait.
    """

    __slots__ = ("_policy", "failures")

    def __init__(self, policy: Reconnect) -> None:
        self._policy = policy
        self.failures = 0
        """Attempts in a row that failed."""

    @property
    def exhausted(self) -> bool:
        """Whether the policy allows no further attempt."""
        attempts = self._policy.attempts
        return attempts is not None and self.failures >= attempts

    def failed(self) -> None:
        """An attempt failed."""
        self.failures += 1

    def succeeded(self) -> None:
        """An attempt led to a connection that works."""
        self.failures = 0

    def ended(self, lasted: float) -> None:
        """A connection that an attempt had led to was lost again.

        One that did not last counts as a failed attempt: else a server that takes every connection and drops it at
        once would be asked again and again with the shortest waits.

        Args:
            lasted: seconds.
        """
        if lasted >= min(STABLE, self._policy.maximum):
            self.succeeded()
        else:
            self.failed()

    def delay(self, retry_after: float | None = None) -> float:
        """Seconds to wait before the next attempt.

        Args:
            retry_after: seconds for which the server asked to be left alone.
        """
        policy = self._policy
        try:
            bound = min(policy.maximum, policy.initial * policy.factor**self.failures)
        except OverflowError:
            bound = policy.maximum
        return max(retry_after or 0.0, 0.0) + random.uniform(0.0, bound)  # noqa: S311 - not a secret


def retry_after(value: str | None) -> float | None:
    """Seconds named by an HTTP ``Retry-After`` header, or None if there is none that can be read (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
