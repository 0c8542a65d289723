"""One notification socket: how it gets its session, and how it ends (Kandy protocol notes, 3.8 and 4)."""

from __future__ import annotations

import asyncio

import structlog

from offhook.codes import ENDINGS, CloseReason, EndReason
from offhook.domain.limits import Bucket
from offhook.domain.sessions import Client
from offhook.domain.subscriptions import IM, Product
from offhook.errors import AccessDenied, Conflict, OffhookError
from offhook.gateways.background import in_background
from offhook.gateways.kandy import notifications
from offhook.gateways.kandy.feed import LOOK_EVERY, Feed
from offhook.gateways.kandy.gateway import Gateway
from offhook.protocols.kandy import keepalive
from offhook.server.websocket import Socket
from offhook.services.credentials import AccessProof, BearerProof
from offhook.services.hub import LiveSession
from offhook.services.logins import is_ours

FINAL = 1000
"""The close code after which clients stay away; after any other they come back, at once and for ever."""
GONE_BEFORE = 1.0
"""Seconds that a client has to close its socket itself after it was told that its subscription is gone."""
GOODBYE_AFTER = 5.0
"""Seconds that a client has to close its socket itself after it ended its subscription."""
ATTACH_AGAIN = 1.0
ATTACH_TRIES = 20
"""A socket that cannot get its session now stays open and tries again, since its client would come back at once."""
SILENCE = 60.0
"""Seconds without a word after which a client must be one that waits for the server to ask for signs of life."""

log = structlog.get_logger(__name__)


class NotificationSocket(Feed):
    """Handles one socket. Is its handler and, by what it inherits, the outlet of its session.

    Args:
        gateway: what all share.
        session_id: the session that the channel names.
        client: what is known of the client.
        proof: the token that the client showed with the channel, if it showed one.
    """

    __slots__ = ("_client", "_frames", "_heard", "_opened_at", "_proof")

    def __init__(
        self, gateway: Gateway, session_id: int, client: Client, proof: AccessProof | BearerProof | None
    ) -> None:
        super().__init__(gateway, session_id)
        self._client = client
        self._proof = proof
        self._heard = False
        self._opened_at = gateway.timers.now
        self._frames = Bucket(gateway.limits.frames, self._opened_at)

    # --- the socket's side ------------------------------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """The socket is open; it gets its session."""
        self._socket = socket
        gateway = self._gateway
        gateway.sockets.add(self)
        gateway.newest[self._session_id] = self
        gateway.timers.schedule(self._timer, LOOK_EVERY)
        in_background(self._attach())

    def received(self, data: bytes) -> None:
        """Takes one message: a sign of life, which is not answered, or the question for one, which is."""
        socket, gateway = self._socket, self._gateway
        if socket is None:
            return
        self._heard = True
        gateway.metrics.frames_in += 1
        if self._frames.take(gateway.limits.frames, gateway.timers.now) > 0:
            socket.close(CloseReason.RATE_LIMITED)
        elif keepalive.parse(data) is keepalive.Word.CHECK:
            socket.send(keepalive.ACK)

    def closed(self, reason: CloseReason, detail: str) -> None:
        """The socket is closed. Its session, unless that has ended, waits for a new one."""
        self._socket = None
        gateway = self._gateway
        gateway.sockets.discard(self)
        if gateway.newest.get(self._session_id) is self:
            del gateway.newest[self._session_id]
        gateway.timers.cancel(self._timer)
        gateway.metrics.closed(reason)
        self._make_room()
        live, self._live = self._live, None
        if live is not None and not self._over:
            in_background(gateway.sessions.suspend(live, reason, detail))

    # --- the session ------------------------------------------------------------------------------------------------

    async def _attach(self) -> None:
        try:
            live = await self._get_session()
        except Exception as error:
            # Closed with any other code, its client would come back at once.
            if not isinstance(error, OffhookError):
                log.exception("attach_failed", session=self._session_id)
            elif self._socket is not None:
                log.warning("attach_refused", session=self._session_id, error=error.message)
            self._close(_closing(error))
            return
        if live is None:
            self._say_gone()
        elif self._socket is None:
            await self._gateway.sessions.suspend(live, CloseReason.PEER_LOST)
        elif not self._over and not live.gone:
            self._live = live
            self._uc = live.subscription is not None and live.subscription.product is Product.UC
            self._gap = not live.recovered
            if live.subscription is not None and IM in live.subscription.services:
                self._im_before = live.subscription.im_since
            self._window.sent = dict(live.acked)
            if live.subscription is not None and live.subscription.owed:
                # It may have asked for that a moment ago.
                self._ripen_later(live.subscription)
            else:
                self._ripe = live.subscription
                self._sync()

    async def _get_session(self) -> LiveSession | None:
        # A token of ours is checked with the rest; others take their time.
        proof = self._proof
        ours = isinstance(proof, AccessProof) and is_ours(proof.token)
        check = self._gateway.logins.expecting(proof.token) if proof is not None and ours else None
        tries = 0
        while True:
            try:
                if proof is not None and check is None:
                    await self._check_proof(proof)
                # Proofs take their time, and not all the same: the socket that came last is to have the session.
                if self._gateway.newest.get(self._session_id) is not self:
                    raise Conflict("A newer socket has the session")
                return await self._gateway.sessions.attach(self._session_id, self._client, self, check)
            except OffhookError as error:
                tries += 1
                if not error.retryable or tries == ATTACH_TRIES:
                    raise
            await asyncio.sleep(ATTACH_AGAIN)

    async def _check_proof(self, proof: AccessProof | BearerProof) -> None:
        """The channel is the credential; a token beside it must at least be a good one of the same user."""
        holder = await self._gateway.subscriptions.holder(self._session_id)
        if holder is None:
            return
        application, username = holder
        await self._gateway.credentials.identify(application, username, [proof], self._client.address)

    # --- the end ----------------------------------------------------------------------------------------------------

    def ended(self, reason: EndReason, text: str) -> None:
        """The session has ended: the client is told so, unless it was the one to end it."""
        if reason is not EndReason.CLIENT:
            self._say_gone(text or ENDINGS[reason].text)
            return
        self._stop()
        asyncio.get_running_loop().call_later(GOODBYE_AFTER, self._close, CloseReason.SESSION_ENDED)

    def _say_gone(self, detail: str | None = None) -> None:
        socket = self._socket
        if socket is not None and not self._over:
            socket.send(notifications.encode_gone(f"g{self._session_id}"))
            self._gateway.metrics.frames_out += 1
            self._gateway.gone.add(self._session_id)
            asyncio.get_running_loop().call_later(GONE_BEFORE, self._close, CloseReason.SESSION_ENDED, detail)
        self._stop()

    def _stop(self) -> None:
        """Nothing more is told."""
        self._over = True
        self._live = None
        self._make_room()

    def drop(self, reason: CloseReason) -> None:
        """A newer socket has the session."""
        self._stop()
        self._close(reason)

    def goodbye(self) -> None:
        """The server restarts: the client comes back by itself."""
        if self._socket is not None:
            self._socket.close(CloseReason.DRAINING)

    def _close(self, reason: CloseReason, detail: str | None = None) -> None:
        """Closes so that the client stays away."""
        if self._socket is not None:
            self._socket.close(reason, detail, FINAL)

    # --- time -------------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        super()._on_timer()
        socket, timers = self._socket, self._gateway.timers
        silent = timers.now - self._opened_at >= SILENCE - timers.tick
        if socket is not None and silent and not self._heard and self._live is not None:
            socket.send(keepalive.CHECK)


def _closing(error: Exception) -> CloseReason:
    """Why a socket is closed that cannot have its session."""
    if isinstance(error, AccessDenied):
        return CloseReason.ACCESS_DENIED
    return CloseReason.SUPERSEDED if isinstance(error, Conflict) else CloseReason.INTERNAL
