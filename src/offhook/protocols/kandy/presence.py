"""The words of presence (Kandy protocol notes, 5.1 and 5.2)."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """Whether a user can be reached."""

    OPEN = "open"
    CLOSED = "closed"


class Activity(StrEnum):
    """What a user does. Clients refuse any other word."""

    ACTIVE = "active"
    IDLE = "idle"
    AWAY = "away"
    LUNCH = "lunch"
    OTHER = "other"
    BUSY = "busy"
    VACATION = "vacation"
    ON_THE_PHONE = "on-the-phone"
    UNKNOWN = "unknown"


class WatchAction(StrEnum):
    """What a client wants of the users it names."""

    GET = "get"
    WATCH = "watch"
    STOP = "stopwatch"
