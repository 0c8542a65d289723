"""What a Link client is subscribed to, and who it is (Kandy protocol notes, 2.1, 2.6 and 3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from offhook.client.kandy import credentials
from offhook.client.kandy.core import Core
from offhook.client.kandy.credentials import Credentials, Mode
from offhook.client.kandy.errors import INVALID_CREDENTIALS, MISSING_SERVICE, UNSUBSCRIBE_FAILED, KandyError
from offhook.client.kandy.events import (
    AuthChange,
    AuthCredentialsSet,
    AuthError,
    Reason,
    SubscriptionChange,
    SubscriptionError,
    SubscriptionResub,
)
from offhook.client.kandy.requests import Options
from offhook.client.kandy.section import Section
from offhook.client.kandy.subscription import Lifecycle
from offhook.client.kandy.values import Subscriptions

AVAILABLE = ("call", "Presence", "IM")
"""Services that can be asked for."""


class LinkVoice:
    """Tells of the subscription by the events ``subscription:…``."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def changed(self) -> None:
        """It has begun or ended, or is about to."""
        self._core.emit(SubscriptionChange())

    def failed(self, error: KandyError) -> None:
        """It could not be made or changed."""
        self._core.emit(SubscriptionError(error))

    def renewed(self, attempt: int, error: KandyError | None) -> None:
        """It was renewed, or could not be."""
        self._core.emit(SubscriptionResub(attempt, error is not None, error))

    def lost(self, reason: Reason, retry_after: float | None) -> None:
        """It ended, and not by the app."""
        self._core.emit(SubscriptionChange(reason, retry_after))


class Services:
    """``client.services``: what a Link client is subscribed to.

    Args:
        core: of the client.
        lifecycle: of the client.
    """

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self._core = core
        self._lifecycle = lifecycle
        self._voice = LinkVoice(core)

    async def subscribe(
        self,
        services: Iterable[str],
        options: Mapping[str, object] | None = None,
        *,
        force_log_out: bool | None = None,
        client_correlator: str | None = None,
    ) -> None:
        """Subscribes to services; on a live subscription, to these too.

        When it returns, notifications arrive. Which services were granted says :meth:`get_subscriptions`; each call
        of the subscription's life is told by ``subscription:change``, every failure by ``subscription:error`` too.
        A call that is cancelled ends what it has made, for which it takes up to some seconds.

        Args:
            services: such as ``["call", "Presence", "IM"]``.
            options: ``forceLogOut`` and ``clientCorrelator``, as Kandy.js takes them.
            force_log_out: end the user's oldest subscription if there are too many.
            client_correlator: a name of the app's own for the subscription.

        Raises:
            KandyError: ``authentication:1`` without credentials, ``authentication:12`` without services,
                ``authentication:4`` and ``authentication:13`` if the server refuses, ``subscription:1`` if no socket
                can be opened; on a live subscription ``authentication:6``, or ``39`` if it is gone;
                ``configuration``.
            ClientClosed: the client was destroyed.
        """
        wanted = names(services)
        given = Section(options, "")
        chosen = Options(
            given.flag("forceLogOut", False) if force_log_out is None else force_log_out,
            given.text("clientCorrelator", "") or None if client_correlator is None else client_correlator,
        )
        await self._core.run(self.do_subscribe(wanted, chosen), self.undo)

    async def unsubscribe(self, services: Iterable[str] | None = None) -> None:
        """Gives up services. With the last of them the subscription ends, whether the server can be told or not.

        Args:
            services: those to give up; all if left out.

        Raises:
            KandyError: ``authentication:3`` if none of them is subscribed to, ``authentication:6`` or ``39`` if the
                server refuses to take some away.
            ClientClosed: the client was destroyed.
        """
        await self._core.run(self._unsubscribe(None if services is None else names(services)))

    def get_subscriptions(self) -> Subscriptions:
        """What the client is subscribed to now."""
        return Subscriptions(self._lifecycle.services, AVAILABLE, self._lifecycle.pending)

    async def do_subscribe(self, services: tuple[str, ...], options: Options) -> bool:
        """Does what :meth:`subscribe` does. Returns whether the subscription is a new one."""
        core = self._core
        try:
            _ = core.rest.username
            if not services:
                raise KandyError(MISSING_SERVICE, "At least one service must be named")
            check_servers(core)
        except KandyError as error:
            core.emit(SubscriptionError(error))
            raise
        return await self._lifecycle.subscribe(services, options, self._voice)

    async def undo(self, new: bool) -> None:
        """Takes back what a call has made that was cancelled at that very moment."""
        if new:
            await self._core.run(self._lifecycle.unsubscribe())

    async def _unsubscribe(self, services: tuple[str, ...] | None) -> None:
        if not self._lifecycle.active or (services is not None and not set(services) & set(self._lifecycle.services)):
            error = KandyError(UNSUBSCRIBE_FAILED, "None of these services is subscribed to")
            self._core.emit(SubscriptionError(error))
            raise error
        await self._lifecycle.unsubscribe(services)


class LinkSignIn:
    """Credentials of a Link client, and ``connect`` of its older interface.

    Args:
        core: of the client.
        lifecycle: of the client.
        services: of the client.

    Attributes:
        pending: whether ``connect`` or ``disconnect`` is under way.
        error: why ``connect`` failed last.
    """

    def __init__(self, core: Core, lifecycle: Lifecycle, services: Services) -> None:
        self._core = core
        self._lifecycle = lifecycle
        self._services = services
        self._lock = asyncio.Lock()
        self.pending = False
        self.error: KandyError | None = None

    def set(self, given: Mapping[str, object]) -> None:
        """Takes credentials. Nothing is sent.

        Raises:
            KandyError: ``authentication:1``.
        """
        try:
            found = credentials.link(given)
            if self._lifecycle.username not in (None, found.username):
                raise KandyError(INVALID_CREDENTIALS, "Unsubscribe before you set the credentials of another user")
        except KandyError as error:
            self._core.emit(AuthError(error))
            raise
        self._core.rest.credentials = found
        self._core.emit(AuthChange())

    def update(self, given: Mapping[str, object]) -> None:
        """Takes another token for the same user. Nothing is sent.

        Raises:
            KandyError: ``authentication:1``.
        """
        try:
            replaced = _replaced(self._core.rest.credentials, credentials.Fields(given))
        except KandyError as error:
            self._core.emit(AuthError(error))
            raise
        self._core.rest.credentials = replaced
        self._core.emit(AuthChange())

    async def connect(self, given: Mapping[str, object], options: Options) -> None:
        """Takes credentials, and subscribes to the services of the configuration."""
        async with self._lock:
            self.error = None
            try:
                self.set(given)
                if not (services := self._core.config.services):
                    raise self._told(
                        KandyError(
                            MISSING_SERVICE, "authentication.subscription.service must name what to subscribe to"
                        )
                    )
                self.pending = True
                self._core.emit(AuthCredentialsSet())
                await self._services.do_subscribe(services, options)
            except KandyError as error:
                if self.pending:
                    self._told(error)
                self.error = error
                raise
            finally:
                self.pending = False
            self._core.emit(AuthChange())

    async def disconnect(self) -> None:
        """Unsubscribes from everything and forgets the credentials."""
        async with self._lock:
            self.pending = True
            try:
                await self._lifecycle.unsubscribe()
            finally:
                self.pending = False
                # Cancelled before it began, it has not ended.
                if not self._lifecycle.active:
                    self._core.rest.credentials = None
                self._core.emit(AuthChange())

    def _told(self, error: KandyError) -> KandyError:
        self.error = error
        self.pending = False
        self._core.emit(AuthError(error))
        return error


def names(services: Iterable[str]) -> tuple[str, ...]:
    """Services, each once.

    Raises:
        TypeError: they are none.
    """
    found = (services,) if isinstance(services, str) else tuple(dict.fromkeys(services))
    if not all(isinstance(service, str) for service in found):
        raise TypeError("Services are named by texts")
    return tuple(service for service in found if service)


def check_servers(core: Core) -> None:
    """Raises KandyError ``configuration`` if a server is not named as it must be."""
    _ = core.config.rest.base, core.config.websocket.base


def _replaced(present: Credentials | None, given: credentials.Fields) -> Credentials:
    kinds = {"accessToken": Mode.TOKEN, "bearerAccessToken": Mode.BEARER, "oauthToken": Mode.BEARER}
    for name, mode in kinds.items():
        if present is not None and mode is present.mode and (token := given(name)):
            return present.with_token(token)
    raise KandyError(
        INVALID_CREDENTIALS, "A token can be updated by one of the same kind: access_token, bearer_access_token"
    )
