"""Who is there, and what they do (Kandy protocol notes, 5)."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from offhook.client.errors import ConnectionFailed, TimedOut
from offhook.client.kandy.core import Core
from offhook.client.kandy.errors import INVALID_ACTIVITY, INVALID_STATUS, INVALID_USERS, NO_CODE, KandyError
from offhook.client.kandy.events import PresenceChange, PresenceError, PresenceSelfChange
from offhook.client.kandy.rest import words
from offhook.client.kandy.values import Presence
from offhook.protocols.kandy import bodies, incoming
from offhook.protocols.kandy.incoming import Notification
from offhook.protocols.kandy.paths import Resource, user_path
from offhook.protocols.kandy.presence import Activity, Status, WatchAction
from offhook.protocols.kandy.status import StatusCode
from offhook.protocols.kandy.wrappers import wrapper

W = TypeVar("W", bound=StrEnum)


class PresenceService:
    """``client.presence``: who is there.

    Watches belong to the subscription. They live on when its socket is opened again; after a new subscription the app
    watches anew, as with Kandy.js.

    Args:
        core: of the client.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._known: dict[str, Presence] = {}
        self._asked: set[str] = set()
        self._self: Presence | None = None

    async def update(self, status: str, activity: str, note: str | None = None) -> None:
        """Chooses how the user is shown; ``presence:selfChange`` follows.

        Args:
            status: ``open`` or ``closed``.
            activity: ``active``, ``idle``, ``away``, ``lunch``, ``other``, ``busy``, ``vacation``, ``on-the-phone`` or
                ``unknown``.
            note: the user's own words.

        Raises:
            KandyError: ``presence:1``, ``presence:2``, or ``NO_CODE`` if the server refuses; told by
                ``presence:error`` too.
            ClientClosed: the client was destroyed.
        """
        await self._core.run(self._update(status, activity, note))

    async def fetch(self, users: str | Iterable[str]) -> None:
        """Asks once for the presence of users; it comes by ``presence:change``.

        Args:
            users: one name or several.

        Raises:
            KandyError: ``presence:4``, or ``NO_CODE`` if the server refuses; told by ``presence:error`` too.
            ClientClosed: the client was destroyed.
        """
        await self._core.run(self._watch(users, WatchAction.GET))

    async def subscribe(self, users: str | Iterable[str]) -> None:
        """Watches users: their presence comes now and whenever it changes. As :meth:`fetch`."""
        await self._core.run(self._watch(users, WatchAction.WATCH))

    async def unsubscribe(self, users: str | Iterable[str]) -> None:
        """Watches users no more. As :meth:`fetch`."""
        await self._core.run(self._watch(users, WatchAction.STOP))

    def get(self, user: str) -> Presence | None:
        """What is known of a user's presence; None if nothing is."""
        return self._known.get(user)

    def get_all(self) -> list[Presence]:
        """What is known of everybody's presence."""
        return list(self._known.values())

    def get_self(self) -> Presence | None:
        """What the user chose with this client; None if nothing."""
        return self._self

    def begin(self) -> None:
        """A new subscription, which watches nobody."""
        self._asked.clear()

    def forget(self) -> None:
        """Another user has signed in."""
        self._known.clear()
        self._asked.clear()
        self._self = None

    def take(self, notification: Notification) -> None:
        """Takes a notification. Raises IncomingError."""
        shown = incoming.presence(notification)
        # Servers that cannot tell several clients of one user apart tell all of them.
        if shown.name in self._asked:
            self._known[shown.name] = Presence(shown.name, shown.status, shown.activity, shown.note)
            self._core.emit(PresenceChange(shown.name, shown.status, shown.activity, shown.note))

    async def _update(self, status: str, activity: str, note: str | None) -> None:
        try:
            # Now, for it may be forgotten when the answer comes.
            user = self._core.rest.username
            chosen = _word(Status, status, INVALID_STATUS), _word(Activity, activity, INVALID_ACTIVITY)
            await self._ask(Resource.PRESENCE, bodies.presence(*chosen, note))
        except KandyError as error:
            raise self._told(error) from error.__cause__
        self._self = Presence(user, status, activity, note)
        self._core.emit(PresenceSelfChange(status, activity, note))

    async def _watch(self, users: str | Iterable[str], action: WatchAction) -> None:
        names = [users] if isinstance(users, str) else list(dict.fromkeys(users))
        try:
            if not names or not all(isinstance(name, str) and name for name in names):
                raise KandyError(INVALID_USERS, "At least one user must be named")
            new = set(names) - self._asked
            # What is asked for may be told before the answer is.
            if action is not WatchAction.STOP:
                self._asked |= new
            try:
                await self._ask(Resource.PRESENCE_WATCHER, bodies.watch(names, action))
            except KandyError:
                self._asked -= new
                raise
        except KandyError as error:
            raise self._told(error) from error.__cause__
        if action is WatchAction.STOP:
            self._asked -= set(names)

    async def _ask(self, resource: Resource, content: bytes) -> None:
        core = self._core
        try:
            path = user_path(core.rest.username, resource, version=core.config.version)
            reply = await core.rest.ask("POST", path, content=content)
        except (ConnectionFailed, TimedOut) as error:
            raise KandyError(NO_CODE, words(error)) from error
        name = wrapper(resource)
        if not reply.ok or reply.code(name) != StatusCode.OK:
            raise KandyError(NO_CODE, reply.reason(name), reply.status)

    def _told(self, error: KandyError) -> KandyError:
        self._core.emit(PresenceError(error))
        return error


def _word(kind: type[W], value: str, code: str) -> W:
    try:
        return kind(value)
    except ValueError:
        raise KandyError(code, f"{kind.__name__} must be one of {', '.join(kind)}") from None
