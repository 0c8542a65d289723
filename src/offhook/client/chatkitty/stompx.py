"""StompX from the client's side, without I/O: bytes in, outcomes out (ChatKitty protocol notes, 2 and 3).

One :class:`StompX` serves a session over all its connections: it keeps the names of subscriptions and what is still
unanswered. It sends nothing itself; what is to be sent is returned.
"""

from __future__ import annotations

import base64
import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

import msgspec

from offhook.client.chatkitty.errors import (
    ChatKittyBadAnswer,
    ChatKittyConnectionLost,
    ChatKittyError,
    error_of,
)
from offhook.client.chatkitty.resources import decoded
from offhook.client.errors import ConnectionLost
from offhook.protocols import stomp

ERROR_QUEUE = "/user/queue/v1/errors"
"""Where errors of relays and actions come (1.4)."""
REMEMBERED = 4000
"""Events of each topic that are known again if they are delivered twice; Offhook delivers at most 2,000 again."""
LIMITS = stomp.Limits(max_frame=16 * 1024 * 1024, max_body=16 * 1024 * 1024)
"""What a server may send: lists of users with many properties are long."""


@dataclass(frozen=True, slots=True)
class Opened:
    """CONNECTED: the server took the connection.

    Attributes:
        session: by which to come back; None if the server gave none.
        heart_beat: as negotiated, in the server's words: ``send_every_ms`` is what the server sends.
        recovered: whether all that was missed will come; False too where the server does not say.
    """

    session: str | None
    heart_beat: stomp.HeartBeat
    recovered: bool


@dataclass(frozen=True, slots=True)
class Answered:
    """A relay or an action has its answer.

    Attributes:
        request: its name.
        answer: the resource as decoded, or what went wrong.
    """

    request: str
    answer: object


@dataclass(frozen=True, slots=True)
class Heard:
    """An event on a topic.

    Attributes:
        topic: its key.
        kind: its type.
        resource: as decoded.
    """

    topic: str
    kind: str
    resource: object


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """What was heard before this is to be acknowledged with these bytes, once it was handled."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A RECEIPT."""

    receipt: str


@dataclass(frozen=True, slots=True)
class Refused:
    """ERROR: the server ends the connection, and for an AccessDeniedError the session."""

    error: ChatKittyError


@dataclass(frozen=True, slots=True)
class Broken:
    """What came is not STOMP; nothing after it can be understood."""

    error: ChatKittyBadAnswer


Outcome = Opened | Answered | Heard | Acknowledge | Confirmed | Refused | Broken


@dataclass(slots=True)
class _Topic:
    key: str
    id: str
    receipt: str
    destination: str
    seen: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def subscribe(self) -> bytes:
        headers = {
            "id": self.id,
            "receipt": self.receipt,
            "ack": "client-individual",
            "destination": self.destination,
        }
        return stomp.encode("SUBSCRIBE", headers)

    def knows(self, message_id: str) -> bool:
        """Whether a message came before; it is remembered from now on."""
        if message_id in self.seen:
            return True
        self.seen[message_id] = None
        if len(self.seen) > REMEMBERED:
            self.seen.popitem(last=False)
        return False


class StompX:
    """The state of one session.

    Args:
        user_agent: what CONNECT calls this client.
        heart_beat: milliseconds between the heart-beats that this client can send, and wants.
    """

    __slots__ = (
        "_actions",
        "_decoder",
        "_errors_id",
        "_heart_beat",
        "_relays",
        "_session",
        "_topics",
        "_user_agent",
    )

    def __init__(self, user_agent: str, heart_beat: tuple[int, int]) -> None:
        self._user_agent = user_agent
        self._heart_beat = heart_beat
        self._decoder = stomp.Decoder(LIMITS)
        self._session: str | None = None
        self._errors_id = _subscription_id()
        self._topics: dict[str, _Topic] = {}
        self._relays: dict[str, bytes] = {}
        self._actions: dict[str, frozenset[str] | None] = {}

    # --- the connection ---------------------------------------------------------------------------------------------

    def connect(self, username: str, auth_params: Mapping[str, object] | None) -> bytes:
        """CONNECT on a new connection; it names the session that the last one had (2.2 and 2.7).

        Args:
            username: raw.
            auth_params: what can be written as JSON; None or empty is left out.

        Raises:
            ValueError: the username has a line end or a NUL, which CONNECT cannot carry.
            TypeError: the parameters cannot be written as JSON.
        """
        self._decoder = stomp.Decoder(LIMITS)
        headers = {"StompX-User": username, "StompX-User-Agent": self._user_agent}
        if auth_params:
            # Plain ASCII reads the same in every encoding that servers try.
            text = json.dumps(dict(auth_params), ensure_ascii=True, separators=(",", ":"))
            headers["StompX-Auth-Params"] = base64.b64encode(text.encode()).decode()
        if self._session is not None:
            headers["StompX-Auth-Session-ID"] = self._session
        headers["accept-version"] = stomp.VERSION
        headers["heart-beat"] = f"{self._heart_beat[0]},{self._heart_beat[1]}"
        return stomp.encode("CONNECT", headers)

    def lost(self, error: ConnectionLost) -> list[Answered]:
        """The connection is gone. Fails the actions, of which nobody knows whether they were done; relays wait."""
        failed = [Answered(receipt, ChatKittyConnectionLost(error)) for receipt in self._actions]
        self._actions.clear()
        return failed

    def repeat(self) -> list[bytes]:
        """What asks the unanswered relays again on a new connection."""
        return list(self._relays.values())

    def goodbye(self) -> tuple[list[bytes], str]:
        """The frames that end the session, and the receipt that the server answers the last of them with (2.8)."""
        receipt = f"close-{uuid4()}"
        frames = [stomp.encode("UNSUBSCRIBE", {"id": topic.id}) for topic in self._topics.values()]
        return [*frames, stomp.encode("DISCONNECT", {"receipt": receipt})], receipt

    # --- subscriptions ----------------------------------------------------------------------------------------------

    def subscribe(self, key: str, destination: str) -> bytes:
        """Subscribes to a topic for as long as the session lasts (3.3).

        Args:
            key: what its events are to be called by.
            destination: the topic.
        """
        topic = _Topic(key, _subscription_id(), f"receipt-{uuid4()}", destination)
        self._topics[topic.id] = topic
        return topic.subscribe()

    def subscriptions(self) -> list[bytes]:
        """What subscribes to the error queue and all topics, under the same names on every connection (2.7)."""
        errors = stomp.encode("SUBSCRIBE", {"id": self._errors_id, "destination": ERROR_QUEUE})
        return [errors, *(topic.subscribe() for topic in self._topics.values())]

    # --- requests ---------------------------------------------------------------------------------------------------

    def relay(self, destination: str, parameters: Mapping[str, str] | None = None) -> tuple[str, bytes]:
        """Asks for a resource (3.1); until it is answered, or forgotten, it is asked again on each new connection.

        Args:
            destination: the relay.
            parameters: further headers.

        Returns:
            The request's name, and the frame.

        Raises:
            ValueError: a parameter holds a NUL.
        """
        name = _subscription_id()
        frame = stomp.encode("SUBSCRIBE", {**(parameters or {}), "id": name, "destination": destination})
        self._relays[name] = frame
        return name, frame

    def action(self, destination: str, body: object, kinds: frozenset[str] | None = None) -> tuple[str, bytes]:
        """Does something (3.5). It is answered by the first event that names its receipt.

        Args:
            destination: the action.
            body: what can be written as JSON.
            kinds: the types that such an event must have; None is any.

        Returns:
            The request's name, and the frame.
        """
        receipt = f"receipt-{uuid4()}"
        headers = {
            "destination": destination,
            "content-type": "application/json;charset=UTF-8",
            "receipt": receipt,
        }
        frame = stomp.encode("SEND", headers, msgspec.json.encode(body))
        self._actions[receipt] = kinds
        return receipt, frame

    def forget(self, request: str) -> None:
        """Nobody waits for this request any more; whatever answers it is ignored."""
        self._relays.pop(request, None)
        self._actions.pop(request, None)

    @property
    def unanswered(self) -> int:
        """Requests that wait for their answer."""
        return len(self._relays) + len(self._actions)

    # --- what comes -------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> list[Outcome]:
        """Takes what came, cut anywhere, and tells what it means, in order."""
        broken: list[Outcome] = []
        try:
            frames = self._decoder.feed(data)
        except stomp.StompError as error:
            frames = list(error.frames)
            broken.append(Broken(ChatKittyBadAnswer(f"The server broke STOMP: {error.message}")))
        outcomes: list[Outcome] = []
        for frame in frames:
            outcomes += self._read(frame)
        return outcomes + broken

    def _read(self, frame: stomp.Frame) -> list[Outcome]:
        if frame.command == "MESSAGE":
            return self._message(frame)
        if frame.command == "RECEIPT":
            return [Confirmed(frame.headers.get("receipt-id", ""))]
        if frame.command == "CONNECTED":
            return [self._opened(frame)]
        if frame.command == "ERROR":
            return [Refused(error_of(frame.body))]
        return [Broken(ChatKittyBadAnswer(f"A server does not send {frame.command}"))]

    def _opened(self, frame: stomp.Frame) -> Outcome:
        try:
            theirs = stomp.parse_heart_beat(frame.header("heart-beat"))
        except stomp.StompError as error:
            return Broken(ChatKittyBadAnswer(error.message))
        recovered = frame.header("recovered") == "complete"
        self._session = frame.header("session")
        if not recovered:
            # Another session may count its messages anew, and what is new must not look like what is known.
            for topic in self._topics.values():
                topic.seen.clear()
        return Opened(self._session, stomp.negotiate(self._heart_beat, theirs), recovered)

    def _message(self, frame: stomp.Frame) -> list[Outcome]:
        subscription = frame.headers.get("subscription", "")
        topic = self._topics.get(subscription)
        if topic is not None:
            return self._event(frame, topic)
        if subscription == self._errors_id:
            return self._error(frame)
        if subscription in self._relays:
            del self._relays[subscription]
            return [Answered(subscription, _resource(_envelope(frame.body)))]
        return []

    def _error(self, frame: stomp.Frame) -> list[Outcome]:
        relay, action = frame.header("subscription-id"), frame.header("receipt-id")
        error = error_of(frame.body)
        if relay is not None:
            # A topic's subscription may be named as well; there is nobody to tell.
            return [] if self._relays.pop(relay, None) is None else [Answered(relay, error)]
        # Without a name nobody knows whose it is (3.2): all that it could be must not wait for ever.
        failed = [receipt for receipt in self._actions if action is None or action == receipt]
        for receipt in failed:
            del self._actions[receipt]
        return [Answered(receipt, error) for receipt in failed]

    def _event(self, frame: stomp.Frame, topic: _Topic) -> list[Outcome]:
        outcomes: list[Outcome] = []
        message_id = frame.header("message-id")
        if message_id is None or not topic.knows(message_id):
            outcomes = self._news(frame, topic)
        ack = frame.header("ack")
        if ack is not None:
            outcomes.append(Acknowledge(stomp.encode("ACK", {"id": ack, "subscription": topic.id})))
        return outcomes

    def _news(self, frame: stomp.Frame, topic: _Topic) -> list[Outcome]:
        body = _envelope(frame.body)
        kind = body.get("type") if isinstance(body, dict) else None
        outcomes: list[Outcome] = []
        if isinstance(body, dict) and isinstance(kind, str) and "resource" in body:
            outcomes.append(Heard(topic.key, kind, body["resource"]))
        receipt = frame.header("receipt-id")
        if receipt is not None and receipt in self._actions:
            kinds = self._actions[receipt]
            if kinds is None or kind in kinds:
                del self._actions[receipt]
                outcomes.append(Answered(receipt, _resource(body)))
        return outcomes


def _subscription_id() -> str:
    return f"subscription-id-{uuid4()}"


def _resource(envelope: object) -> object:
    """The ``resource`` of an envelope (3.4), or the error that there is none."""
    if isinstance(envelope, dict) and "resource" in envelope:
        found: object = envelope["resource"]
        return found
    return ChatKittyBadAnswer("The server's answer has no resource")


def _envelope(body: bytes) -> object:
    """What came, or None if it is not JSON."""
    try:
        return decoded(body)
    except ChatKittyBadAnswer:
        return None
