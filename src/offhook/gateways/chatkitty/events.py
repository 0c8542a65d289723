"""Domain events as ChatKitty clients get them (ChatKitty protocol notes, 6.1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from offhook.domain.events import (
    MessageSent,
    PresenceChanged,
    UserBlocked,
    UserDeleted,
    UserEvent,
    UserUnblocked,
    UserUpdated,
)
from offhook.gateways.chatkitty.resources import Resource, blocked_record, current_user, event_body, other_user
from offhook.ports import Publication
from offhook.protocols.stomp import message_tail


@dataclass(frozen=True, slots=True)
class View:
    """One MESSAGE that a client gets for an event.

    Attributes:
        key: the user topic it goes to.
        kind: the ``type`` that the client's listeners match.
        render: makes the ``resource``, given the event and the server's base URL.
        answers: whether it is the answer to the action that caused the event.
    """

    key: str
    kind: str
    render: Callable[[UserEvent, str], Resource]
    answers: bool = False


def _as_self(event: UserEvent, base_url: str) -> Resource:
    # Whoever gets this has a session, although the user may have been offline when the event happened.
    return current_user(replace(event.user, online=True), base_url)


def _as_other(event: UserEvent, base_url: str) -> Resource:
    return other_user(event.user, base_url)


def _as_block(event: UserEvent, base_url: str) -> Resource:
    if not isinstance(event, UserBlocked):
        raise TypeError(event)
    return blocked_record(event.user, datetime.fromisoformat(event.blocked_at), base_url)


MAX_FORMS = 8
"""Forms of an event that are kept: clients choose the name by which they reach the server."""
Messages = tuple[tuple[str, bytes], ...]

ABOUT_OTHERS: dict[type[UserEvent], tuple[View, ...]] = {
    PresenceChanged: (View("contacts", "contact.presence.changed", _as_other),),
    UserUpdated: (View("contacts", "contact.user.updated", _as_other),),
    UserDeleted: (View("contacts", "contact.user.deleted", _as_other),),
}
"""What a client gets of events on its application's topic; those about its own user are on the user's."""

ABOUT_SELF: dict[type[UserEvent], tuple[View, ...]] = {
    UserUpdated: (View("self", "user.self.updated", _as_self, answers=True),),
    UserDeleted: (View("self", "user.self.deleted", _as_other, answers=True),),
    UserBlocked: (
        View("users", "user.user.blocked", _as_other, answers=True),
        View("users", "user.user_blocklist_item.created", _as_block),
    ),
    UserUnblocked: (View("users", "user.user.unblocked", _as_other, answers=True),),
}
"""What a client gets of events on its user's topic."""


def ack_id(publication: Publication) -> str:
    """What the client is to acknowledge: the kind of topic and the offset, so that no table of them is needed."""
    return f"{publication.topic[0]}-{publication.position.offset}"


def parse_ack(text: str) -> tuple[str, int] | None:
    """The kind of topic (``a`` or ``u``) and the offset of an acknowledged event, or None if it is none of ours."""
    kind, dash, number = text.partition("-")
    number = number.partition(".")[0]
    if not dash or kind not in ("a", "u") or not (number.isascii() and number.isdigit() and len(number) <= 16):
        return None
    return kind, int(number)


def encode_event(publication: Publication, base_url: str) -> Messages:
    """What clients get of an event, made once for all who reach the server by the same URL.

    Args:
        publication: the event at its place.
        base_url: the URL.

    Returns:
        Pairs of the user topic that a message goes to, and its part that is the same for everybody.
    """
    made = _encode(publication, base_url, None)
    if len(publication.encoded) < MAX_FORMS:
        publication.encoded[base_url] = made
    return made


def encode_answer(publication: Publication, base_url: str) -> Messages:
    """What the client gets whose action caused the event: the same, with the answer marked by its receipt."""
    return _encode(publication, base_url, None if publication.origin is None else publication.origin.receipt)


def _encode(publication: Publication, base_url: str, receipt: str | None) -> Messages:
    event = publication.event
    if isinstance(event, MessageSent):
        # A conversation between two users has no place among a ChatKitty client's topics.
        return ()
    views = (ABOUT_SELF if publication.topic[0] == "u" else ABOUT_OTHERS).get(type(event), ())
    ack = ack_id(publication)
    messages: list[tuple[str, bytes]] = []
    for index, view in enumerate(views):
        body = event_body(view.kind, view.render(event, base_url))
        # One event may give several messages: each needs an id of its own, and all acknowledge the same offset.
        name = ack if index == 0 else f"{ack}.{index}"
        extra = {"receipt-id": receipt} if view.answers and receipt is not None else None
        messages.append((view.key, message_tail(name, body, ack=name, extra=extra)))
    return tuple(messages)
