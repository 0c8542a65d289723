"""What a client writes: the bodies of requests (Kandy protocol notes, 3.1, 5.1, 5.2 and 6.1).

The other side of :mod:`offhook.protocols.kandy.requests`.
"""

from __future__ import annotations

from collections.abc import Sequence

from offhook.protocols.kandy.json_text import encode
from offhook.protocols.kandy.presence import Activity, Status, WatchAction


def subscribe(
    services: Sequence[str],
    expires: float,
    *,
    localization: str = "English_US",
    use_turn: bool = True,
    notification_type: str = "WebSocket",
    force_logout: bool | None = None,
    client_correlator: str | None = None,
) -> bytes:
    """The body of POST and PUT of a subscription (3.1 and 3.5).

    Args:
        services: the whole list that is wanted.
        expires: seconds to live.
        localization: such as ``English_US``.
        use_turn: whether TURN credentials are wanted.
        notification_type: how notifications are to come.
        force_logout: whether the oldest subscription may be ended for this one; None leaves it out, as UC and every
            PUT do. On the wire it is text.
        client_correlator: the client's own name for the subscription; None leaves it out.
    """
    request: dict[str, object] = {
        "expires": int(expires) if expires == int(expires) else expires,
        "service": list(services),
        "localization": localization,
        "useTurn": use_turn,
        "notificationType": notification_type,
    }
    if force_logout is not None:
        request["forceLogOut"] = "true" if force_logout else "false"
    if client_correlator is not None:
        request["clientCorrelator"] = client_correlator
    return encode({"subscribeRequest": request})


def presence(status: Status, activity: Activity, note: str | None = None) -> bytes:
    """The body of ``presence``: what the user chooses to be shown as (5.1)."""
    request = {"status": status.value, "activity": activity.value}
    if note is not None:
        request["note"] = note
    return encode({"presenceRequest": request})


def watch(users: Sequence[str], action: WatchAction) -> bytes:
    """The body of ``presenceWatcher`` (5.2).

    Args:
        users: names, in the spelling in which their presence is to be told.
        action: what is wanted of them.
    """
    return encode({"presenceWatcherRequest": {"userList": list(users), "action": action.value}})


def message(to: str, text: str) -> bytes:
    """The body of ``instantmessage`` (6.1).

    Args:
        to: the receiver.
        text: of the message.
    """
    return encode({"imRequest": {"charset": "UTF-8", "toUrl": to, "message": text, "type": "A2"}})
