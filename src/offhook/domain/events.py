"""Events, and the topics they are published to.

An event carries the whole new value of what it speaks of, so that applying it twice does no harm, and applying all
of them in order to what a client knew gives what it would fetch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeAlias

from offhook.domain.accounts import User

Topic = NewType("Topic", str)
"""What events are published to: ``user.{id}`` or ``application.{id}``."""


def user_topic(user_id: int) -> Topic:
    """What concerns this user alone."""
    return Topic(f"user.{user_id}")


def application_topic(application_id: int) -> Topic:
    """What every user of the application may know."""
    return Topic(f"application.{application_id}")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a topic's history.

    Attributes:
        epoch: names the history; another epoch means another history, with which offsets cannot be compared.
        offset: counts the topic's events, from 1; 0 is before the first.
    """

    epoch: str
    offset: int


@dataclass(frozen=True, slots=True)
class UserUpdated:
    """A user's profile or chosen status changed. Published to the user and to the application."""

    user: User


@dataclass(frozen=True, slots=True)
class PresenceChanged:
    """A user came online, went offline or chose another status. Published to the application."""

    user: User


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """A user is gone. Published to the user and to the application."""

    user: User


@dataclass(frozen=True, slots=True)
class UserBlocked:
    """A user blocked another. Published to the blocking user."""

    user: User
    blocked_at: str
    """ISO 8601, UTC."""


@dataclass(frozen=True, slots=True)
class UserUnblocked:
    """A user lifted a block. Published to the blocking user."""

    user: User


Event: TypeAlias = UserUpdated | PresenceChanged | UserDeleted | UserBlocked | UserUnblocked
EVENT_TYPES: tuple[type[Event], ...] = (UserUpdated, PresenceChanged, UserDeleted, UserBlocked, UserUnblocked)


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that caused an event, so that the client that made it can be told which event answers it.

    Attributes:
        session_id: the acting session.
        receipt: the client's own name for the request.
    """

    session_id: int
    receipt: str
