"""Events, and the topics they are published to.

An event carries the whole new value of what it speaks of, so that applying it twice does no harm, and applying all
of them in order to what a client knew gives what it would fetch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType, TypeAlias

from offhook.domain.accounts import User
from offhook.domain.messages import Message

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
    """A user came online, went offline or chose another status. Published to the application.

    Published to another user alone, it tells that user how the first one is from now on to them, because of a block.
    """

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


UserEvent: TypeAlias = UserUpdated | PresenceChanged | UserDeleted | UserBlocked | UserUnblocked


@dataclass(frozen=True, slots=True)
class MessageSent:
    """A user was sent a message. Published to the recipient."""

    message: Message


Event: TypeAlias = UserEvent | MessageSent
EVENT_TYPES: tuple[type[Event], ...] = (
    UserUpdated,
    PresenceChanged,
    UserDeleted,
    UserBlocked,
    UserUnblocked,
    MessageSent,
)


def subject_of(event: Event) -> int:
    """Id of the user whom an event is about: whom it shows, or who sent the message."""
    return event.message.sender_id if isinstance(event, MessageSent) else event.user.id


def name_in(event: Event) -> str:
    """Name of the user whom an event is about."""
    return event.message.sender if isinstance(event, MessageSent) else event.user.name


@dataclass(frozen=True, slots=True)
class Origin:
    """The request that caused an event, so that the client that made it can be told which event answers it.

    Attributes:
        session_id: the acting session.
        receipt: the client's own name for the request.
    """

    session_id: int
    receipt: str
