"""Listening to a client's events: by name, each with its own type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, overload

from offhook.client.emitter import STREAM_SIZE, EventStream, Handler
from offhook.client.kandy import events
from offhook.client.kandy.core import Core
from offhook.client.kandy.events import Event

Off = Callable[[], None]
"""Takes a handler off again."""


class Listening:
    """What a client has to be listened to.

    Args:
        core: of the client.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    @overload
    def on(self, name: Literal["auth:change"], handler: Handler[events.AuthChange]) -> Off: ...
    @overload
    def on(self, name: Literal["auth:credentialsSet"], handler: Handler[events.AuthCredentialsSet]) -> Off: ...
    @overload
    def on(self, name: Literal["auth:error"], handler: Handler[events.AuthError]) -> Off: ...
    @overload
    def on(self, name: Literal["auth:resub"], handler: Handler[events.AuthResub]) -> Off: ...
    @overload
    def on(self, name: Literal["subscription:change"], handler: Handler[events.SubscriptionChange]) -> Off: ...
    @overload
    def on(self, name: Literal["subscription:resub"], handler: Handler[events.SubscriptionResub]) -> Off: ...
    @overload
    def on(self, name: Literal["subscription:error"], handler: Handler[events.SubscriptionError]) -> Off: ...
    @overload
    def on(self, name: Literal["ws:change"], handler: Handler[events.WsChange]) -> Off: ...
    @overload
    def on(self, name: Literal["notification:received"], handler: Handler[events.NotificationReceived]) -> Off: ...
    @overload
    def on(self, name: Literal["request:error"], handler: Handler[events.RequestError]) -> Off: ...
    @overload
    def on(self, name: Literal["presence:change"], handler: Handler[events.PresenceChange]) -> Off: ...
    @overload
    def on(self, name: Literal["presence:selfChange"], handler: Handler[events.PresenceSelfChange]) -> Off: ...
    @overload
    def on(self, name: Literal["presence:error"], handler: Handler[events.PresenceError]) -> Off: ...
    @overload
    def on(self, name: Literal["conversations:new"], handler: Handler[events.ConversationsNew]) -> Off: ...
    @overload
    def on(self, name: Literal["conversations:change"], handler: Handler[events.ConversationsChange]) -> Off: ...
    @overload
    def on(self, name: Literal["messages:change"], handler: Handler[events.MessagesChange]) -> Off: ...
    @overload
    def on(self, name: Literal["messages:error"], handler: Handler[events.MessagesError]) -> Off: ...
    @overload
    def on(self, name: str, handler: Handler[Event]) -> Off: ...
    # What handlers take differs by the name, as the overloads say; here it can be any of them.
    def on(self, name: str, handler: Callable[..., object]) -> Off:
        """Calls a handler for every event of a name.

        Args:
            name: see :data:`~offhook.client.kandy.events.EVENTS`.
            handler: a function, called at once, or a coroutine function, whose events are handled one after the other
                in the background.

        Returns:
            What takes the handler off again.

        Raises:
            ValueError: there are no events of this name.
        """
        _check(name)
        return self._core.emitter.on(name, handler)

    def off(self, name: str, handler: Callable[..., object]) -> None:
        """Takes a handler off; nothing happens if it is not there. Raises ValueError as :meth:`on`."""
        _check(name)
        self._core.emitter.off(name, handler)

    def events(self, *names: str, size: int = STREAM_SIZE) -> EventStream[Event]:
        """Begins to gather events for ``async for``; it ends when the client is destroyed.

        Args:
            names: of the events; all if none is given.
            size: how many may wait to be taken.

        Raises:
            ValueError: there are no events of such a name.
        """
        for name in names:
            _check(name)
        return self._core.emitter.stream(*names, size=size)


def _check(name: str) -> None:
    if name not in events.EVENTS:
        raise ValueError(f"There are no events {name!r}; there are {', '.join(events.EVENTS)}")
