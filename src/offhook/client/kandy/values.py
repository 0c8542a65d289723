"""What a client's calls and getters return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from offhook.client.errors import ClientError


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who the client is.

    Attributes:
        username: empty if there are no credentials.
        access_token: UC: the present one; None if there is none.
        refresh_token: UC: the present one; None if there is none.
    """

    username: str = ""
    access_token: str | None = field(default=None, repr=False)
    refresh_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """What the client is subscribed to.

    Attributes:
        subscribed: services granted.
        available: services that can be asked for.
        is_pending: whether a change is under way.
    """

    subscribed: tuple[str, ...]
    available: tuple[str, ...]
    is_pending: bool


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """How far what was asked for was granted.

    Attributes:
        requested: services asked for.
        received: services granted.
        missing: the rest.
        status: whether that is all, some, or nothing.
        services: service → whether it was granted.
    """

    requested: tuple[str, ...] = ()
    received: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    status: Literal["FULL", "PARTIAL", "NONE"] = "NONE"
    services: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Connection:
    """How ``connect`` stands.

    Attributes:
        is_connected: whether there is a subscription. It is True also while its socket is being opened again.
        is_pending: whether the client is connecting or disconnecting.
        error: why connecting failed last, or None.
        subscription: what was granted.
    """

    is_connected: bool
    is_pending: bool
    error: ClientError | None
    subscription: SubscriptionState


@dataclass(frozen=True, slots=True)
class Presence:
    """How a user is shown.

    Attributes:
        user: the name as it was given to ``fetch`` or ``subscribe``.
        status: ``open`` or ``closed``.
        activity: ``active``, ``idle``, ``away``, ``lunch``, ``other``, ``busy``, ``vacation``, ``on-the-phone`` or
            ``unknown``.
        note: the user's own words, or None.
    """

    user: str
    status: str
    activity: str
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a message of UC has beside its text.

    Attributes:
        mime: such as ``image/png``, or ``application/vdn.kandy.json``.
        url: where it is; the server wants to see the access token there, as the parameter ``token``.
        name: of the file.
    """

    mime: str
    url: str
    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message of a conversation.

    Attributes:
        id: given by the server.
        sender: a user name.
        text: of the message; empty if it has nothing but attachments.
        timestamp: when it was sent, or if that is not told, when it came; UTC.
        incoming: whether another user sent it.
        has_attachments: UC: whether it has more than its text.
        attachments: UC: what that is. One that came does not say:
            :meth:`~offhook.client.kandy.conversations.Conversation.fetch_attachments` gets it.
    """

    id: str
    sender: str
    text: str
    timestamp: datetime
    incoming: bool
    has_attachments: bool = False
    attachments: tuple[Attachment, ...] = ()
