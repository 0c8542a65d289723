"""One ChatKitty connection: STOMP frames in, STOMP frames out, and the session between (ChatKitty protocol notes, 2-3).

Frames are handled strictly in the order in which they came: while one waits for the database, those after it wait for
it, and when too many wait, reading stops. Nothing here is awaited for an event that goes out.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine

import structlog

from offhook.codes import CloseReason, EndReason
from offhook.domain.events import Origin, Topic
from offhook.domain.limits import Bucket
from offhook.errors import InternalError, NotFound, OffhookError, RateLimited, TooLarge
from offhook.gateways.background import in_background
from offhook.gateways.chatkitty import actions, relays
from offhook.gateways.chatkitty.connect import HEART_BEAT_MS, abandon, connected, open_session
from offhook.gateways.chatkitty.errors import as_offhook_error
from offhook.gateways.chatkitty.events import parse_ack
from offhook.gateways.chatkitty.gateway import Gateway, Opening
from offhook.gateways.chatkitty.outgoing import ERRORS, Outgoing, ProtocolError
from offhook.gateways.chatkitty.resources import relay_body
from offhook.gateways.chatkitty.subscriptions import Subscription
from offhook.gateways.chatkitty.transactions import TransactionError, Transactions
from offhook.protocols import stomp
from offhook.protocols.chatkitty import destinations
from offhook.server.timers import Timer
from offhook.server.websocket import Socket
from offhook.services.hub import LiveSession

BEAT_AFTER = 8.0
"""Seconds of silence after which a heart-beat is sent: well within the promise, whatever the timers' grain."""
MIN_TOLERANCE = 75.0
"""Seconds of a client's silence that are always suffered: browsers let the timers of hidden pages run once a minute."""
RELEASE_AFTER = 5.0
"""Seconds after which a client gets its events although it has not subscribed to all topics that have any."""
GOODBYE_AFTER = 5.0
"""Seconds that a client has to close the connection itself after its DISCONNECT was answered."""
EVENT_TOPICS = frozenset({"self", "contacts", "users"})
"""The topics that have events; clients subscribe to them in one go, the last of these last."""

log = structlog.get_logger(__name__)


class Connection(Outgoing):
    """Handles one connection. Is the handler of its socket and, by what it inherits, the outlet of its session."""

    __slots__ = (
        "_beats",
        "_connected_at",
        "_decoder",
        "_frames",
        "_heard_at",
        "_opening",
        "_requests",
        "_task",
        "_timer",
        "_tolerance",
        "_topics",
        "_transactions",
        "_waiting",
        "_waiting_bytes",
    )

    def __init__(self, gateway: Gateway, opening: Opening) -> None:
        super().__init__(gateway, opening.base_url)
        self._opening: Opening | None = opening
        self._decoder = stomp.Decoder(gateway.stomp_limits)
        self._topics: tuple[Topic, ...] | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: deque[stomp.Frame] | None = None
        self._waiting_bytes = 0
        self._transactions: Transactions | None = None
        now = gateway.timers.now
        self._frames = Bucket(gateway.limits.frames, now)
        self._requests = Bucket(gateway.limits.requests, now)
        self._heard_at = self._connected_at = now
        self._tolerance = 0.0
        self._beats = False
        self._timer = Timer(self._on_timer)

    # --- the socket's side ------------------------------------------------------------------------------------------

    def opened(self, socket: Socket) -> None:
        """The socket is open; the client has a while to say CONNECT."""
        self._socket = socket
        self._gateway.connections.add(self)
        self._gateway.timers.schedule(self._timer, self._gateway.limits.connect_timeout)

    def received(self, data: bytes) -> None:
        """Takes one message; it may hold any part of a frame, or several."""
        now = self._heard_at = self._gateway.timers.now
        error: stomp.StompError | None = None
        try:
            frames = self._decoder.feed(data)
        except stomp.StompError as caught:
            frames, error = list(caught.frames), caught
        for frame in frames:
            if self._socket is None:
                return
            self._gateway.metrics.frames_in += 1
            if frame.command == "ACK" and self._owed > 0:
                # Who acknowledges what was sent is not to be blamed for how much that was.
                self._owed -= 1
            elif self._frames.take(self._gateway.limits.frames, now) > 0:
                self._fail(RateLimited("Too many frames", 5.0), CloseReason.RATE_LIMITED)
                return
            if self._task is not None:
                self._wait(frame)
            else:
                self._handle(frame)
        if self._waiting:
            self._waiting_bytes += len(data)
            if self._waiting_bytes > self._gateway.limits.max_waiting and self._socket is not None:
                self._socket.pause()
        if error is not None and self._socket is not None:
            self._gateway.metrics.protocol_errors.add(error.kind.value)
            too_large = error.kind is stomp.ErrorKind.TOO_LARGE
            self._fail_protocol(error.message, error.receipt, CloseReason.TOO_LARGE if too_large else None)

    def alive(self, data: bytes) -> None:
        """A WebSocket pong came: the client lives, even if its heart-beats are throttled."""
        self._heard_at = self._gateway.timers.now

    def closed(self, reason: CloseReason, detail: str) -> None:
        """The socket is closed. The session, if it was not ended, waits to be resumed."""
        self._socket = None
        self._gateway.connections.discard(self)
        self._gateway.timers.cancel(self._timer)
        self._waiting = self._transactions = None
        self._gateway.metrics.closed(reason)
        live, self._live = self._live, None
        if live is not None:
            in_background(self._gateway.sessions.suspend(live, reason, detail))

    # --- frames -----------------------------------------------------------------------------------------------------

    def _wait(self, frame: stomp.Frame) -> None:
        if self._waiting is None:
            self._waiting = deque()
        self._waiting.append(frame)

    def _spawn(self, work: Coroutine[object, object, None]) -> None:
        self._task = in_background(work)
        self._task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and task.exception() is not None:
            self._fail(InternalError(), CloseReason.INTERNAL)
        while self._waiting and self._task is None and self._socket is not None:
            self._handle(self._waiting.popleft())
        if self._waiting is not None and not self._waiting and self._socket is not None:
            self._waiting = None
            self._waiting_bytes = 0
            self._socket.resume()

    def _handle(self, frame: stomp.Frame) -> None:
        handler = _HANDLERS.get(frame.command)
        if handler is None:
            self._fail_protocol(f"A client does not send {frame.command}", frame.headers.get("receipt"))
        elif self._live is None and frame.command not in ("CONNECT", "STOMP"):
            if self._opening is not None:
                self._fail_protocol("The first frame must be CONNECT", frame.headers.get("receipt"))
            else:
                self._receipt(frame)
        else:
            handler(self, frame)

    def _connect(self, frame: stomp.Frame) -> None:
        if self._opening is None:
            self._fail_protocol("There was a CONNECT already", None)
            return
        opening, self._opening = self._opening, None
        if stomp.negotiate_version(frame.header("accept-version")) is None:
            self._fail_protocol("Only STOMP 1.2 is spoken here", None, extra={"version": stomp.VERSION})
            return
        try:
            beats = stomp.parse_heart_beat(frame.header("heart-beat"))
        except stomp.StompError as error:
            self._fail_protocol(error.message, None)
            return
        beat = stomp.negotiate(beats, (HEART_BEAT_MS, HEART_BEAT_MS))
        self._beats = beat.send_every_ms > 0
        self._tolerance = max(MIN_TOLERANCE, 2.2 * beat.expect_every_ms / 1000) if beat.expect_every_ms else 0.0
        self._spawn(self._start(frame, opening))

    async def _start(self, frame: stomp.Frame, opening: Opening) -> None:
        try:
            live, resumed = await open_session(self._gateway, opening, frame, self)
        except Exception as error:
            self._refuse(_logged(error, "start_failed"))
            return
        if self._socket is None:
            await abandon(self._gateway, live, resumed)
            return
        self._live = live
        self._topics = live.topics
        self._send(connected(self._gateway, frame, live, resumed))
        self._connected_at = self._gateway.timers.now
        self._gateway.timers.schedule(self._timer, RELEASE_AFTER)

    def _subscribe(self, frame: stomp.Frame) -> None:
        headers = frame.headers
        subscription_id, destination = headers.get("id"), headers.get("destination")
        if not subscription_id or destination is None:
            self._fail_protocol("SUBSCRIBE needs an id and a destination", headers.get("receipt"))
            return
        local = destinations.local_part(destination)
        if local is not None:
            self._relay(frame, subscription_id, destination, local)
            return
        if destination in destinations.ERROR_QUEUES:
            self._add(ERRORS, subscription_id, destination, frame)
        elif destination != "undefined":
            topic = destinations.parse_user_topic(destination)
            if topic is not None and self._live is not None and topic[0] == self._live.user_id:
                self._add(topic[1], subscription_id, destination, frame)
                if topic[1] in EVENT_TOPICS:
                    self._may_release()
            else:
                error = NotFound("There is no such destination, or it is not yours")
                self._report(error, "subscription-id", subscription_id)
        self._receipt(frame)

    def _add(self, key: str, subscription_id: str, destination: str, frame: stomp.Frame) -> None:
        full = self._subscriptions.count >= self._gateway.limits.max_subscriptions
        if full and not self._subscriptions.remove(subscription_id):
            limit = self._gateway.limits.max_subscriptions
            self._report(TooLarge("Too many subscriptions", limit), "subscription-id", subscription_id)
            return
        acks = frame.header("ack") in ("client", "client-individual")
        self._subscriptions.add(key, Subscription(subscription_id, destination, acks))

    def _relay(self, frame: stomp.Frame, subscription_id: str, destination: str, local: str) -> None:
        live = self._live
        if live is None or not self._may_request("subscription-id", subscription_id):
            return
        quick = relays.QUICK.get(local)
        if quick is not None:
            resource = quick(self._gateway, live, self._base_url)
            self._reply(subscription_id, destination, relay_body(resource))
            self._receipt(frame)
        else:
            self._spawn(self._answer(frame, live, subscription_id, destination, local))

    async def _answer(
        self, frame: stomp.Frame, live: LiveSession, subscription_id: str, destination: str, local: str
    ) -> None:
        began, outcome = time.perf_counter(), "ok"
        try:
            resource = await relays.answer(self._gateway, live, self._base_url, local, frame)
        except Exception as error:
            shown = _logged(error, "relay_failed")
            outcome = shown.code
            self._report(shown, "subscription-id", subscription_id)
        else:
            self._reply(subscription_id, destination, relay_body(resource))
        self._receipt(frame)
        self._gateway.metrics.request("relay", outcome, time.perf_counter() - began)

    def _message(self, frame: stomp.Frame) -> None:
        if self._deferred(frame):
            return
        destination = frame.headers.get("destination")
        if destination is None:
            self._fail_protocol("SEND needs a destination", frame.headers.get("receipt"))
        elif destination == "undefined":
            self._receipt(frame)
        elif self._live is not None and self._may_request("receipt-id", frame.headers.get("receipt")):
            self._spawn(self._act(frame, self._live, destination))

    async def _act(self, frame: stomp.Frame, live: LiveSession, destination: str) -> None:
        began, outcome = time.perf_counter(), "ok"
        receipt = frame.headers.get("receipt")
        try:
            if len(frame.body) > self._gateway.limits.max_body:
                raise TooLarge("The body is too large", self._gateway.limits.max_body)
            if live.held:
                await self._gateway.hub.release(live)
            origin = None if receipt is None else Origin(live.id, receipt)
            await actions.perform(self._gateway, live, self._base_url, destination, frame.body, origin)
        except Exception as error:
            shown = _logged(error, "action_failed")
            outcome = shown.code
            self._report(shown, "receipt-id", receipt)
        self._receipt(frame)
        self._gateway.metrics.request("action", outcome, time.perf_counter() - began)

    def _unsubscribe(self, frame: stomp.Frame) -> None:
        subscription_id = frame.headers.get("id")
        if subscription_id is None:
            self._fail_protocol("UNSUBSCRIBE needs an id", frame.headers.get("receipt"))
            return
        self._subscriptions.remove(subscription_id)
        self._receipt(frame)

    def _ack(self, frame: stomp.Frame) -> None:
        if self._deferred(frame):
            return
        topics = self._topics
        acked = parse_ack(frame.headers.get("id", ""))
        # Events go out in the order of their offsets, so an acknowledged one acknowledges those before it.
        if acked is not None and topics is not None:
            self._seen(topics[0] if acked[0] == "u" else topics[1], acked[1])
        if "receipt" in frame.headers:
            self._receipt(frame)

    def _nack(self, frame: stomp.Frame) -> None:
        if not self._deferred(frame):
            self._receipt(frame)

    def _disconnect(self, frame: stomp.Frame) -> None:
        live = self._live
        if live is not None:
            self._spawn(self._leave(frame, live))

    async def _leave(self, frame: stomp.Frame, live: LiveSession) -> None:
        try:
            await self._gateway.sessions.end_live(live, EndReason.CLIENT)
        except OffhookError as error:
            # The client is gone all the same; its session ends when nobody resumes it.
            log.warning("end_failed", session=live.id, error=error.message)
            await self._gateway.sessions.suspend(live, CloseReason.PEER_CLOSED)
        self._live = None
        self._receipt(frame)
        self._gateway.timers.schedule(self._timer, GOODBYE_AFTER)

    # --- transactions -----------------------------------------------------------------------------------------------

    def _deferred(self, frame: stomp.Frame) -> bool:
        """Keeps a frame for its transaction's COMMIT, if it has one. Returns whether it is not to be handled now."""
        name = frame.headers.get("transaction")
        if name is None:
            return False
        try:
            self._open_transactions().keep(name, frame)
        except TransactionError as error:
            self._fail_protocol(error.message, frame.headers.get("receipt"))
        return True

    def _open_transactions(self) -> Transactions:
        if self._transactions is None:
            limits = self._gateway.limits
            self._transactions = Transactions(limits.max_transactions, limits.max_body)
        return self._transactions

    def _begin(self, frame: stomp.Frame) -> None:
        try:
            self._open_transactions().begin(frame.headers.get("transaction"))
        except TransactionError as error:
            self._fail_protocol(error.message, frame.headers.get("receipt"))
        else:
            self._receipt(frame)

    def _finish(self, frame: stomp.Frame) -> None:
        try:
            frames = self._open_transactions().finish(frame.headers.get("transaction"))
        except TransactionError as error:
            self._fail_protocol(error.message, frame.headers.get("receipt"))
            return
        if frame.command == "COMMIT":
            # They come before whatever arrived after the COMMIT, and the COMMIT's receipt comes after them.
            receipt = frame.headers.get("receipt")
            done = stomp.Frame("COMMITTED", {} if receipt is None else {"receipt": receipt})
            self._waiting = self._waiting or deque()
            self._waiting.extendleft(reversed([*frames, done]))
            self._spawn(_nothing())
        else:
            self._receipt(frame)

    def _may_request(self, header: str, value: str | None) -> bool:
        wait = self._requests.take(self._gateway.limits.requests, self._gateway.timers.now)
        if wait > 0:
            self._report(RateLimited("Too many requests", wait), header, value)
        return wait == 0

    # --- time -------------------------------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        socket, timers = self._socket, self._gateway.timers
        if socket is None:
            return
        now = timers.now
        if self._live is None:
            if self._task is not None:
                timers.schedule(self._timer, self._gateway.limits.connect_timeout)
            elif self._opening is not None:
                self._fail(ProtocolError("There was no CONNECT in time"), CloseReason.CONNECT_TIMEOUT)
            else:
                socket.close(CloseReason.PEER_CLOSED)
            return
        if self._tolerance and now - self._heard_at > self._tolerance:
            self._fail(ProtocolError("There was no heart-beat in time"), CloseReason.HEARTBEAT_TIMEOUT)
            return
        if not self._live.held:
            self._live.places = None
        elif now - self._connected_at >= RELEASE_AFTER:
            self._release()
        silence = now - self._sent_at
        if silence >= BEAT_AFTER - timers.tick:
            if self._beats:
                socket.send(stomp.HEART_BEAT)
            self._sent_at = now
            silence = 0.0
        timers.schedule(self._timer, BEAT_AFTER - silence)

    def _may_release(self) -> None:
        live = self._live
        if live is not None and live.held and self._subscriptions.have(EVENT_TOPICS):
            self._release()

    def _release(self) -> None:
        live = self._live
        if live is not None:
            in_background(self._release_now(live))

    async def _release_now(self, live: LiveSession) -> None:
        try:
            await self._gateway.hub.release(live)
        except Exception:
            # It stays held, and the timer tries again.
            log.exception("release_failed", session=live.id)


def _committed(connection: Connection, frame: stomp.Frame) -> None:
    connection._receipt(frame)


_HANDLERS: dict[str, Callable[[Connection, stomp.Frame], None]] = {
    "CONNECT": Connection._connect,
    "STOMP": Connection._connect,
    "SUBSCRIBE": Connection._subscribe,
    "UNSUBSCRIBE": Connection._unsubscribe,
    "SEND": Connection._message,
    "ACK": Connection._ack,
    "NACK": Connection._nack,
    "BEGIN": Connection._begin,
    "COMMIT": Connection._finish,
    "ABORT": Connection._finish,
    "DISCONNECT": Connection._disconnect,
    "COMMITTED": _committed,
}


async def _nothing() -> None:
    """Lets the frames that wait be handled."""


def _logged(error: Exception, event: str) -> OffhookError:
    if not isinstance(error, OffhookError):
        log.error(event, exc_info=error)
    return as_offhook_error(error)
