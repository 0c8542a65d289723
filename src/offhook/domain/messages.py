"""Messages between two users, and the conversations they make up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from offhook.errors import InvalidInput

MAX_TEXT = 16 * 1024
"""Characters in a message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A text from one user to another.

    Attributes:
        id: integer, unique on the server; grows.
        application_id: of both.
        conversation_id: where it belongs.
        sender_id: who sent it.
        sender: that user's name.
        recipient_id: to whom.
        recipient: that user's name.
        text: what it says.
        sent_at: when it was stored, UTC.
    """

    id: int
    application_id: int
    conversation_id: int
    sender_id: int
    sender: str
    recipient_id: int
    recipient: str
    text: str
    sent_at: datetime


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that two users wrote each other.

    Attributes:
        id: integer, unique on the server.
        application_id: of both.
        one_id: the user with the lower id.
        other_id: the other; the same if somebody writes notes to themselves.
    """

    id: int
    application_id: int
    one_id: int
    other_id: int


@dataclass(frozen=True, slots=True)
class Thread:
    """A conversation as one of its users sees it.

    Attributes:
        id: the conversation's.
        peer: name of the other user.
        last: the newest message that this user has not deleted, or None.
        received_at: when the newest message from the other user came, UTC, or None.
    """

    id: int
    peer: str
    last: Message | None
    received_at: datetime | None


def check_message(value: object, field_name: str) -> str:
    """The text of a message, or raises.

    Raises:
        InvalidInput: no string, empty, too long, or holding NUL or lone surrogates.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{field_name} must be a string", field_name)
    if not value:
        raise InvalidInput(f"{field_name} must not be empty", field_name)
    if len(value) > MAX_TEXT:
        raise InvalidInput(f"{field_name} must have at most {MAX_TEXT} characters", field_name)
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise InvalidInput(f"{field_name} holds characters that are no text", field_name)
    return value
