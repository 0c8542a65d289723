"""The subscription: a session that was made by a request of its own, for services, and lives while it is renewed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from offhook.errors import InvalidInput

CALL = "call"
PRESENCE = "Presence"
IM = "IM"
CALL_ME = "callMe"
SERVICES = frozenset({CALL, PRESENCE, IM})
"""What users can subscribe to. Their names are part of the protocol, letter case included."""
ANONYMOUS_SERVICES = frozenset({CALL_ME})
"""What callers without an account can."""

MIN_LIFETIME, MAX_LIFETIME, DEFAULT_LIFETIME = 60.0, 24 * 3600.0, 3600.0
"""Seconds from one renewal to the expiry."""
RENEWAL_GRACE = 60.0
"""Seconds beyond that for which a renewal may be late: browsers let the timers of hidden pages run once a minute."""
MAX_WATCHED = 1000
"""Users whose presence one subscription can watch."""
MAX_SPELLINGS = 10
"""Names under which it can watch one and the same user, such as ``sip:bob@example.com`` and ``bob@example.com``."""


class Product(StrEnum):
    """Which family of clients made the subscription: they read some answers differently."""

    LINK = "link"
    UC = "uc"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Owed:
    """A user whose presence a client has asked for and is not known to have got.

    Attributes:
        name: as the client spells it.
        asked: the version of the subscription that came of it; asking again makes it another.
    """

    name: str
    asked: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """What a subscription has beyond its session.

    Attributes:
        session_id: its session.
        product: see there.
        services: those granted, in the order in which they were asked for.
        lifetime: seconds from a renewal to the expiry.
        localization: the client's language, as it names it.
        correlator: the client's own name for it, or None.
        login: names the sign-in whose tokens made it; empty if it was made with other credentials.
        device: tells its client's requests from those of the same user's other clients, as well as that is known.
        watched: users whose presence is told, as the client spells them.
        owed: what it is still to get of what it asked for.
        backlog: id of the last message that was waiting when the client asked for messages; those up to there that
            nobody got are told first. 0 if none was.
        im_since: offset in the user's topic from which on messages are told.
        version: counts the changes, so that an older state never overwrites a newer one.
        watched_since: offset in the application's topic from which on changes of those watched are told, unless the
            client is known to have seen more; None if nobody was watched yet.
    """

    session_id: int
    product: Product
    services: tuple[str, ...]
    lifetime: float
    localization: str = "English_US"
    correlator: str | None = None
    login: str = ""
    device: str = ""
    watched: tuple[str, ...] = ()
    owed: tuple[Owed, ...] = ()
    backlog: int = 0
    im_since: int = 0
    version: int = 1
    watched_since: int | None = None

    @property
    def announces(self) -> bool:
        """Whether the user counts as online through it."""
        return PRESENCE in self.services


@dataclass(frozen=True, slots=True)
class Outline:
    """What tells a user's subscriptions apart: all of a subscription but the names in it, which may be many.

    Attributes: as of ``Subscription``.
    """

    session_id: int
    product: Product
    services: tuple[str, ...]
    correlator: str | None
    login: str
    device: str


def granted(wanted: Sequence[str], known: frozenset[str]) -> tuple[str, ...]:
    """The services among those asked for that there are, each once, in their order.

    Raises:
        InvalidInput: there is none among them.
    """
    services = tuple(dict.fromkeys(name for name in wanted if name in known))
    if not services:
        raise InvalidInput(f"None of these services is offered; there are {', '.join(sorted(known))}", "service")
    return services


def lifetime(wanted: float | None) -> float:
    """The lifetime to give to a client that asked for ``wanted`` seconds, or did not say."""
    return DEFAULT_LIFETIME if wanted is None else min(max(MIN_LIFETIME, wanted), MAX_LIFETIME)


def changed(
    subscription: Subscription, services: tuple[str, ...], lifetime: float, backlog: int, im_since: int
) -> Subscription:
    """The subscription with other services, as a renewal asks for.

    Args:
        services: those granted now.
        lifetime: in seconds, from now.
        backlog: id of the newest message that waits, should messages be asked for only now.
        im_since: offset in the user's topic now, for the same case.
    """
    before = subscription
    presence = PRESENCE in services
    im_begins = IM in services and IM not in before.services
    return replace(
        before,
        services=services,
        lifetime=lifetime,
        backlog=backlog if im_begins else before.backlog,
        im_since=im_since if im_begins else before.im_since,
        # Whoever gives presence up and takes it again asks anew for whom to watch.
        watched=before.watched if presence else (),
        owed=before.owed if presence else (),
        version=before.version + 1,
    )


def watching(subscription: Subscription, names: Sequence[str], head: int) -> Subscription:
    """The subscription, watching these users as well, and owed their presence.

    Args:
        subscription: as it is.
        names: users as the client spells them.
        head: offset in the application's topic now.

    Raises:
        InvalidInput: those would be too many.
    """
    watched = tuple(dict.fromkeys((*subscription.watched, *names)))
    if len(watched) > MAX_WATCHED:
        raise InvalidInput(f"More than {MAX_WATCHED} users cannot be watched", "userList")
    if max(Counter(map(user_of, watched)).values(), default=0) > MAX_SPELLINGS:
        raise InvalidInput(f"A user cannot be watched under more than {MAX_SPELLINGS} names", "userList")
    since = subscription.watched_since if subscription.watched else head
    return replace(owing(subscription, names), watched=watched, watched_since=since)


def owing(subscription: Subscription, names: Sequence[str], limit: int = MAX_WATCHED) -> Subscription:
    """The subscription, owed the presence of these users, beside what it is owed anyway.

    Raises:
        InvalidInput: that would be of more than ``limit`` users.
    """
    version = subscription.version + 1
    again = set(names)
    owed = (
        *(owed for owed in subscription.owed if owed.name not in again),
        *(Owed(name, version) for name in dict.fromkeys(names)),
    )
    if len(owed) > limit:
        raise InvalidInput(f"More than {limit} users cannot be asked for", "userList")
    return replace(subscription, owed=owed, version=version)


def unwatching(subscription: Subscription, names: Sequence[str]) -> Subscription:
    """The subscription without watching these users."""
    gone = set(names)
    return replace(
        subscription,
        watched=tuple(name for name in subscription.watched if name not in gone),
        owed=tuple(owed for owed in subscription.owed if owed.name not in gone),
        version=subscription.version + 1,
    )


def shown(subscription: Subscription, got: Collection[Owed]) -> Subscription:
    """The subscription whose client is known to have got what it was owed. It stays the same version."""
    return replace(subscription, owed=tuple(owed for owed in subscription.owed if owed not in got))


def user_of(address: str) -> str:
    """The username in an address: without ``sip:`` or ``tel:``, and without parameters behind a semicolon."""
    scheme, colon, rest = address.partition(":")
    if colon and scheme.casefold() in ("sip", "sips", "tel"):
        address = rest.partition(";")[0]
    return address.strip()
