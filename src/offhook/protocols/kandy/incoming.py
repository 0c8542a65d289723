"""What a client hears on its notification socket (Kandy protocol notes, 4.2, 4.3, 5.3 and 6).

The other side of :mod:`offhook.protocols.kandy.notifications` and :mod:`offhook.protocols.kandy.keepalive`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import TypeVar

import msgspec

PING = '{"message_type":"ping"}'
"""The sign of life of the usual keep-alive dialect. It is never answered."""
ACK = '{"connAck":{}}'
"""The answer to a server that asks for a sign of life."""

T = TypeVar("T")

_SCHEME = re.compile(r"\A\s*(?:sips?|tel):", re.IGNORECASE)


class IncomingError(ValueError):
    """What came is not of the protocol. The message says why, and nothing of the content."""


class Notification(msgspec.Struct, frozen=True):
    """One envelope.

    Attributes:
        kind: ``eventType``, or for UC's messages ``event``; empty if there is neither.
        event_id: ``eventId``; empty if there is none.
        message_id: ``id``, which UC's messages have; empty if there is none.
        time: milliseconds since 1970; 0 if there is none.
        message: all of it, as it came.
    """

    kind: str
    event_id: str
    message_id: str
    time: float
    message: Mapping[str, object]


class Check(msgspec.Struct, frozen=True):
    """The server asks for a sign of life."""


class Nothing(msgspec.Struct, frozen=True):
    """A word of the keep-alive that needs no answer."""


class Presence(msgspec.Struct, frozen=True):
    """The presence of a user, by the name by which the user is watched."""

    name: str
    status: str
    activity: str
    note: str | None = None


class Text(msgspec.Struct, frozen=True):
    """A message.

    Attributes:
        sender: the user, without ``sip:``.
        text: empty if the message is nothing but parts.
        parts: whether it has parts that are not text.
    """

    sender: str
    text: str
    parts: bool = False


class _Presence(msgspec.Struct):
    name: str
    status: str
    activity: str
    note: str | None = None


class _Link(msgspec.Struct, rename="camel"):
    msg_text: str
    primary_contact: str


class _Uc(msgspec.Struct, rename={"sender": "From", "parts": "Attach"}):
    sender: str
    txt: str = ""
    direction: str = "in"
    parts: object = None


def decode(data: str | bytes) -> Notification | Check | Nothing:
    """Reads what came on the socket.

    Raises:
        IncomingError: it is neither an envelope nor a word of the keep-alive.
    """
    if isinstance(data, bytes):
        raise IncomingError("A binary message came")
    try:
        value = msgspec.json.decode(data, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise IncomingError("What came is no JSON object") from None
    message = value.get("notificationMessage")
    if isinstance(message, Mapping):
        kind = message.get("eventType") or message.get("event")
        return Notification(
            kind=kind if isinstance(kind, str) else "",
            event_id=_identifier(message.get("eventId")),
            message_id=_identifier(message.get("id")),
            time=_number(message.get("time")) or 0.0,
            message=message,
        )
    if "connCheck" in value:
        return Check()
    if "connAck" in value or "message_type" in value:
        return Nothing()
    raise IncomingError("What came is no notification")


def presence(notification: Notification) -> Presence:
    """Reads the presence of a user (5.3).

    Raises:
        IncomingError: it is none.
    """
    found = _converted(notification.message.get("presenceWatcherNotificationParams"), _Presence, "presence")
    return Presence(found.name, found.status, found.activity, found.note)


def link_message(notification: Notification) -> Text:
    """Reads a message of Link (6.1).

    Raises:
        IncomingError: it is none.
    """
    found = _converted(notification.message.get("imnotificationParams"), _Link, "message")
    return Text(bare(found.primary_contact), found.msg_text)


def uc_message(notification: Notification) -> Text | None:
    """Reads a message of UC (6.2); None if it is none that came in.

    Raises:
        IncomingError: it is none.
    """
    found = _converted(notification.message, _Uc, "message")
    if found.direction != "in":
        return None
    return Text(bare(found.sender), found.txt, bool(found.parts))


def retry_after(notification: Notification) -> float | None:
    """Seconds after which to subscribe again, of a subscription that is gone (3.8)."""
    return _number(notification.message.get("retryAfter"))


def bare(name: str) -> str:
    """A user's name without ``sip:``, ``sips:`` or ``tel:``."""
    return _SCHEME.sub("", name).strip()


def _converted(value: object, form: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, form)
    except msgspec.ValidationError as error:
        raise IncomingError(f"The {what} is not as it must be: {error}") from None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _identifier(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""
