"""The answers of the telephony resources (Kandy protocol notes, 3.1, 3.3, 5, 6.1 and 7.2).

Every answer, errors included, is a JSON object with the resource's wrapper in it, numbers are numbers, and no member is
ever null.
"""

from __future__ import annotations

from collections.abc import Sequence

from offhook.protocols.kandy import uc, wrappers
from offhook.protocols.kandy.json_text import encode, without_nulls
from offhook.protocols.kandy.status import StatusCode
from offhook.protocols.turn import TurnCredentials


def subscribed(
    *,
    subscription: str,
    channel: str,
    expires: float,
    services: Sequence[str],
    status_code: StatusCode = StatusCode.OK,
    notification_type: str = "WebSocket",
    session_id: str | None = None,
    client_correlator: str | None = None,
    turn: TurnCredentials | None = None,
) -> bytes:
    """The whole answer to POST and PUT of a subscription: clients replace what they know by it.

    Args:
        subscription: the path for renewal and end, see :func:`~offhook.protocols.kandy.paths.subscription_path`.
        channel: the path of the socket, see :func:`~offhook.protocols.kandy.paths.channel_path`.
        expires: seconds to live; under 60 clients renew all the time.
        services: what was granted, in the client's spelling.
        status_code: PARTIAL if that is less than was asked for.
        notification_type: as the client asked.
        session_id: for a client that came with an HMAC token.
        client_correlator: for a client that gave one; it then renews by that.
        turn: without them clients use no TURN or STUN server at all.
    """
    params: dict[str, object] = {
        "expires": int(expires) if expires == int(expires) else expires,
        "service": services,
        "notificationType": notification_type,
        "notificationChannel": channel,
    }
    if session_id is not None:
        params["sessionId"] = session_id
    if client_correlator is not None:
        params["clientCorrelator"] = client_correlator
    if turn is not None:
        params["turnCredentials"] = {"username": turn.username, "password": turn.password}
    return encode(
        {
            "subscribeResponse": {
                "statusCode": int(status_code),
                "subscription": subscription,
                "subscriptionParams": params,
            }
        }
    )


def done(wrapper: str, **more: object) -> bytes:
    """The answer of a resource that succeeded.

    Args:
        wrapper: see :func:`~offhook.protocols.kandy.wrappers.wrapper`.
        more: further members as on the wire; what is None in them is left out.
    """
    content: dict[str, object] = {"statusCode": 0, **more}
    return encode({wrapper: without_nulls(content) if more else content})


def failed(
    wrapper: str, status_code: int, reason: str, *, retry_after_ms: int | None = None, field: str | None = None
) -> bytes:
    """An error, with the same number and text inside the wrapper and beside it: clients read one or the other.

    Args:
        wrapper: see :func:`~offhook.protocols.kandy.wrappers.failure_wrapper`. For UC's it is UC's form of an error,
            which has room for nothing else than the number and the text.
        status_code: not 0.
        reason: one sentence.
        retry_after_ms: milliseconds after which to come back.
        field: the member of the request that was wrong.
    """
    if wrapper == wrappers.UC:
        return uc.failure(status_code, reason)
    content: dict[str, object] = {"statusCode": int(status_code), "reason": reason}
    if retry_after_ms is not None:
        content["retryAfter"] = retry_after_ms
    if field:
        content["field"] = field
    return encode({wrapper: content, **content})


def message_sent(message_id: str) -> bytes:
    """The answer to ``instantmessage``; without the id the message would stay pending for ever."""
    return encode({"imResponse": {"statusCode": 0, "messageId": message_id}})


def profile(
    *,
    first_name: str | None = None,
    last_name: str | None = None,
    email_address: str | None = None,
    photo_url: str | None = None,
) -> bytes:
    """The answer to ``userProfileData``; what is None is left out."""
    return done(
        "userProfileData",
        firstName=first_name,
        lastName=last_name,
        emailAddress=email_address,
        photoURL=photo_url,
    )


def localization(language: str) -> bytes:
    """The answer to ``localization``, the only one without a wrapper.

    Args:
        language: such as ``en-US``.
    """
    return encode({"acceptLanguage": language})
