"""Ids as clients see them."""

from __future__ import annotations

_MESSAGE = "m-"
_MAX_DIGITS = 18
"""More make no id of ours, but a number that takes long to read."""


def message_event_id(message_id: int) -> str:
    """What a message is called wherever a client meets it: in the answer to its sender, in its notification, in lists.

    It is a notification's id, too, so that a message that is told twice is seen as one.
    """
    return f"{_MESSAGE}{message_id}"


def parse_message_id(text: str) -> int | None:
    """The message that a client calls so, with or without the prefix; None if no message can be called so."""
    return parse_id(text.removeprefix(_MESSAGE))


def parse_id(text: str) -> int | None:
    """The number of a session or conversation in a path or query; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
