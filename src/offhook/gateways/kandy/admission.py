"""How many requests are let in: by address and credentials before it is known whose they are, by user afterwards."""

from __future__ import annotations

import time

from offhook.domain.accounts import User
from offhook.domain.limits import Rate, RateLimiter
from offhook.errors import RateLimited
from offhook.services.authentication import ADDRESS_FACTOR


class Admission:
    """The limits of one server's REST side.

    Nobody can spend what is a user's without that user's credentials, and who shows others each time gets no more than
    what is the address's, which many users may share.

    Args:
        requests: of one user; addresses get ADDRESS_FACTOR times as much.
        guesses: of one address that calls whom there is not.
    """

    __slots__ = ("_addresses", "_guesses", "_shown", "_users")

    def __init__(self, requests: Rate, guesses: Rate) -> None:
        wide = Rate(requests.per_second * ADDRESS_FACTOR, requests.burst * ADDRESS_FACTOR)
        self._addresses = RateLimiter(wide)
        self._shown = RateLimiter(requests)
        self._users = RateLimiter(requests)
        self._guesses = RateLimiter(guesses)

    def enter(self, address: str, shown: bytes) -> None:
        """Lets a request in, or not.

        Args:
            address: the IP address it came from.
            shown: a digest of its credentials, and of the user in its path.

        Raises:
            RateLimited: there were too many.
        """
        now = time.monotonic()
        wait = self._addresses.take(address, now) or self._shown.take((address, shown), now)
        if wait > 0:
            raise RateLimited("Too many requests", wait)

    def user(self, user: User, cost: float = 1.0) -> None:
        """Lets a user's request in, or not, once it is proved whose it is.

        Args:
            user: the user.
            cost: how many requests it counts as; it is let in if one is left.

        Raises:
            RateLimited: there were too many.
        """
        now, key = time.monotonic(), (user.application_id, user.id)
        wait = self._users.take(key, now)
        if wait > 0:
            raise RateLimited("Too many requests", wait)
        if cost > 1.0:
            self._users.charge(key, now, cost - 1.0)

    def may_guess(self, address: str) -> None:
        """Whether an address may call somebody at all now. Raises RateLimited."""
        wait = self._guesses.wait(address, time.monotonic())
        if wait > 0:
            raise RateLimited("Too many calls of nobody", wait)

    def missed(self, address: str) -> None:
        """Counts a call of nobody."""
        self._guesses.charge(address, time.monotonic(), 1.0)
