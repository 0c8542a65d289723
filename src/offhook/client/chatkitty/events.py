"""What a ChatKitty client tells of its own accord, with its name, its type and its meaning.

===========================  ==============================  ======================================================
name                         event                           when
===========================  ==============================  ======================================================
``current_user.changed``     :class:`CurrentUserChanged`     the user is known, is different, or is gone (None)
``current_user.online``      :class:`CurrentUserOnline`      the session has a connection (again)
``current_user.offline``     :class:`CurrentUserOffline`     the connection was lost, or the session ended
``user.presence.changed``    :class:`UserPresenceChanged`    another user came or went
``user.updated``             :class:`UserUpdated`            another user's profile changed
``user.deleted``             :class:`UserDeleted`            another user was deleted (Offhook tells, others may not)
``user.blocked``             :class:`UserBlocked`            the current user blocked somebody, here or elsewhere
``user.unblocked``           :class:`UserUnblocked`          the current user unblocked somebody, here or elsewhere
``session.resumed``          :class:`Resumed`                the session goes on after a loss, complete or with a gap
``session.ended``            :class:`SessionEnded`           the session ended, and not by ``end_session``
===========================  ==============================  ======================================================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from offhook.client.chatkitty.errors import ChatKittyError
from offhook.client.chatkitty.resources import CurrentUser, User, UserBlockedRecord, read

EventName = Literal[
    "current_user.changed",
    "current_user.online",
    "current_user.offline",
    "user.presence.changed",
    "user.updated",
    "user.deleted",
    "user.blocked",
    "user.unblocked",
    "session.resumed",
    "session.ended",
]
"""The names of all events."""


@dataclass(frozen=True, slots=True)
class CurrentUserChanged:
    """The current user is known, or is different from before; None when the session has ended."""

    user: CurrentUser | None


@dataclass(frozen=True, slots=True)
class CurrentUserOnline:
    """The session has a connection."""

    user: CurrentUser


@dataclass(frozen=True, slots=True)
class CurrentUserOffline:
    """The session has no connection any more."""

    user: CurrentUser


@dataclass(frozen=True, slots=True)
class UserPresenceChanged:
    """Another user came or went: ``user.presence`` says which."""

    user: User


@dataclass(frozen=True, slots=True)
class UserUpdated:
    """Another user's profile is different."""

    user: User


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """Another user exists no more."""

    user: User


@dataclass(frozen=True, slots=True)
class UserBlocked:
    """The current user blocked ``record.user``."""

    record: UserBlockedRecord


@dataclass(frozen=True, slots=True)
class UserUnblocked:
    """The current user does not block ``user`` any more."""

    user: User


@dataclass(frozen=True, slots=True)
class Resumed:
    """The session goes on after its connection was lost.

    Attributes:
        complete: whether everything that happened meanwhile is delivered, in order. If not, events may be missing:
            fetch again what you keep.
    """

    complete: bool


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over, and the client has stopped trying.

    Attributes:
        error: why: what the server said, or the last failure when the reconnect policy allows no further attempt.
    """

    error: ChatKittyError


Event = (
    CurrentUserChanged
    | CurrentUserOnline
    | CurrentUserOffline
    | UserPresenceChanged
    | UserUpdated
    | UserDeleted
    | UserBlocked
    | UserUnblocked
    | Resumed
    | SessionEnded
)

Made = tuple[EventName, Event]

_READERS: dict[tuple[str, str], Callable[[object], Made]] = {
    ("contacts", "contact.presence.changed"): lambda it: ("user.presence.changed", UserPresenceChanged(read(it, User))),
    ("contacts", "contact.user.updated"): lambda it: ("user.updated", UserUpdated(read(it, User))),
    ("contacts", "contact.user.deleted"): lambda it: ("user.deleted", UserDeleted(read(it, User))),
    ("users", "user.user_blocklist_item.created"): lambda it: (
        "user.blocked",
        UserBlocked(read(it, UserBlockedRecord)),
    ),
    ("users", "user.user.unblocked"): lambda it: ("user.unblocked", UserUnblocked(read(it, User))),
}
"""Topic and type on the wire → what applications are told (ChatKitty protocol notes, 6.1)."""


def event_of(topic: str, kind: str, resource: object) -> Made | None:
    """What applications are told of an event on a user topic, or None if it is not for them.

    Args:
        topic: the topic's key, such as ``contacts``.
        kind: the ``type``.
        resource: as decoded.

    Raises:
        ChatKittyBadAnswer: the resource is not what the type promises.
    """
    reader = _READERS.get((topic, kind))
    return None if reader is None else reader(resource)
