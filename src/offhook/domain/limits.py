"""Rate limits: a token bucket and a bounded table of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """A token bucket's shape.

    Attributes:
        per_second: tokens that come back each second.
        burst: tokens a full bucket holds.
    """

    per_second: float
    burst: int


class Bucket:
    """One token bucket. Times are seconds of any monotonic clock."""

    __slots__ = ("_at", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._tokens = float(rate.burst)
        self._at = now

    def take(self, rate: Rate, now: float, cost: float = 1.0) -> float:
        """Takes ``cost`` tokens, or none. Returns 0, or the seconds until they can be had."""
        tokens = min(rate.burst, self._tokens + (now - self._at) * rate.per_second)
        self._at = now
        if tokens >= cost:
            self._tokens = tokens - cost
            return 0.0
        self._tokens = tokens
        return (cost - tokens) / rate.per_second

    def charge(self, rate: Rate, now: float, cost: float) -> None:
        """Takes ``cost`` tokens, which may be more than there are, or puts some back if it is negative."""
        tokens = self._tokens + (now - self._at) * rate.per_second - cost
        self._at = now
        self._tokens = min(rate.burst, tokens)

    def wait(self, rate: Rate, now: float) -> float:
        """Seconds until one token can be had, without taking it."""
        tokens = self._tokens + (now - self._at) * rate.per_second
        return max(0.0, (1.0 - tokens) / rate.per_second)


class RateLimiter:
    """Buckets by key, e.g. by address. Holds at most ``capacity`` of them; the least recently used one goes first."""

    __slots__ = ("_buckets", "_capacity", "rate")

    def __init__(self, rate: Rate, capacity: int = 50_000) -> None:
        self.rate = rate
        self._capacity = capacity
        self._buckets: OrderedDict[Hashable, Bucket] = OrderedDict()

    def take(self, key: Hashable, now: float, cost: float = 1.0) -> float:
        """Takes ``cost`` tokens from the key's bucket. Returns 0, or the seconds until they can be had."""
        return self._bucket(key, now).take(self.rate, now, cost)

    def _bucket(self, key: Hashable, now: float) -> Bucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(self.rate, now)
            if len(self._buckets) > self._capacity:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket

    def charge(self, key: Hashable, now: float, cost: float) -> None:
        """Takes ``cost`` tokens from the key's bucket, or puts some back; see ``Bucket.charge``."""
        self._bucket(key, now).charge(self.rate, now, cost)

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until one token can be had, without taking it."""
        bucket = self._buckets.get(key)
        return 0.0 if bucket is None else bucket.wait(self.rate, now)

    def __len__(self) -> int:
        return len(self._buckets)
