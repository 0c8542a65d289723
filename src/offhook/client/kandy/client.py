"""A client of Kandy's protocol, for Link and for UC (Kandy protocol notes, 2 to 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType

from offhook.client.kandy.config import Config
from offhook.client.kandy.conversations import ConversationService
from offhook.client.kandy.core import Core
from offhook.client.kandy.errors import INVALID_CREDENTIALS, KandyError
from offhook.client.kandy.events import AuthError
from offhook.client.kandy.listening import Listening
from offhook.client.kandy.notifications import Hear, Inbox
from offhook.client.kandy.presence import PresenceService
from offhook.client.kandy.requests import Options
from offhook.client.kandy.section import Section
from offhook.client.kandy.services import LinkSignIn, Services
from offhook.client.kandy.subscription import Lifecycle
from offhook.client.kandy.uc import UcSession
from offhook.client.kandy.values import Connection, SubscriptionState, UserInfo
from offhook.client.reconnect import Reconnect
from offhook.client.transport import Transport, Verify
from offhook.protocols.kandy import incoming
from offhook.protocols.kandy.incoming import Notification


class Client(Listening):
    """A client, made by :func:`offhook.kandy.create`.

    It is an asynchronous context manager, which destroys it in the end. Everything that goes wrong is told by an event,
    as with Kandy.js, and raised by the call that waits for it, with the same code. A call that is cancelled leaves the
    client as if it had not been made, or had been made: nothing in between.

    Args:
        config: as read.
        transport: carries everything; None makes one that the client closes itself.
        reconnect: when to come back.
        verify: how the transport that it makes is to trust the server.

    Attributes:
        config: as given.
        services: what a Link client is subscribed to.
        presence: who is there.
        conversation: what users write to each other.
    """

    def __init__(
        self, config: Config, transport: Transport | None, reconnect: Reconnect, verify: Verify = True
    ) -> None:
        self._own_transport = transport is None
        super().__init__(Core(config, transport or Transport(verify=verify), reconnect))
        core = self._core
        self.config = config
        self.presence = PresenceService(core)
        self.conversation = ConversationService(core)
        handlers: dict[str, Hear] = {
            "presenceWatcher": self.presence.take,
            "IM": self.conversation.take_link,
            "im": self.conversation.take_uc,
            "gone": self._gone,
            "websocketOverridden": self._overridden,
        }
        self._lifecycle = Lifecycle(core, Inbox(core, handlers).take, self._began)
        self.services = Services(core, self._lifecycle)
        self._link = LinkSignIn(core, self._lifecycle, self.services)
        self._uc = UcSession(core, self._lifecycle)
        self._user = ""
        self._destroying: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        shown = self._core.rest.credentials
        return f"<Kandy {self.config.product} client of {'nobody' if shown is None else shown.username}>"

    # --- who it is --------------------------------------------------------------------------------------------------

    def set_credentials(
        self,
        credentials: Mapping[str, object] | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        authname: str | None = None,
        bearer_access_token: str | None = None,
        access_token: str | None = None,
        hmac_token: str | None = None,
    ) -> None:
        """Link: says who the client is (2.1). Nothing is sent: a wrong password shows when it subscribes.

        As all that is no coroutine but tells events, it belongs into the thread of the event loop; in a
        :class:`~offhook.client.blocking.Blocking`, ``call`` calls it there.

        Needs a username, and the first of these that is there: ``hmac_token``; ``access_token``; ``authname`` and
        ``password``; ``bearer_access_token``; ``password``.

        Args:
            credentials: a dictionary, as Kandy.js takes it.
            username: the same by keyword, with its domain.
            password: of the user.
            authname: the name that goes with the password, if it is not the username.
            bearer_access_token: shown as ``Authorization: Bearer``.
            access_token: shown as ``?token=``.
            hmac_token: shown as ``x-token``, once.

        Raises:
            KandyError: ``authentication:1``: something is missing, or another user is subscribed, or it is a UC
                client; told by ``auth:error`` too.
            ClientClosed: the client was destroyed.
        """
        self._core.check_open()
        if self._core.uc:
            error = KandyError(INVALID_CREDENTIALS, "UC's clients have no set_credentials: connect takes them")
            self._core.emit(AuthError(error))
            raise error
        self._link.set(
            _merged(
                credentials,
                username=username,
                password=password,
                authname=authname,
                bearerAccessToken=bearer_access_token,
                accessToken=access_token,
                hmacToken=hmac_token,
            )
        )

    async def connect(
        self,
        credentials: Mapping[str, object] | None = None,
        options: Mapping[str, object] | None = None,
        *,
        username: str | None = None,
        password: str | None = None,
        authname: str | None = None,
        access_token: str | None = None,
        bearer_access_token: str | None = None,
        hmac_token: str | None = None,
        refresh_token: str | None = None,
        oauth_token: str | None = None,
        expires: float | None = None,
        force_log_out: bool | None = None,
    ) -> None:
        """Signs in, and subscribes to the services that the configuration names.

        The way of UC, and the older one of Link. UC takes a username with the first of these that is there:
        ``password``, ``access_token``, ``oauth_token``, ``refresh_token``; Link what :meth:`set_credentials` takes.
        UC's tokens are refreshed in time, ``early_refresh_margin`` before their end. A call that is cancelled ends
        what it has made, for which it takes up to some seconds.

        Args:
            credentials: a dictionary, as Kandy.js takes it.
            options: ``forceLogOut`` and ``clientCorrelator`` for Link, as Kandy.js takes them.
            username: the same by keyword, with its domain.
            password: of the user.
            authname: Link: the name that goes with the password, if it is not the username.
            access_token: shown as ``?token=``.
            bearer_access_token: Link: shown as ``Authorization: Bearer``.
            hmac_token: Link: shown as ``x-token``, once.
            refresh_token: UC: for access tokens.
            oauth_token: UC: shown as ``Authorization: Bearer``.
            expires: UC: seconds that access tokens are to live, or that the one given still lives.
            force_log_out: Link: end the user's oldest subscription if there are too many.

        Raises:
            KandyError: ``authentication:1``, ``authentication:4``, ``authentication:9`` for refused credentials,
                ``authentication:2`` or ``subscription:1`` if no socket can be opened, ``authentication:12``,
                ``authentication:13``, ``configuration``; told by ``auth:error`` too.
            ClientClosed: the client was destroyed.
        """
        given = _merged(
            credentials,
            username=username,
            password=password,
            authname=authname,
            accessToken=access_token,
            bearerAccessToken=bearer_access_token,
            hmacToken=hmac_token,
            refreshToken=refresh_token,
            oauthToken=oauth_token,
            expires=expires,
        )
        if self._core.uc:
            await self._core.run(self._uc.connect(given), self._disconnect_again)
            return
        section = Section(options, "")
        chosen = Options(
            section.flag("forceLogOut", False) if force_log_out is None else force_log_out,
            section.text("clientCorrelator", "") or None,
        )
        await self._core.run(self._link.connect(given, chosen), self._disconnect_again)

    async def disconnect(self) -> None:
        """Ends what :meth:`connect` began, whether the server can be told or not, and forgets the credentials.

        Raises:
            ClientClosed: the client was destroyed.
        """
        await self._core.run(self._uc.disconnect() if self._core.uc else self._link.disconnect())

    def update_token(
        self,
        token: Mapping[str, object] | None = None,
        *,
        access_token: str | None = None,
        bearer_access_token: str | None = None,
        oauth_token: str | None = None,
        refresh_token: str | None = None,
    ) -> None:
        """Shows another token of the same kind from now on (2.6). Nothing is sent, and the open socket stays.

        Args:
            token: a dictionary, as Kandy.js takes it.
            access_token: the same by keyword.
            bearer_access_token: Link.
            oauth_token: UC.
            refresh_token: UC: for further access tokens.

        Raises:
            KandyError: ``authentication:1``: there are no credentials of this kind; told by ``auth:error`` too.
            ClientClosed: the client was destroyed.
        """
        self._core.check_open()
        given = _merged(
            token,
            accessToken=access_token,
            bearerAccessToken=bearer_access_token,
            oauthToken=oauth_token,
            refreshToken=refresh_token,
        )
        (self._uc if self._core.uc else self._link).update(given)

    def get_user_info(self) -> UserInfo:
        """Who the client is."""
        shown = self._core.rest.credentials
        if shown is None:
            return UserInfo()
        if not self._core.uc:
            return UserInfo(shown.username)
        return UserInfo(shown.username, shown.secret, self._uc.refresh_token or None)

    def get_connection(self) -> Connection:
        """How :meth:`connect` stands."""
        signing = self._uc if self._core.uc else self._link
        requested, received = self._lifecycle.requested, self._lifecycle.services
        missing = tuple(service for service in requested if service not in received)
        return Connection(
            is_connected=self._lifecycle.active,
            is_pending=signing.pending,
            error=signing.error,
            subscription=SubscriptionState(
                requested=requested,
                received=received,
                missing=missing,
                status="NONE" if not received else "PARTIAL" if missing else "FULL",
                services={service: service in received for service in requested},
            ),
        )

    # --- its end ----------------------------------------------------------------------------------------------------

    async def destroy(self) -> None:
        """Ends the subscription at the server, and everything that goes on, in at most some seconds.

        Calls under way raise ClientClosed, streams of events end. It may be called as often as one likes, and from a
        handler of events too.
        """
        self._core.closed = True
        if self._destroying is None:
            self._destroying = asyncio.create_task(self._shut_down(), name="end of a Kandy client")
        try:
            # Whoever gives up waiting does not stop it.
            await asyncio.shield(self._destroying)
        finally:
            await self._core.emitter.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.destroy()

    async def _shut_down(self) -> None:
        core = self._core
        await core.end_calls()
        await self._lifecycle.shut_down()
        await core.tasks.close()
        core.rest.credentials = None
        if self._own_transport:
            await core.transport.close()

    async def _disconnect_again(self, _: None) -> None:
        await self.disconnect()

    # --- what it hears ----------------------------------------------------------------------------------------------

    def _began(self) -> None:
        user = self._core.rest.username
        if user != self._user:
            # Nobody is to see what another user saw.
            self.presence.forget()
            self.conversation.forget()
            self._user = user
        self.presence.begin()

    def _gone(self, notification: Notification) -> None:
        self._lifecycle.lose("GONE", incoming.retry_after(notification))

    def _overridden(self, notification: Notification) -> None:
        self._lifecycle.lose("WS_OVERRIDDEN")


def _merged(given: Mapping[str, object] | None, **keywords: object) -> dict[str, object]:
    """A dictionary and keywords in one."""
    return {**(given or {}), **{name: value for name, value in keywords.items() if value is not None}}
