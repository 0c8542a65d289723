"""What can go wrong, under the codes that Kandy.js uses (Kandy protocol notes, 10.1)."""

from __future__ import annotations

from collections.abc import Mapping

from offhook.client.errors import ClientError

CONFIGURATION = "configuration"
INVALID_CREDENTIALS = "authentication:1"
SOCKET_FAILED_UC = "authentication:2"
UNSUBSCRIBE_FAILED = "authentication:3"
SUBSCRIBE_FAILED = "authentication:4"
UPDATE_FAILED = "authentication:6"
REFRESH_FAILED = "authentication:8"
SIGN_IN_FAILED = "authentication:9"
MISSING_SERVICE = "authentication:12"
UNAVAILABLE = "authentication:13"
SOCKET_FAILED = "subscription:1"
INVALID_STATUS = "presence:1"
INVALID_ACTIVITY = "presence:2"
INVALID_USERS = "presence:4"
NO_CODE = "NO_CODE"
SEND_FAILED = "messaging:5"
FETCH_MESSAGES_FAILED = "messaging:6"
FETCH_CONVERSATIONS_FAILED = "messaging:8"

CODES: Mapping[str, str] = {
    CONFIGURATION: "The configuration has a wrong value, lacks one, or still holds a placeholder; the message names "
    "its key. Only in Python.",
    INVALID_CREDENTIALS: "The credentials lack a field, or there are none yet. As `request:error`: the server refused "
    "them with a request.",
    SOCKET_FAILED_UC: "UC: the subscription was made, but its notification socket cannot be opened.",
    UNSUBSCRIBE_FAILED: "None of the services named is subscribed to.",
    SUBSCRIBE_FAILED: "The server refused the subscription, or could not be reached. The message has its number: 4 is "
    "a wrong name or password, 19 a device too many.",
    UPDATE_FAILED: "A renewal or a change of services failed; a renewal is tried again by itself.",
    REFRESH_FAILED: "UC: the access token could not be refreshed; the client has disconnected.",
    SIGN_IN_FAILED: "UC: the server refused the name or the password, or could not be reached.",
    MISSING_SERVICE: "No service was named, neither in the call nor in the configuration.",
    UNAVAILABLE: "The server asked to be left alone for a while, more often or for longer than the client waits.",
    SOCKET_FAILED: "Link: the subscription was made, but its notification socket cannot be opened. It was ended again.",
    "39": "Link: the subscription is no longer there; `subscription:change` with the reason GONE tells the same.",
    "4": "UC: the subscription is no longer there; `auth:change` with the reason GONE tells the same.",
    INVALID_STATUS: "A presence's status is none of those that there are. Nothing was sent.",
    INVALID_ACTIVITY: "A presence's activity is none of those that there are. Nothing was sent.",
    INVALID_USERS: "Users were to be named, but were not. Nothing was sent.",
    NO_CODE: "A request about presence failed; the message says why.",
    SEND_FAILED: "The message was not sent. Link: the message says why. UC: the server could not be reached.",
    FETCH_MESSAGES_FAILED: "UC: the messages of a conversation could not be fetched, or it has no id yet: "
    "`conversation.fetch()` finds it.",
    FETCH_CONVERSATIONS_FAILED: "UC: the conversations could not be fetched, or one not deleted.",
}
"""Code → when it comes. Beside these, refused messages of UC have the server's number as their code."""


class KandyError(ClientError):
    """Something failed, as the events of Kandy.js tell it.

    Args:
        code: one of CODES, or a number of the server as text.
        message: one sentence that may be shown; never holds a secret.
        status: of HTTP, if the server answered.
        retry_after: seconds for which the server asked to be left alone, if it did.
    """

    # One class for all codes, as in Kandy.js: here the code belongs to the error, not to its class.
    code: str = "kandy"  # type: ignore[misc]

    def __init__(self, code: str, message: str, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"
