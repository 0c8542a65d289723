"""How a UC client connects, and keeps its token fresh (Kandy protocol notes, 2.4, 2.5 and 3.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from offhook.client.errors import ConnectionFailed, TimedOut
from offhook.client.kandy import credentials
from offhook.client.kandy.core import Core
from offhook.client.kandy.credentials import Credentials, Mode, UcSignIn
from offhook.client.kandy.errors import INVALID_CREDENTIALS, MISSING_SERVICE, REFRESH_FAILED, SIGN_IN_FAILED, KandyError
from offhook.client.kandy.events import AuthChange, AuthCredentialsSet, AuthError, AuthResub, Reason
from offhook.client.kandy.requests import Options
from offhook.client.kandy.rest import DIALECT, Query, words
from offhook.client.kandy.services import check_servers
from offhook.client.kandy.subscription import Lifecycle
from offhook.client.reconnect import Backoff
from offhook.protocols.kandy import replies
from offhook.protocols.kandy.paths import Resource, uc_path
from offhook.protocols.kandy.wrappers import UC

SHORTEST = 1.0
"""Seconds; the least time between two refreshes."""
TOO_MANY = 429
"""The HTTP status of a server that is asked too often."""


def refresh_delay(expires: float, margin: float) -> float:
    """Seconds until a token is refreshed: the margin before its end; halfway if it lives no longer than the margin.

    Args:
        expires: seconds that it lives.
        margin: seconds.
    """
    return max(expires - margin if expires > margin else expires / 2, SHORTEST)


class UcSession:
    """The sign-in of a UC client.

    Args:
        core: of the client.
        lifecycle: of the client.

    Attributes:
        pending: whether it is connecting or disconnecting.
        error: why connecting failed last.
        refresh_token: for the next access token; empty if there is none.
    """

    def __init__(self, core: Core, lifecycle: Lifecycle) -> None:
        self._core = core
        self._lifecycle = lifecycle
        self._lock = asyncio.Lock()
        self._refresher: asyncio.Task[None] | None = None
        self._expires: float | None = None
        self.pending = False
        self.error: KandyError | None = None
        self.refresh_token = ""

    # --- what the lifecycle tells (its Voice) -----------------------------------------------------------------------

    def changed(self) -> None:
        """Told by this class itself, once with the sign-in."""

    def failed(self, error: KandyError) -> None:
        """Told by this class itself."""

    def renewed(self, attempt: int, error: KandyError | None) -> None:
        """The subscription was renewed, or could not be."""
        self._core.emit(AuthResub(attempt, error is not None, error))

    def lost(self, reason: Reason, retry_after: float | None) -> None:
        """The subscription ended, and not by the app."""
        self._forget()
        self._core.emit(AuthChange(True, reason, retry_after))

    # --- what the app does ------------------------------------------------------------------------------------------

    async def connect(self, given: Mapping[str, object]) -> None:
        """Signs in and subscribes; ends first what there is.

        Raises:
            KandyError: ``authentication:1``, ``authentication:2``, ``authentication:4``, ``authentication:9``,
                ``authentication:12``, ``configuration``.
        """
        async with self._lock:
            try:
                asked = credentials.uc(given)
                services = self._core.config.services
                if not services:
                    raise KandyError(MISSING_SERVICE, "authentication.subscription.service must not be empty")
                check_servers(self._core)
            except KandyError as error:
                self.error = error
                self._core.emit(AuthError(error))
                raise
            if self._lifecycle.active:
                await self._leave()
            self.pending, self.error = True, None
            self._core.emit(AuthChange())
            try:
                await self._sign_in(asked)
                self._core.emit(AuthCredentialsSet())
                await self._lifecycle.subscribe(services, Options(), self)
            except KandyError as error:
                self._forget()
                self.pending, self.error = False, error
                self._core.emit(AuthError(error))
                raise
            except BaseException:
                self._forget()
                self.pending = False
                self._core.emit(AuthChange())
                raise
            self.pending = False
            self._schedule()
            self._core.emit(AuthChange())

    async def disconnect(self) -> None:
        """Ends the connection; nothing happens if there is none."""
        async with self._lock:
            await self._leave()

    def update(self, given: Mapping[str, object]) -> None:
        """Takes another token for the same user. Nothing is sent.

        Raises:
            KandyError: ``authentication:1``.
        """
        present = self._core.rest.credentials
        try:
            fields = credentials.Fields(given)
            token = fields("oauthToken" if present is not None and present.mode is Mode.BEARER else "accessToken")
            if present is None or not token:
                raise KandyError(
                    INVALID_CREDENTIALS, "A token can be updated by one of the same kind: access_token, oauth_token"
                )
            self.refresh_token = fields("refreshToken") or self.refresh_token
        except KandyError as error:
            self._core.emit(AuthError(error))
            raise
        self._core.rest.credentials = present.with_token(token)
        self._core.emit(AuthChange())

    async def _leave(self) -> None:
        if not self._lifecycle.active:
            return
        self.pending = True
        self._core.emit(AuthChange())
        try:
            await self._lifecycle.unsubscribe()
        finally:
            # Cancelled before it began, it has not ended.
            if self._lifecycle.username is None:
                self._forget()
            self.pending = False
            self._core.emit(AuthChange())

    def _forget(self) -> None:
        self._core.rest.credentials = None
        self.refresh_token = ""
        self._expires = None
        refresher, self._refresher = self._refresher, None
        if refresher is not None and refresher is not asyncio.current_task():
            refresher.cancel()

    # --- tokens -----------------------------------------------------------------------------------------------------

    async def _sign_in(self, asked: UcSignIn) -> None:
        if asked.password:
            expires = [("expires", f"{asked.expires:g}")] if asked.expires is not None else []
            headers = {"Authorization": "basic " + credentials.basic(asked.username, asked.password)}
            if self._core.config.agent_header:
                headers["X-Cpaas-Agent"] = f"cpaas-js-sdk/{DIALECT}"
            self._take(
                asked.username, await self._tokens(Resource.UC_MAKE_TOKEN, [("refresh", "y"), *expires], headers)
            )
        elif asked.access_token:
            tokens = replies.Tokens(asked.access_token, asked.refresh_token, asked.expires)
            self._take(asked.username, tokens)
        elif asked.oauth_token:
            self._core.rest.credentials = Credentials(asked.username, Mode.BEARER, asked.oauth_token)
        else:
            self._expires = asked.expires
            self._take(asked.username, await self._refreshed(asked.refresh_token))

    def _take(self, username: str, tokens: replies.Tokens) -> None:
        self._core.rest.credentials = Credentials(username, Mode.TOKEN, tokens.access)
        self.refresh_token = tokens.refresh or self.refresh_token
        self._expires = tokens.expires

    async def _refreshed(self, token: str) -> replies.Tokens:
        query = [("token", token)]
        if self._expires is not None:
            query.append(("expires", f"{self._expires:g}"))
        return await self._tokens(Resource.UC_REFRESH_TOKEN, query, {})

    async def _tokens(self, resource: Resource, query: Query, headers: Mapping[str, str]) -> replies.Tokens:
        core = self._core
        making = resource is Resource.UC_MAKE_TOKEN
        code = SIGN_IN_FAILED if making else REFRESH_FAILED
        told = "There was an error connecting." if making else "The access token could not be refreshed."
        try:
            path = uc_path(resource, version=core.config.uc_version)
            reply = await core.rest.send("GET", path, headers, query=query)
        except (ConnectionFailed, TimedOut) as error:
            raise KandyError(code, f"{told} Error: {words(error)}") from error
        if not reply.ok or replies.uc_error(reply.value) is not None:
            raise KandyError(code, f"{told} Error: {reply.reason(UC)}", reply.status, reply.retry_after)
        try:
            return replies.tokens(reply.value)
        except replies.ReplyError as error:
            raise KandyError(code, f"{told} Error: {error}", reply.status) from None

    def _schedule(self) -> None:
        """Has the token refreshed in time, if it can be and its end is known."""
        if self._core.rest.credentials is not None and self._expires is not None and self.refresh_token:
            self._refresher = self._core.tasks.start(self._keep_fresh(), "refreshing of a Kandy token")

    async def _keep_fresh(self) -> None:
        while (expires := self._expires) is not None:
            delay = refresh_delay(expires, self._core.config.early_refresh_margin)
            await asyncio.sleep(delay)
            try:
                # Until its end there is time for a server that is away to come back.
                async with asyncio.timeout(max(expires - delay, SHORTEST)):
                    tokens = await self._refreshed_in_the_end()
            except (KandyError, TimeoutError) as error:
                known = error if isinstance(error, KandyError) else None
                self._core.tasks.start(self._expire(self._refresher, known), "end of a Kandy sign-in")
                return
            self._take(self._core.rest.username, tokens)
            self._core.emit(AuthChange())

    async def _refreshed_in_the_end(self) -> replies.Tokens:
        backoff = Backoff(self._core.reconnect)
        while True:
            try:
                return await self._refreshed(self.refresh_token)
            except KandyError as error:
                # Refused is refused; who got no answer, or was asked to come later, may get one later.
                if error.status is not None and error.status < 500 and error.status != TOO_MANY:
                    raise
                asked = error.retry_after
            backoff.failed()
            await asyncio.sleep(backoff.delay(asked))

    async def _expire(self, refresher: asyncio.Task[None] | None, why: KandyError | None) -> None:
        """The token could not be refreshed: nothing more can be done with it."""
        async with self._lock:
            if self._refresher is not refresher:
                # The app has signed in anew meanwhile, or has left.
                return
            error = why or KandyError(REFRESH_FAILED, "The access token could not be refreshed before its end.")
            self.error = error
            self._core.emit(AuthError(error))
            await self._leave()
