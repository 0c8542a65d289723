"""Presence: a user is online while a session of theirs is.

Whether a user is online is stored with the user and changes only here, inside the transaction that changes the
sessions it follows from, together with the event that says so. So it cannot drift from the sessions, nor can two
nodes announce it twice.
"""

from __future__ import annotations

from datetime import datetime

from offhook.domain.accounts import User
from offhook.domain.events import PresenceChanged, application_topic
from offhook.ports import Transaction


def arrive(tx: Transaction, user: User) -> User:
    """A session of the user has become active."""
    if user.online:
        return user
    user = tx.users.set_online(user, True)
    tx.publish(application_topic(user.application_id), PresenceChanged(user))
    return user


def leave(tx: Transaction, application_id: int, user_id: int, now: datetime) -> None:
    """A session of the user was ended or has been without a connection for too long."""
    user = tx.users.get(application_id, user_id)
    if user is None or not user.online:
        return
    if any(session.online(now) for session in tx.sessions.live_of(user_id)):
        return
    user = tx.users.set_online(user, False)
    tx.publish(application_topic(application_id), PresenceChanged(user))
