"""What a server sends on a notification socket: envelopes, nothing else but keep-alives (Kandy protocol notes, 4.2).

Each has an id that is unique on its channel, for clients drop what they have seen, and two without an id are the same
to them. An event that has the same id for everyone can be encoded once for everyone.
"""

from __future__ import annotations

from offhook.protocols.kandy.json_text import encode, quote
from offhook.protocols.kandy.presence import Activity, Status


def presence_head(event_id: str, time_ms: int) -> bytes:
    """What comes before the user's name in the presence of a user; the first argument of :func:`presence`.

    Args:
        event_id: unique on the channel.
        time_ms: milliseconds since 1970.
    """
    return (
        b'{"notificationMessage":{"eventType":"presenceWatcher","eventId":%b,"time":%d'
        b',"presenceWatcherNotificationParams":{"name":' % (quote(event_id), time_ms)
    )


def presence_state(status: Status, activity: Activity, note: str | None = None) -> bytes:
    """What comes after the user's name, the same for all who watch the user; the last argument of :func:`presence`.

    Args:
        status: whether the user can be reached.
        activity: what the user does.
        note: the user's own words.
    """
    words = f',"status":"{status.value}","activity":"{activity.value}"'.encode()
    return words + b',"type":1}}}' if note is None else words + b',"note":' + quote(note) + b',"type":1}}}'


def presence(head: bytes, name: str, state: bytes) -> bytes:
    """The presence of another user (5.3). Clients know the user by their own spelling, so only that differs.

    Args:
        head: of :func:`presence_head`.
        name: the user, letter for letter as the watcher spelt it.
        state: of :func:`presence_state`.
    """
    return head + quote(name) + state


def link_message(
    event_id: str, time_ms: int, sender: str, text: str, *, charset: str = "UTF-8", kind: str = "A2"
) -> bytes:
    """A message for Link clients (6.1).

    Args:
        event_id: unique on the channel; clients take it for the message's id.
        time_ms: milliseconds since 1970.
        sender: the user, without ``sip:``.
        text: of the message.
        charset: as the sender's client named it.
        kind: the ``type`` that the sender's client named.
    """
    params = {"charset": charset, "msgText": text, "primaryContact": "sip:" + sender, "type": kind}
    return _envelope({"eventType": "IM", "eventId": event_id, "time": time_ms, "imnotificationParams": params})


def uc_message(
    event_id: str, time_ms: int, sender: str, message_id: str, text: str | None, *, sms: bool = False
) -> bytes:
    """A message for UC clients (6.2).

    Args:
        event_id: unique on the channel.
        time_ms: milliseconds since 1970.
        sender: the user; clients fetch the parts of a message from the thread of this name.
        message_id: unique on the channel too: it is what UC clients drop repetitions by.
        text: of a message that is nothing but text; None has clients fetch its parts.
        sms: it came by SMS.
    """
    message: dict[str, object] = {
        "event": "sms" if sms else "im",
        "direction": "in",
        "type": "sms" if sms else "internal",
        "From": sender,
        "id": message_id,
        "eventId": event_id,
        "time": time_ms,
    }
    if text is None:
        message["Attach"] = 1
    else:
        message["txt"] = text
    return _envelope(message)


def gone(event_id: str, time_ms: int, retry_after: int | None = None) -> bytes:
    """The subscription is over; the client closes the socket and tells its application (3.8).

    Args:
        event_id: unique on the channel.
        time_ms: milliseconds since 1970.
        retry_after: seconds after which the application may subscribe again.
    """
    message: dict[str, object] = {"eventType": "gone", "eventId": event_id, "time": time_ms}
    if retry_after is not None:
        message["retryAfter"] = retry_after
    return _envelope(message)


def overridden(event_id: str, time_ms: int) -> bytes:
    """Another page has taken the channel (3.8); for the one that lost it, never for the one that has it.

    Args:
        event_id: unique on the channel.
        time_ms: milliseconds since 1970.
    """
    return _envelope({"eventType": "websocketOverridden", "eventId": event_id, "time": time_ms})


def _envelope(message: dict[str, object]) -> bytes:
    return encode({"notificationMessage": message})
