"""The ChatKitty client: ``from offhook.chatkitty import ChatKitty``.

It speaks to Offhook, and to any other server of the same protocol, what the JavaScript clients speak. Programs that
are not asynchronous run it in a :class:`~offhook.client.blocking.Blocking`.
"""

from offhook.client.blocking import Blocking
from offhook.client.chatkitty.client import ChatKitty
from offhook.client.chatkitty.errors import (
    AccessDeniedError,
    ChatKittyBadAnswer,
    ChatKittyConnectionError,
    ChatKittyConnectionLost,
    ChatKittyError,
    ChatKittyTimedOut,
    InternalServerError,
    InvalidRequestError,
    NoActiveSessionError,
    NotOfferedError,
    PageOutOfBoundsError,
    RateLimitedError,
    ResourceNotFoundError,
    ServiceUnavailableError,
    SessionActiveError,
    SessionEndedError,
)
from offhook.client.chatkitty.events import (
    CurrentUserChanged,
    CurrentUserOffline,
    CurrentUserOnline,
    Event,
    EventName,
    Resumed,
    SessionEnded,
    UserBlocked,
    UserDeleted,
    UserPresenceChanged,
    UserUnblocked,
    UserUpdated,
)
from offhook.client.chatkitty.operations import UserFilter
from offhook.client.chatkitty.pages import Paginator
from offhook.client.chatkitty.pictures import ExternalFile, File
from offhook.client.chatkitty.resources import CurrentUser, PageNumbers, Presence, User, UserBlockedRecord
from offhook.client.chatkitty.results import (
    CountedUsers,
    CountUsersResult,
    CurrentUserResult,
    Failed,
    GotCurrentUser,
    GotUser,
    ListBlockedRecordsResult,
    ListedBlockedRecords,
    ListedUsers,
    ListUsersResult,
    Session,
    StartedSession,
    StartSessionResult,
    TurnedPage,
    UserResult,
)
from offhook.client.emitter import EventStream
from offhook.client.errors import ClientClosed, ClientError, EventsLost
from offhook.client.reconnect import NEVER, Reconnect
from offhook.client.transport import Transport

__all__ = [
    "NEVER",
    "AccessDeniedError",
    "Blocking",
    "ChatKitty",
    "ChatKittyBadAnswer",
    "ChatKittyConnectionError",
    "ChatKittyConnectionLost",
    "ChatKittyError",
    "ChatKittyTimedOut",
    "ClientClosed",
    "ClientError",
    "CountUsersResult",
    "CountedUsers",
    "CurrentUser",
    "CurrentUserChanged",
    "CurrentUserOffline",
    "CurrentUserOnline",
    "CurrentUserResult",
    "Event",
    "EventName",
    "EventStream",
    "EventsLost",
    "ExternalFile",
    "Failed",
    "File",
    "GotCurrentUser",
    "GotUser",
    "InternalServerError",
    "InvalidRequestError",
    "ListBlockedRecordsResult",
    "ListUsersResult",
    "ListedBlockedRecords",
    "ListedUsers",
    "NoActiveSessionError",
    "NotOfferedError",
    "PageNumbers",
    "PageOutOfBoundsError",
    "Paginator",
    "Presence",
    "RateLimitedError",
    "Reconnect",
    "ResourceNotFoundError",
    "Resumed",
    "ServiceUnavailableError",
    "Session",
    "SessionActiveError",
    "SessionEnded",
    "SessionEndedError",
    "StartSessionResult",
    "StartedSession",
    "Transport",
    "TurnedPage",
    "User",
    "UserBlocked",
    "UserBlockedRecord",
    "UserDeleted",
    "UserFilter",
    "UserPresenceChanged",
    "UserResult",
    "UserUnblocked",
    "UserUpdated",
]
