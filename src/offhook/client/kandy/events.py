"""The events of a client, under the names that Kandy.js uses (Kandy protocol notes, 11).

``name`` is the same for all events of a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from offhook.client.kandy.errors import KandyError
from offhook.client.kandy.values import Message

Reason = Literal["GONE", "WS_OVERRIDDEN", "LOST_CONNECTION"]
"""Why a subscription ended that the app did not end: the server ended it, another socket has taken its channel, or
the connection could not be made again."""


@dataclass(frozen=True, slots=True)
class AuthChange:
    """Credentials, or with UC and ``connect`` the connection, have changed; getters tell the rest.

    Attributes:
        forced: the connection ended, and not by the app.
        reason: why, if it was forced.
        retry_after: seconds after which to connect again, if the server said so.
    """

    forced: bool = False
    reason: Reason | None = None
    retry_after: float | None = None
    name: ClassVar[Literal["auth:change"]] = "auth:change"


@dataclass(frozen=True, slots=True)
class AuthCredentialsSet:
    """``connect`` has credentials with which it goes on; with UC that is after a good sign-in."""

    name: ClassVar[Literal["auth:credentialsSet"]] = "auth:credentialsSet"


@dataclass(frozen=True, slots=True)
class AuthError:
    """``set_credentials`` or ``connect`` failed, or UC's token could not be refreshed."""

    error: KandyError
    name: ClassVar[Literal["auth:error"]] = "auth:error"


@dataclass(frozen=True, slots=True)
class AuthResub:
    """UC: the subscription was renewed, or could not be.

    Attributes:
        attempt_num: 1, and one more after each failure in a row.
        is_failure: whether it could not be.
        error: why.
    """

    attempt_num: int
    is_failure: bool
    error: KandyError | None = None
    name: ClassVar[Literal["auth:resub"]] = "auth:resub"


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """The services subscribed to have changed, or whether a change is under way; getters tell the rest.

    Attributes:
        reason: why the subscription ended, if the app did not end it.
        retry_after: seconds after which to subscribe again, if the server said so.
    """

    reason: Reason | None = None
    retry_after: float | None = None
    name: ClassVar[Literal["subscription:change"]] = "subscription:change"


@dataclass(frozen=True, slots=True)
class SubscriptionResub:
    """The subscription was renewed, or could not be; as :class:`AuthResub`."""

    attempt_num: int
    is_failure: bool
    error: KandyError | None = None
    name: ClassVar[Literal["subscription:resub"]] = "subscription:resub"


@dataclass(frozen=True, slots=True)
class SubscriptionError:
    """``services.subscribe`` or ``services.unsubscribe`` failed."""

    error: KandyError
    name: ClassVar[Literal["subscription:error"]] = "subscription:error"


@dataclass(frozen=True, slots=True)
class WsChange:
    """The notification socket was opened, or is not open any more.

    Attributes:
        connected: whether it is open now.
        platform: whose.
    """

    connected: bool
    platform: Literal["link", "uc"]
    name: ClassVar[Literal["ws:change"]] = "ws:change"


@dataclass(frozen=True, slots=True)
class NotificationReceived:
    """The server told something; the events of what it means follow.

    Attributes:
        notification: the whole message, as it came.
    """

    notification: Mapping[str, object]
    name: ClassVar[Literal["notification:received"]] = "notification:received"


@dataclass(frozen=True, slots=True)
class RequestError:
    """Link: the server refused the credentials of a request. The event of what failed by it follows."""

    error: KandyError
    name: ClassVar[Literal["request:error"]] = "request:error"


@dataclass(frozen=True, slots=True)
class PresenceChange:
    """The presence of a user that was fetched or is watched.

    Attributes:
        user: the name as it was given to ``fetch`` or ``subscribe``.
        status: ``open`` or ``closed``.
        activity: such as ``active``.
        note: the user's own words, or None.
    """

    user: str
    status: str
    activity: str
    note: str | None = None
    name: ClassVar[Literal["presence:change"]] = "presence:change"


@dataclass(frozen=True, slots=True)
class PresenceSelfChange:
    """The server took what the user chose; as :class:`PresenceChange`."""

    status: str
    activity: str
    note: str | None = None
    name: ClassVar[Literal["presence:selfChange"]] = "presence:selfChange"


@dataclass(frozen=True, slots=True)
class PresenceError:
    """A call about presence failed."""

    error: KandyError
    name: ClassVar[Literal["presence:error"]] = "presence:error"


@dataclass(frozen=True, slots=True)
class ConversationsNew:
    """UC: the app made a conversation.

    Attributes:
        destination: with whom.
    """

    destination: str
    name: ClassVar[Literal["conversations:new"]] = "conversations:new"


@dataclass(frozen=True, slots=True)
class ConversationsChange:
    """A conversation began with a message that came, or conversations were fetched or deleted.

    Attributes:
        destination: with whom; None if it is about several.
    """

    destination: str | None = None
    name: ClassVar[Literal["conversations:change"]] = "conversations:change"


@dataclass(frozen=True, slots=True)
class MessagesChange:
    """A message came or was sent, or the messages of a conversation were fetched.

    Attributes:
        destination: with whom the conversation is.
        message: the one that came or was sent; None if some were fetched or deleted.
    """

    destination: str
    message: Message | None = None
    name: ClassVar[Literal["messages:change"]] = "messages:change"


@dataclass(frozen=True, slots=True)
class MessagesError:
    """A message was not sent, or conversations or messages were not fetched.

    Attributes:
        error: why.
        destination: with whom the conversation is; None if it is about several.
    """

    error: KandyError
    destination: str | None = None
    name: ClassVar[Literal["messages:error"]] = "messages:error"


Event = (
    AuthChange
    | AuthCredentialsSet
    | AuthError
    | AuthResub
    | SubscriptionChange
    | SubscriptionResub
    | SubscriptionError
    | WsChange
    | NotificationReceived
    | RequestError
    | PresenceChange
    | PresenceSelfChange
    | PresenceError
    | ConversationsNew
    | ConversationsChange
    | MessagesChange
    | MessagesError
)
"""All that a client tells."""

EVENTS: Mapping[str, type[Event]] = {
    kind.name: kind
    for kind in (
        AuthChange,
        AuthCredentialsSet,
        AuthError,
        AuthResub,
        SubscriptionChange,
        SubscriptionResub,
        SubscriptionError,
        WsChange,
        NotificationReceived,
        RequestError,
        PresenceChange,
        PresenceSelfChange,
        PresenceError,
        ConversationsNew,
        ConversationsChange,
        MessagesChange,
        MessagesError,
    )
}
"""Name → class, of all events."""
