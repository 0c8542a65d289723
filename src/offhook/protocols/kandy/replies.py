"""What a client reads: the answers to its requests (Kandy protocol notes, 1.6, 2.4, 3.1, 3.3 and 6).

The other side of :mod:`offhook.protocols.kandy.answers` and :mod:`offhook.protocols.kandy.uc`. Servers of different
age put the same number at different places, so numbers are looked for where any of them has it; members that are not
known are ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import msgspec

_BESIDE = "authorizationResponse"
"""Where some servers put the number of a refused sign-in."""

_T = TypeVar("_T")


class ReplyError(ValueError):
    """An answer lacks what it must have. The message says what, and nothing of the answer's content."""


class Subscription(msgspec.Struct, frozen=True):
    """The answer to POST and PUT of a subscription.

    Attributes:
        path: for PUT and DELETE.
        channel: the path of the notification socket.
        services: what was granted, in the spelling in which it was asked for.
        expires: seconds to live, or None if the server does not say.
        session_id: what a client that came with an HMAC token is to show from now on, or None.
        client_correlator: the name by which to renew, or None to renew by the path.
    """

    path: str
    channel: str
    services: tuple[str, ...]
    expires: float | None = None
    session_id: str | None = None
    client_correlator: str | None = None


class Tokens(msgspec.Struct, frozen=True):
    """UC's tokens.

    Attributes:
        access: shown with every request.
        refresh: for further tokens; empty if there is none.
        expires: seconds that the access token is good for, or None if the server does not say.
    """

    access: str
    refresh: str = ""
    expires: float | None = None

    def __repr__(self) -> str:
        return f"Tokens(expires={self.expires!r})"


class UcError(msgspec.Struct, frozen=True):
    """An error of UC's resources: a number, and words to show."""

    code: int = 0
    human: str = ""


class Thread(msgspec.Struct, frozen=True, rename={"last_received": "lastreceived", "last_message": "lastmsg"}):
    """A conversation as UC's servers list it.

    Attributes:
        thread: its id.
        handle: the other user; empty for groups.
        last_received: seconds since 1970, or None.
        last_message: text, or None.
    """

    thread: int | str
    handle: str = ""
    last_received: float | None = None
    last_message: str | None = None


class Attachment(msgspec.Struct, frozen=True):
    """A part of a message that is not text, as UC's servers list it (6.3)."""

    mime: str = ""
    url: str = ""
    name: str = ""


class Row(msgspec.Struct, frozen=True, rename={"text": "txt", "direction": "dir"}):
    """A message as UC's servers list it.

    Attributes:
        id: of the message; servers that are asked for one message may leave it out.
        text: may be empty.
        direction: 0 is incoming.
        sender: a name, or in groups a number.
        when: milliseconds since 1970.
        attachments: its parts.
    """

    id: str | int = ""
    text: str = ""
    direction: int = 0
    sender: str | int = ""
    when: float = 0
    attachments: tuple[Attachment, ...] = ()


class _Params(msgspec.Struct, rename="camel"):
    service: list[str]
    notification_channel: str
    expires: float | str | None = None
    session_id: str | None = None
    client_correlator: str | None = None


class _Subscribed(msgspec.Struct, rename="camel"):
    subscription: str
    subscription_params: _Params


class _Tokens(msgspec.Struct):
    access_token: str
    refresh_token: str | None = None
    expires: float | str | None = None


def decode(body: bytes) -> dict[str, object] | None:
    """The JSON object of an answer; no body is an empty object, and None is a body that is no object."""
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, object])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def status_code(value: Mapping[str, object], wrapper: str) -> int | None:
    """The number of an answer: in the wrapper, beside it, or where sign-ins are refused; None if there is none.

    Args:
        value: the answer.
        wrapper: see :func:`~offhook.protocols.kandy.wrappers.wrapper`.
    """
    for place in (value.get(wrapper), value, value.get(_BESIDE)):
        if isinstance(place, Mapping) and (number := _integer(place.get("statusCode"))) is not None:
            return number
    return None


def reason(value: Mapping[str, object], wrapper: str) -> str:
    """The words of an answer, or nothing."""
    for place in (value.get(wrapper), value, value.get(_BESIDE)):
        if isinstance(place, Mapping) and isinstance(words := place.get("reason"), str):
            return words
    return ""


def retry_after_ms(value: Mapping[str, object], wrapper: str) -> float | None:
    """Milliseconds after which to come back, if the body says so (3.3)."""
    for place in (value.get(wrapper), value):
        if isinstance(place, Mapping) and (number := _seconds(place.get("retryAfter"))) is not None:
            return number
    return None


def subscription(value: Mapping[str, object]) -> Subscription:
    """Reads the answer to POST and PUT of a subscription (3.1).

    Raises:
        ReplyError: something is missing that a client cannot do without.
    """
    found = _convert(value.get("subscribeResponse"), _Subscribed, "subscribeResponse")
    params = found.subscription_params
    if not found.subscription.startswith("/") or not params.notification_channel.startswith("/"):
        raise ReplyError("The paths of the subscription and of its channel must begin with a slash")
    return Subscription(
        path=found.subscription,
        channel=params.notification_channel,
        services=tuple(params.service),
        expires=_seconds(params.expires),
        session_id=params.session_id,
        client_correlator=params.client_correlator or None,
    )


def message_id(value: Mapping[str, object]) -> str:
    """Reads the answer to ``instantmessage`` (6.1).

    Raises:
        ReplyError: there is no id.
    """
    return _identifier(value.get("imResponse"), "messageId", "imResponse")


def uc_error(value: Mapping[str, object]) -> UcError | None:
    """The error of an answer of UC's resources, or None if it is none."""
    error = value.get("error")
    if not isinstance(error, Mapping):
        return None
    human = error.get("human")
    return UcError(_integer(error.get("code")) or 0, human if isinstance(human, str) else "")


def tokens(value: Mapping[str, object]) -> Tokens:
    """Reads the answer to ``mk_token`` and ``refresh_token`` (2.4 and 2.5).

    Raises:
        ReplyError: there is no token.
    """
    found = _convert(value.get("success"), _Tokens, "success")
    if not found.access_token:
        raise ReplyError("There is no access token in the answer")
    return Tokens(found.access_token, found.refresh_token or "", _seconds(found.expires))


def sent(value: Mapping[str, object]) -> str:
    """Reads the answer to ``send`` (6.2): the message's id.

    Raises:
        ReplyError: there is no id.
    """
    return _identifier(value.get("success"), "id", "success")


def threads(value: Mapping[str, object]) -> list[Thread]:
    """Reads the answer to ``threads`` (6.2).

    Raises:
        ReplyError: it is no list of conversations.
    """
    return _convert(value.get("success"), list[Thread], "success")


def rows(value: Mapping[str, object]) -> list[Row]:
    """Reads the answer to ``thread`` with a name (6.2).

    Raises:
        ReplyError: it is no list of messages.
    """
    return _convert(value.get("success"), list[Row], "success")


def _convert(value: object, kind: type[_T], name: str) -> _T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ReplyError(f"{name} is not as it must be: {error}") from None


def _identifier(value: object, key: str, name: str) -> str:
    found = value.get(key) if isinstance(value, Mapping) else None
    if isinstance(found, str | int) and not isinstance(found, bool) and found != "":
        return str(found)
    raise ReplyError(f"{name} has no {key}")


def _integer(value: object) -> int | None:
    number = _seconds(value)
    return None if number is None else int(number)


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
