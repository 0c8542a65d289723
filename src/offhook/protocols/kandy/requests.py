"""The bodies of requests (Kandy protocol notes, 3.1, 5.1, 5.2 and 6.1).

They are JSON whatever their content type says. Clients of different age write the same thing differently, so numbers
and booleans may come as text and a list of one as its only item; members that are not known are ignored.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import msgspec

from offhook.protocols.kandy.presence import Activity, Status, WatchAction
from offhook.protocols.kandy.status import StatusCode

MAX_SERVICES = 50
MAX_SERVICE = 100
"""Characters of a service's name, and of other short words."""
MAX_CORRELATOR = 255
MAX_NOTE = 255
MAX_USERS = 1000
MAX_USER = 255
"""Characters of a user's name, with its domain."""
MAX_TEXT = 64 * 1024
"""Characters of a message."""

_Word = TypeVar("_Word", bound=StrEnum)
_Body = TypeVar("_Body", bound=msgspec.Struct)
_PATH = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `(\w+)`")
_NUMBER = re.compile(r"\d{1,12}(\.\d{1,6})?")
_SCHEME = re.compile(r"\A\s*(?:sips?|tel):", re.IGNORECASE)


class RequestError(ValueError):
    """The body is not what the resource takes.

    Args:
        message: one sentence that may be shown to the client.
        field: the offending member as the client wrote it, such as ``subscribeRequest.service``; empty is the body.
        status: INVALID_BODY, or INVALID_VALUE where only the value will not do.
    """

    def __init__(self, message: str, field: str = "", status: StatusCode = StatusCode.INVALID_BODY) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.status = status


@dataclass(frozen=True, slots=True)
class SubscribeRequest:
    """A subscription that is to be made, renewed or changed.

    Attributes:
        expires: seconds that the client wants it to live, not negative; None is up to the server.
        services: the names asked for, each once, in the client's order and spelling; never empty.
        localization: such as ``English_US``.
        use_turn: whether the client wants TURN credentials.
        notification_type: ``WebSocket`` for all browsers.
        supported: what else the client knows, such as ``RingingFeedback``.
        force_logout: whether to end the user's oldest subscription rather than refuse one too many.
        client_correlator: the client's own name for the subscription.
    """

    expires: float | None
    services: tuple[str, ...]
    localization: str | None
    use_turn: bool
    notification_type: str
    supported: tuple[str, ...]
    force_logout: bool
    client_correlator: str | None


@dataclass(frozen=True, slots=True)
class PresenceUpdate:
    """The presence that a user sets for itself. A note is None if none was given."""

    status: Status
    activity: Activity
    note: str | None


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Users whose presence a client wants to know.

    Attributes:
        user_list: each once, letter for letter as the client wrote them: it knows them by no other spelling.
        action: what it wants.
    """

    user_list: tuple[str, ...]
    action: WatchAction


@dataclass(frozen=True, slots=True)
class InstantMessage:
    """A message to one user.

    Attributes:
        to: the receiver without ``sip:``, ``sips:`` or ``tel:``.
        text: at most MAX_TEXT characters.
        charset: as the client named it; the text is Unicode all the same.
        type: a constant of the platform.
    """

    to: str
    text: str
    charset: str
    type: str


class _Subscribe(msgspec.Struct, rename="camel", gc=False):
    service: list[str] | str
    expires: float | str | None = None
    localization: str | None = None
    use_turn: bool | str | None = None
    notification_type: str | None = None
    supported: list[str] | str | None = None
    force_log_out: bool | str | None = None
    client_correlator: str | None = None


class _SubscribeBody(msgspec.Struct, rename="camel"):
    subscribe_request: _Subscribe


class _Presence(msgspec.Struct, rename="camel"):
    status: str
    activity: str
    note: str | None = None


class _PresenceBody(msgspec.Struct, rename="camel"):
    presence_request: _Presence


class _Watch(msgspec.Struct, rename="camel"):
    user_list: list[str] | str
    action: str


class _WatchBody(msgspec.Struct, rename="camel"):
    presence_watcher_request: _Watch


class _Message(msgspec.Struct, rename="camel"):
    to_url: str
    message: str
    charset: str | None = None
    type: str | None = None


class _MessageBody(msgspec.Struct, rename="camel"):
    im_request: _Message


_SUBSCRIBE = msgspec.json.Decoder(_SubscribeBody)
_PRESENCE = msgspec.json.Decoder(_PresenceBody)
_WATCH = msgspec.json.Decoder(_WatchBody)
_MESSAGE = msgspec.json.Decoder(_MessageBody)


def decode_subscribe(body: bytes) -> SubscribeRequest:
    """Read the body of POST and PUT of a subscription.

    Raises:
        RequestError: see there.
    """
    request = _decode(_SUBSCRIBE, body).subscribe_request
    services = _words(request.service, "subscribeRequest.service", MAX_SERVICES, MAX_SERVICE)
    if not services:
        raise _invalid("At least one service must be named", "subscribeRequest.service")
    return SubscribeRequest(
        expires=_seconds(request.expires, "subscribeRequest.expires"),
        services=services,
        localization=_text(request.localization, "subscribeRequest.localization", MAX_SERVICE),
        use_turn=_flag(request.use_turn, default=True),
        notification_type=_text(request.notification_type, "subscribeRequest.notificationType", MAX_SERVICE)
        or "WebSocket",
        supported=_words(request.supported or [], "subscribeRequest.supported", MAX_SERVICES, MAX_SERVICE),
        force_logout=_flag(request.force_log_out, default=False),
        client_correlator=_text(request.client_correlator, "subscribeRequest.clientCorrelator", MAX_CORRELATOR),
    )


def decode_presence(body: bytes) -> PresenceUpdate:
    """Read the body of ``presence``.

    Raises:
        RequestError: see there.
    """
    request = _decode(_PRESENCE, body).presence_request
    return PresenceUpdate(
        status=_word(Status, request.status, "presenceRequest.status"),
        activity=_word(Activity, request.activity, "presenceRequest.activity"),
        note=_text(request.note, "presenceRequest.note", MAX_NOTE),
    )


def decode_watch(body: bytes) -> WatchRequest:
    """Read the body of ``presenceWatcher``.

    Raises:
        RequestError: see there.
    """
    request = _decode(_WATCH, body).presence_watcher_request
    return WatchRequest(
        user_list=_words(request.user_list, "presenceWatcherRequest.userList", MAX_USERS, MAX_USER),
        action=_word(WatchAction, request.action, "presenceWatcherRequest.action"),
    )


def decode_message(body: bytes) -> InstantMessage:
    """Read the body of ``instantmessage``.

    Raises:
        RequestError: see there.
    """
    request = _decode(_MESSAGE, body).im_request
    to = _SCHEME.sub("", request.to_url).strip()
    if not 0 < len(to) <= MAX_USER:
        raise _invalid(f"A receiver has 1 to {MAX_USER} characters", "imRequest.toUrl")
    if len(request.message) > MAX_TEXT:
        raise _invalid(f"A message has at most {MAX_TEXT} characters", "imRequest.message")
    return InstantMessage(
        to=to,
        text=request.message,
        charset=_text(request.charset, "imRequest.charset", MAX_SERVICE) or "UTF-8",
        type=_text(request.type, "imRequest.type", MAX_SERVICE) or "A2",
    )


def _decode(decoder: msgspec.json.Decoder[_Body], body: bytes) -> _Body:
    if not body:
        raise RequestError("The body is missing")
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message = str(error)
        path = _PATH.search(message)
        missing = _MISSING.search(message)
        names = [re.sub(r"\[.*?\]", "", path[1]) if path else "", missing[1] if missing else ""]
        raise RequestError(_PATH.sub("", message), ".".join(filter(None, names))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("The body is no JSON") from None


def _invalid(message: str, field: str) -> RequestError:
    return RequestError(message, field, StatusCode.INVALID_VALUE)


def _words(value: list[str] | str, field: str, most: int, longest: int) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if len(items) > most:
        raise _invalid(f"At most {most} items are taken", field)
    if not all(items) or (items and max(map(len, items)) > longest):
        raise _invalid(f"Each item has 1 to {longest} characters", field)
    return tuple(dict.fromkeys(items))


def _text(value: str | None, field: str, longest: int) -> str | None:
    if value is not None and len(value) > longest:
        raise _invalid(f"At most {longest} characters are taken", field)
    return value or None


def _word(kind: type[_Word], value: str, field: str) -> _Word:
    try:
        return kind(value)
    except ValueError:
        raise _invalid(f"The value must be one of {', '.join(kind)}", field) from None


def _flag(value: bool | str | None, *, default: bool) -> bool:
    if isinstance(value, str):
        return value.strip().lower() == "true"
    return default if value is None else value


def _seconds(value: float | str | None, field: str) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if text and _NUMBER.fullmatch(text) is None:
            raise _invalid("The value must be a number of seconds", field)
        return float(text) if text else None
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise _invalid("The value must be a number of seconds", field)
    return value
