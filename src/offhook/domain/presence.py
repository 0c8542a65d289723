"""Presence: what others see of a user, in words that both protocols have something for.

A user chooses a status as free text (``AVAILABLE``, ``BUSY``, ``In a meeting``), may be shown as *closed* although
they are there, and may add a note. Clients that know a fixed set of activities see the one that the status means; any
other status is ``other``, with the status itself as the note.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from offhook.domain.accounts import AVAILABLE, User, UserChanges


class Activity(StrEnum):
    """What a user does."""

    ACTIVE = "active"
    IDLE = "idle"
    AWAY = "away"
    LUNCH = "lunch"
    OTHER = "other"
    BUSY = "busy"
    VACATION = "vacation"
    ON_THE_PHONE = "on-the-phone"
    UNKNOWN = "unknown"


_STATUSES = {
    activity: AVAILABLE if activity is Activity.ACTIVE else activity.value.upper().replace("-", "_")
    for activity in Activity
}
_ACTIVITIES = {status: activity for activity, status in _STATUSES.items()} | {
    "ACTIVE": Activity.ACTIVE,
    "ONLINE": Activity.ACTIVE,
    "DO_NOT_DISTURB": Activity.BUSY,
}


@dataclass(frozen=True, slots=True)
class Presence:
    """What others see of a user.

    Attributes:
        open: whether the user can be reached.
        activity: what the user does.
        note: what the user says of it; empty if nothing.
    """

    open: bool
    activity: Activity
    note: str = ""


NOT_THERE = Presence(False, Activity.UNKNOWN)


def presence_of(user: User | None) -> Presence:
    """The presence of a user; of one who is offline, or does not exist, nothing is known."""
    if user is None or not user.online:
        return NOT_THERE
    if user.status is None:
        return Presence(not user.closed, Activity.ACTIVE, user.note)
    activity = _ACTIVITIES.get(user.status.upper().replace("-", "_").replace(" ", "_"))
    if activity is None:
        return Presence(not user.closed, Activity.OTHER, user.note or user.status)
    return Presence(not user.closed, activity, user.note)


def choosing(presence: Presence) -> UserChanges:
    """What to change about a user who chooses a presence."""
    return UserChanges(status=_STATUSES[presence.activity], closed=not presence.open, note=presence.note)
