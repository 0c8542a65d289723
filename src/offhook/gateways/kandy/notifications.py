"""Domain events as Kandy's clients are told of them (Kandy protocol notes, 4.2, 5.3 and 6).

The id of a notification is made of the event's place, or is the message's own, so it is the same whenever and however
often the event is sent.
"""

from __future__ import annotations

import time
import zlib

from offhook.domain.accounts import User
from offhook.domain.messages import Message
from offhook.domain.presence import Presence, presence_of
from offhook.domain.subscriptions import Owed
from offhook.gateways.kandy.ids import message_event_id
from offhook.ports import Publication
from offhook.protocols.kandy import notifications as wire
from offhook.protocols.kandy.presence import Activity, Status

_LINK, _UC, _PRESENCE = "kandy.link", "kandy.uc", "kandy.presence"


def presence(publication: Publication, user: User, name: str) -> bytes:
    """The presence of a user whom an event shows.

    Args:
        publication: the event at its place.
        user: the user as the event shows them.
        name: the user's name as this client spells it.
    """
    if name == user.name:
        made = publication.encoded.get(_PRESENCE)
        if made is None:
            notification = encode_presence(_event_id(publication), name, presence_of(user))
            publication.encoded[_PRESENCE] = made = (("", notification),)
        return made[0][1]
    return encode_presence(f"{_event_id(publication)}-{name}", name, presence_of(user))


def owed(session_id: int, asked: Owed, shown: Presence) -> bytes:
    """The presence that a client has asked for.

    Sent again, it has the same id, so that the client takes it once; unless it is another presence by then.
    """
    state = f"{shown.open}{shown.activity.value}{shown.note}".encode()
    return encode_presence(f"s{session_id}-{asked.asked}-{zlib.crc32(state):08x}-{asked.name}", asked.name, shown)


def message(publication: Publication, sent: Message, uc: bool) -> bytes:
    """A message that the client's user was sent, as UC's or Link's clients read it."""
    form = _UC if uc else _LINK
    made = publication.encoded.get(form)
    if made is None:
        publication.encoded[form] = made = (("", encode_message(sent, uc)),)
    return made[0][1]


def encode_message(sent: Message, uc: bool) -> bytes:
    """A message, wherever it comes from."""
    event_id = message_event_id(sent.id)
    at = int(sent.sent_at.timestamp() * 1000)
    if uc:
        return wire.uc_message(event_id, at, sent.sender, event_id, sent.text)
    return wire.link_message(event_id, at, sent.sender, sent.text)


def encode_presence(event_id: str, name: str, shown: Presence) -> bytes:
    """What is known of a user now."""
    status = Status.OPEN if shown.open else Status.CLOSED
    state = wire.presence_state(status, Activity(shown.activity.value), shown.note or None)
    return wire.presence(wire.presence_head(event_id, _now()), name, state)


def encode_gone(event_id: str) -> bytes:
    """The subscription is over."""
    return wire.gone(event_id, _now())


def _event_id(publication: Publication) -> str:
    position = publication.position
    return f"{publication.topic}-{position.epoch}-{position.offset}"


def _now() -> int:
    return int(time.time() * 1000)
