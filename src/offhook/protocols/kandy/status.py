"""The numbers in ``statusCode`` of REST answers (Kandy protocol notes, 3.4)."""

from __future__ import annotations

from enum import IntEnum


class StatusCode(IntEnum):
    """What became of a request. On the wire always a JSON number: clients compare it strictly."""

    OK = 0
    PARTIAL = 2
    """Done, but for some of what was asked: a service was left out of a subscription."""
    BAD_CREDENTIALS = 4
    """Also what the UC SDK takes for "no such subscription" when it renews one."""
    INVALID_BODY = 5
    """The body is missing, is no JSON, or lacks a member."""
    LOGIN_LIMIT = 19
    LOGIN_LIMIT_TABLET = 20
    INTERNAL = 26
    NOT_AUTHORIZED = 27
    DEVICE = 29
    SERVICE_NOT_ENABLED = 35
    INVALID_VALUE = 37
    """A member is there, but its value will not do."""
    SUBSCRIPTION_NOT_FOUND = 39
    """What the Link SDK takes for "no such subscription" when it renews one."""
    NOT_FOUND = 42
    """No such call, contact or record."""
    FORCE_LOGOUT = 44
    APPLICATION_NAME = 45
    CALL_ME_TOKEN = 46
    SESSION_EXPIRED = 47
    GLARE = 49
    NO_VOICEMAIL = 52
    REJECTED_CREDENTIALS = 61
    USER_DISABLED = 62
    USER_LOCKED = 63
    CALL_ME_REALM = 64
    TOKEN_EXPIRED = 65
    BAD_REQUEST = 1004


SUBSCRIPTION_GONE = frozenset({StatusCode.BAD_CREDENTIALS, StatusCode.SUBSCRIPTION_NOT_FOUND})
"""With HTTP 404 on a renewal, the end of the subscription: the first for UC, the second for Link (3.5)."""
