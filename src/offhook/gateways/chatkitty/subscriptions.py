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
        prefix: the part of a MESSAGE that is this subscription's own; None until it is needed, as most never are.
        standby: the next one of the same destination.
    """

    __slots__ = ("acks", "destination", "id", "prefix", "standby")

    def __init__(self, subscription_id: str, destination: str, acks: bool) -> None:
        self.id = subscription_id
        self.destination = destination
        self.acks = acks
        self.standby: Subscription | None = None
        self.prefix: bytes | None = None

    def make_prefix(self) -> bytes:
        """Makes the prefix and keeps it."""
        self.prefix = prefix = message_prefix(self.id, self.destination)
        return prefix


class Subscriptions(dict[str, Subscription]):
    """By what they are to: the subscription that gets what goes there, with its stand-ins behind it.

    Is a dictionary because every event of every session looks into it.
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        super().__init__()
        self._keys: dict[str, str] = {}

    @property
    def count(self) -> int:
        """How many there are, stand-ins included."""
        return len(self._keys)

    def add(self, key: str, subscription: Subscription) -> None:
        """Adds one; a live one of the same id is replaced."""
        if subscription.id in self._keys:
            self.remove(subscription.id)
        self._keys[subscription.id] = key
        first = self.get(key)
        if first is None:
            self[key] = subscription
            return
        while first.standby is not None:
            first = first.standby
        first.standby = subscription

    def remove(self, subscription_id: str) -> bool:
        """Removes the subscription with this id, letting a stand-in take its place. Returns whether there was one."""
        key = self._keys.pop(subscription_id, None)
        if key is None:
            return False
        previous: Subscription | None = None
        current = self[key]
        while current.id != subscription_id and current.standby is not None:
            previous, current = current, current.standby
        if previous is not None:
            previous.standby = current.standby
        elif current.standby is not None:
            self[key] = current.standby
        else:
            del self[key]
        return True

    def any_but(self, key: str) -> Subscription | None:
        """Some subscription to something else, or None."""
        return next((subscription for name, subscription in self.items() if name != key), None)

    def have(self, keys: Set[str]) -> bool:
        """Whether there is a subscription for each of the keys."""
        return self.keys() >= keys
