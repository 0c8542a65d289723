"""How applications are told what happens in a session (ChatKitty protocol notes, 5.1, 5.2 and 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

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
from offhook.client.emitter import STREAM_SIZE, Emitter, EventStream, Handler

E = TypeVar("E", bound=Event)
Remove = Callable[[], None]


class Observers:
    """Takes handlers of events: functions or coroutine functions that are given the event.

    Each method returns what takes the handler off again. Handlers outlive sessions; ``close`` of the client ends them.
    An event from the server is acknowledged once plain handlers have been called, so one that the program died over is
    delivered again when its session is resumed.
    """

    def __init__(self) -> None:
        self._emitter: Emitter[Event] = Emitter()

    def on_current_user_changed(self, handler: Callable[[CurrentUserChanged], object]) -> Remove:
        """The current user is known, or is different, or (None) the session has ended."""
        return self._on("current_user.changed", handler)

    def on_current_user_online(self, handler: Callable[[CurrentUserOnline], object]) -> Remove:
        """The session has a connection: at its start, and after each loss."""
        return self._on("current_user.online", handler)

    def on_current_user_offline(self, handler: Callable[[CurrentUserOffline], object]) -> Remove:
        """The connection was lost, or the session ended."""
        return self._on("current_user.offline", handler)

    def on_user_presence_changed(self, handler: Callable[[UserPresenceChanged], object]) -> Remove:
        """Another user came or went."""
        return self._on("user.presence.changed", handler)

    def on_user_updated(self, handler: Callable[[UserUpdated], object]) -> Remove:
        """Another user's profile changed."""
        return self._on("user.updated", handler)

    def on_user_deleted(self, handler: Callable[[UserDeleted], object]) -> Remove:
        """Another user was deleted. Offhook tells this; other servers may not."""
        return self._on("user.deleted", handler)

    def on_user_blocked(self, handler: Callable[[UserBlocked], object]) -> Remove:
        """The current user blocked somebody, in this session or another."""
        return self._on("user.blocked", handler)

    def on_user_unblocked(self, handler: Callable[[UserUnblocked], object]) -> Remove:
        """The current user unblocked somebody, in this session or another."""
        return self._on("user.unblocked", handler)

    def on_resumed(self, handler: Callable[[Resumed], object]) -> Remove:
        """The session goes on after a loss; ``complete`` tells whether all that was missed is delivered.

        It is only what the server vouches for: with one that says nothing of it, it is False.
        """
        return self._on("session.resumed", handler)

    def on_session_ended(self, handler: Callable[[SessionEnded], object]) -> Remove:
        """The session is over without ``end_session``: the server ended it, or would not have it back, or the
        reconnect policy allows no further attempt.
        """
        return self._on("session.ended", handler)

    def events(self, *names: EventName, size: int = STREAM_SIZE) -> EventStream[Event]:
        """Gathers events from now on, for ``async for``. It ends with the client.

        Args:
            names: of the events (:mod:`offhook.client.chatkitty.events`); all if none is given.
            size: how many may wait to be taken; see :class:`~offhook.client.emitter.EventStream`.
        """
        return self._emitter.stream(*names, size=size)

    def _on(self, name: EventName, handler: Callable[[E], object]) -> Remove:
        # Under a name there are events of its one type only.
        return self._emitter.on(name, cast(Handler[Event], handler))
