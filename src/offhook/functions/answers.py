"""What functions and webhooks may answer, and what a client may read of it."""

from __future__ import annotations

import inspect
import json
import unicodedata
from enum import StrEnum
from typing import cast

from offhook.domain.accounts import check_properties, check_text
from offhook.domain.values import JsonObject
from offhook.errors import AccessDenied, InvalidInput
from offhook.ports import Profile

FAILED = "The authentication function failed"
"""All that a client learns of a function that broke."""
TOO_LONG = "The authentication function took too long"
DENIED = "Access was denied"
"""Stands in for an empty message."""
MAX_MESSAGE = 300
"""Characters of a message that a client may read."""


class Outcome(StrEnum):
    """How an attempt ended, for metrics."""

    ALLOWED = "allowed"
    DENIED = "denied"
    """The function or webhook said no."""
    FAILED = "failed"
    """It raised, answered nonsense, or could not be reached."""
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"
    """Too many attempts waited."""
    ABANDONED = "abandoned"
    """The client went away meanwhile."""


class Denial(AccessDenied):
    """An attempt was denied.

    Args:
        message: what the client reads.
        outcome: why, for metrics.
    """

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


_DISPLAY_NAMES = ("display_name", "displayName")


def profile_from(answer: object) -> Profile:
    """Reads a function's answer.

    Args:
        answer: None, or an object with ``display_name`` (or ``displayName``) and ``properties``, each
            optional.

    Returns:
        What it says of the user, holding nothing that the function could still change.

    Raises:
        InvalidInput: it is anything else. An unknown member is refused too: who answers ``{"allowed":
            false}`` does not mean to let the user in.
    """
    if inspect.iscoroutine(answer):
        answer.close()
        raise InvalidInput("the function returned a coroutine; declare it with async def")
    if answer is None:
        return Profile()
    if not isinstance(answer, dict):
        raise InvalidInput(f"the answer must be None or an object, not {type(answer).__name__}")
    unknown = [key for key in answer if key not in (*_DISPLAY_NAMES, "properties")]
    if unknown:
        raise InvalidInput(f"the answer has an unknown member {str(unknown[0])[:50]!r}")
    names = [answer[key] for key in _DISPLAY_NAMES if answer.get(key) is not None]
    if len(names) > 1:
        raise InvalidInput("the answer has both display_name and displayName")
    properties = answer.get("properties")
    if properties is not None:
        # A copy through JSON: tuples become lists, keys become text, and the function keeps no hold on it.
        properties = cast(JsonObject, json.loads(json.dumps(check_properties(properties))))
    return Profile(
        display_name=check_text(names[0], "display_name") if names else None,
        properties=properties,
    )


def public_message(text: str) -> str:
    """A refusal's text as a client may read it: one line of at most MAX_MESSAGE characters."""
    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text[: 4 * MAX_MESSAGE])
    return " ".join(clean.split())[:MAX_MESSAGE] or DENIED
