"""The ChatKitty client (ChatKitty protocol notes, 1.2 and 2)."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from types import TracebackType
from urllib.parse import quote

from offhook import __version__
from offhook.client.chatkitty.errors import ChatKittyError, NoActiveSessionError, SessionActiveError
from offhook.client.chatkitty.observers import Observers
from offhook.client.chatkitty.operations import Operations
from offhook.client.chatkitty.resources import CurrentUser
from offhook.client.chatkitty.results import Failed, Session, StartedSession, StartSessionResult
from offhook.client.chatkitty.session import Stay, Terms
from offhook.client.errors import ClientClosed
from offhook.client.reconnect import Reconnect
from offhook.client.transport import Transport, Verify

HOST = "api.chatkitty.com"
USER_AGENT = f"Offhook-Python/{__version__}"
HEART_BEAT = (10_000, 10_000)
RECONNECT = Reconnect()


class ChatKitty(Operations, Observers):
    """A client of Offhook, or of any other server that speaks ChatKitty's protocol.

    ::

        async with ChatKitty("<api key>", host="127.0.0.1:8686", is_secure=False) as kitty:
            result = await kitty.start_session("jane")
            if result.succeeded:
                async for user in (await kitty.list_users()).unwrap().paginator:
                    print(user.display_name, user.presence.online)

    One client has one session at a time. Operations give a result that either ``succeeded`` or ``failed``
    (:mod:`offhook.client.chatkitty.results`); what is wrong with a call itself is raised, and by the call, not by the
    ``await``. Every wait is bounded by ``timeout``, and ends at once when the session ends.

    A connection that is lost is made again, by the policy ``reconnect``, and the session resumed: ``on_resumed`` tells
    whether anything may have been missed. Operations that are begun meanwhile wait for it. Those that only ask are
    asked again; an action that had no answer yet fails with ChatKittyConnectionLost, as nobody knows whether it was
    done. A start that fails leaves nothing going on in the background, and may simply be tried again; there the
    JavaScript clients go on by themselves.

    Args:
        api_key: names the application.
        host: of the server, with its port and a path's prefix if it has them.
        is_secure: whether to use TLS.
        verify: how to trust the server, as for ``Transport``; such as the path of the authority that ``make run``
            names.
        transport: for connections, with a ``verify`` of its own; None makes one. Whoever passes one closes it.
        reconnect: when to come back after a loss.
        timeout: seconds for every operation.
        user_agent: what the server shows its operator.
        heart_beat: milliseconds between signs of life, sent and wanted; a server that is silent for twice the agreed
            time is given up.
    """

    def __init__(
        self,
        api_key: str,
        *,
        host: str = HOST,
        is_secure: bool = True,
        verify: Verify = True,
        transport: Transport | None = None,
        reconnect: Reconnect = RECONNECT,
        timeout: float = 30.0,
        user_agent: str = USER_AGENT,
        heart_beat: tuple[int, int] = HEART_BEAT,
    ) -> None:
        if timeout <= 0:
            raise ValueError("timeout must be over 0")
        secure = "s" if is_secure else ""
        self._shared = transport is not None
        transport = transport or Transport(verify=verify, timeout=timeout)
        Operations.__init__(self, f"http{secure}://{host}", transport, timeout)
        Observers.__init__(self)
        url = f"ws{secure}://{host}/rtm/websocket?api-key={quote(api_key, safe='')}"
        self._terms = Terms(url, user_agent, heart_beat, timeout, reconnect)
        self._stay: Stay | None = None
        self._stays: set[Stay] = set()
        self._closed = False

    @property
    def current_user(self) -> CurrentUser | None:
        """The user whose session is active, as last heard; None if there is none."""
        return None if self._stay is None else self._stay.user

    @property
    def session(self) -> Session | None:
        """The active session; None if there is none."""
        user = self.current_user
        return None if user is None else Session(user)

    @property
    def is_online(self) -> bool:
        """Whether there is a session, and it has a connection now."""
        return self._stay is not None and self._stay.online

    def start_session(
        self, username: str, auth_params: Mapping[str, object] | None = None
    ) -> Coroutine[object, object, StartSessionResult]:
        """Starts a session (2.2 to 2.4): ``session``. Cancelling it leaves none behind, on either side.

        Args:
            username: of the user; where guests are enabled, of one that is made if need be.
            auth_params: what the application, or its authentication function, wants to know, such as a password. It
                is kept for reconnects.

        Raises:
            SessionActiveError: there is one, or it is just being started; raised by the call itself.
            ClientClosed: the client is closed; raised by the call itself.
            ValueError: the username has a line end or a NUL; raised by the call itself.
            TypeError: ``auth_params`` cannot be written as JSON.
        """
        self._check_free()
        if any(character in username for character in "\r\n\0"):
            raise ValueError("A username cannot have line ends or NULs")
        return self._start(username, None if auth_params is None else dict(auth_params))

    async def _start(self, username: str, auth_params: Mapping[str, object] | None) -> StartSessionResult:
        # Since the call another start may have begun.
        self._check_free()

        def over() -> None:
            if self._stay is stay:
                self._stay = None

        stay = Stay(self._terms, self._transport, username, auth_params, self._emitter.emit, over)
        self._stay = stay
        self._stays.add(stay)
        try:
            return StartedSession(Session(await stay.begin()))
        except ChatKittyError as error:
            return Failed(error)
        finally:
            self._stays = {one for one in self._stays if not one.left}

    async def end_session(self) -> None:
        """Ends the session, and what waits for it. Nothing happens if there is none; one that starts is given up.

        While the connection is lost the session ends here only: the server ends it by its own rule.
        """
        stay = self._stay
        if stay is not None:
            await stay.end()
            self._stays.discard(stay)

    async def close(self) -> None:
        """Ends the session and whatever else goes on; the client cannot be used any more. It can be called twice."""
        self._closed = True
        try:
            for stay in tuple(self._stays):
                await stay.end()
            self._stays.clear()
        finally:
            try:
                await self._emitter.close()
            finally:
                if not self._shared:
                    await self._transport.close()

    async def __aenter__(self) -> ChatKitty:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _check_free(self) -> None:
        if self._closed:
            raise ClientClosed("The client is closed")
        if self._stay is not None:
            raise SessionActiveError("A session is active or being started; end it first")

    def _active(self) -> tuple[Stay, CurrentUser]:
        stay = self._stay
        if stay is None or stay.user is None:
            raise NoActiveSessionError("There is no session; start one first")
        return stay, stay.user
