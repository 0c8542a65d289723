"""What goes out on a connection: events, answers, errors and the end (ChatKitty protocol notes, 2.6 and 3)."""

from __future__ import annotations

import asyncio

from offhook.codes import CLOSINGS, ENDINGS, CloseReason, EndReason
from offhook.domain.events import Topic
from offhook.errors import AccessDenied, OffhookError, TooLarge, Unavailable
from offhook.gateways.chatkitty.errors import error_body, refusal_body
from offhook.gateways.chatkitty.events import encode_answer, encode_event
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.subscriptions import Subscriptions
from offhook.ports import Publication
from offhook.protocols import stomp
from offhook.server.websocket import Socket
from offhook.services.hub import LiveSession

CONGESTION_LOOK = 0.01
"""Seconds between two looks whether a client that gets what it missed has caught up."""
ERRORS = "errors"
"""The key of the error queue among the subscriptions."""


class ProtocolError(OffhookError):
    """The client broke the protocol; the same frame would fail again."""

    code = "invalid_input"


class Outgoing:
    """The sending half of a connection. Is the outlet of its session.

    Nothing here waits, and nothing is sent once the connection is to close.

    Args:
        gateway: what connections share.
        base_url: the URL under which the client reaches this server.
    """

    __slots__ = ("_base_url", "_gateway", "_live", "_owed", "_replies", "_sent_at", "_socket", "_subscriptions")

    def __init__(self, gateway: Gateway, base_url: str) -> None:
        self._gateway = gateway
        self._base_url = base_url
        self._socket: Socket | None = None
        self._live: LiveSession | None = None
        self._subscriptions = Subscriptions()
        self._owed = 0
        self._replies = 0
        self._sent_at = gateway.timers.now

    # --- for the session --------------------------------------------------------------------------------------------

    def deliver(self, publication: Publication) -> None:
        """Sends an event to the subscriptions that want it."""
        socket = self._socket
        if socket is None:
            return
        messages = publication.encoded.get(self._base_url)
        if messages is None:
            messages = encode_event(publication, self._base_url)
        fallback = None
        origin = publication.origin
        if origin is not None and self._live is not None and origin.session_id == self._live.id:
            messages = encode_answer(publication, self._base_url)
            # The client waits for its answer on whatever topic it has.
            fallback = self._subscriptions.any_but(ERRORS)
        for key, message in messages:
            subscription = self._subscriptions.get(key, fallback)
            if subscription is not None:
                socket.send(subscription.prefix or subscription.make_prefix(), message)
                if subscription.acks:
                    self._owed += 1
                else:
                    self._seen(publication.topic, publication.position.offset)

    async def ready(self) -> None:
        """Waits until the client has taken most of what was sent, or is gone."""
        # What was sent in this tick is written at its end.
        await asyncio.sleep(0)
        socket = self._socket
        while socket is not None and socket.congested:
            await asyncio.sleep(CONGESTION_LOOK)
            socket = self._socket

    def ended(self, reason: EndReason, text: str) -> None:
        """The session has ended: the client is told so that it stays away."""
        self._live = None
        ending = ENDINGS[reason]
        self._fail(AccessDenied(text or ending.text), CloseReason.SESSION_ENDED, ending.websocket)

    def drop(self, reason: CloseReason) -> None:
        """Closes the connection without a word: the session goes on elsewhere."""
        self._live = None
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(reason)

    def changed(self) -> None:
        """Only subscriptions change; see ``hub.Outlet``."""

    def gap(self) -> None:
        """What is missing cannot be told any more: the client is told to come back, and will be told to start over."""
        self._fail(Unavailable("Some events were missed; connect again"), CloseReason.INTERNAL)

    def saved(self, proof: int) -> None:
        """What is sent does not depend on it; see ``hub.Outlet``."""

    def goodbye(self) -> None:
        """The server restarts: the client is told to come back, and its session waits for it."""
        self._fail(Unavailable(CLOSINGS[CloseReason.DRAINING].text), CloseReason.DRAINING)

    def _seen(self, topic: Topic, offset: int) -> None:
        live = self._live
        if live is not None and offset > live.acked.get(topic, 0):
            live.acked[topic] = offset
            self._gateway.reaper.acked(live)

    # --- answers ----------------------------------------------------------------------------------------------------

    def _send(self, frame: bytes) -> None:
        if self._socket is not None:
            self._socket.send(frame)
            self._gateway.metrics.frames_out += 1
            self._sent_at = self._gateway.timers.now

    def _reply(self, subscription_id: str, destination: str, body: bytes) -> None:
        self._replies += 1
        prefix = stomp.message_prefix(subscription_id, destination)
        self._send(prefix + stomp.message_tail(f"r-{self._replies}", body))

    def _receipt(self, frame: stomp.Frame) -> None:
        receipt = frame.headers.get("receipt")
        if receipt is not None:
            self._send(stomp.encode_receipt(receipt))

    def _report(self, error: OffhookError, header: str, value: str | None) -> None:
        """Puts an error on the error queue. Without a correlation it would fail all of a client's requests."""
        self._gateway.metrics.errors.add(error.code)
        queue = self._subscriptions.get(ERRORS)
        if queue is not None and value is not None:
            self._replies += 1
            body = error_body(error)
            self._send(
                (queue.prefix or queue.make_prefix())
                + stomp.message_tail(f"e-{self._replies}", body, extra={header: value})
            )

    def _fail(self, error: OffhookError, reason: CloseReason, code: int | None = None) -> None:
        """Tells the client with an ERROR, and closes."""
        self._close_with(stomp.encode_error(error.message, error_body(error)), reason, code)

    def _refuse(self, error: OffhookError) -> None:
        self._gateway.metrics.errors.add(error.code)
        reason = CloseReason.OVERLOADED if error.retryable else CloseReason.ACCESS_DENIED
        self._close_with(stomp.encode_error(error.message, refusal_body(error)), reason)

    def _fail_protocol(
        self,
        message: str,
        receipt: str | None,
        reason: CloseReason | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        body = error_body(TooLarge(message, 0) if reason is CloseReason.TOO_LARGE else ProtocolError(message))
        self._close_with(stomp.encode_error(message, body, receipt, extra), reason or CloseReason.PROTOCOL_ERROR)

    def _close_with(self, frame: bytes, reason: CloseReason, code: int | None = None) -> None:
        """Sends the last frame. From here on nothing is taken from the client, and nothing counts as sent to it."""
        self._send(frame)
        socket, self._socket = self._socket, None
        if socket is not None:
            socket.close(reason, None, code)
