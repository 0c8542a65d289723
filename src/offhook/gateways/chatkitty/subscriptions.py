"""The live subscriptions of one connection (ChatKitty protocol notes, 3.3).

Clients subscribe to the same destination more than once and run every handler for each copy that arrives, so each
event goes to one subscription of its destination; the others stand by for when that one is cancelled.
"""

from __future__ import annotations

from collections.abc import Set

from offhook.protocols.stomp import message_prefix


class Subscription:
    """One subscription.

    Attributes:
        id: the client's name for it.
        destination: as the client wrote it.
        acks: whether the client acknowledges what it gets.
    """

    __slots__ = ("_prefix", "acks", "destination", "id", "standby")

    def __init__(self, subscription_id: str, destination: str, acks: bool) -> None:
        self.id = subscription_id
        self.destination = destination
        self.acks = acks
        self.standby: Subscription | None = None
        self._prefix: bytes | None = None

    @property
    def prefix(self) -> bytes:
        """The part of a MESSAGE that is this subscription's own."""
        prefix = self._prefix
        if prefix is None:
            prefix = self._prefix = message_prefix(self.id, self.destination)
        return prefix


class Subscriptions:
    """Subscriptions by what they are to, each key with its stand-ins."""

    __slots__ = ("_first", "count")

    def __init__(self) -> None:
        self._first: dict[str, Subscription] = {}
        self.count = 0

    def get(self, key: str) -> Subscription | None:
        """The subscription that gets what goes to ``key``."""
        return self._first.get(key)

    def add(self, key: str, subscription: Subscription) -> None:
        """Adds one; a live one of the same id is replaced."""
        if self.count:
            self.remove(subscription.id)
        self.count += 1
        first = self._first.get(key)
        if first is None:
            self._first[key] = subscription
            return
        while first.standby is not None:
            first = first.standby
        first.standby = subscription

    def remove(self, subscription_id: str) -> bool:
        """Removes the subscription with this id, letting a stand-in take its place. Returns whether there was one."""
        for key, first in self._first.items():
            previous: Subscription | None = None
            current: Subscription | None = first
            while current is not None and current.id != subscription_id:
                previous, current = current, current.standby
            if current is None:
                continue
            self.count -= 1
            if previous is not None:
                previous.standby = current.standby
            elif current.standby is not None:
                self._first[key] = current.standby
            else:
                del self._first[key]
            return True
        return False

    def any(self) -> Subscription | None:
        """Some subscription, or None."""
        return next(iter(self._first.values()), None)

    def have(self, keys: Set[str]) -> bool:
        """Whether there is a subscription for each of the keys."""
        return self._first.keys() >= keys
