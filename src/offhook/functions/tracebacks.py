"""Tracebacks fit for a log: they show where a function failed and never what the client sent."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping

from offhook.domain.values import JsonValue

REDACTED = "[redacted]"


def describe(error: BaseException, auth_params: Mapping[str, JsonValue]) -> str:
    """Formats an exception with its causes, oldest first.

    Frames show source lines only. Exceptions' own texts may quote the credentials (``int(pin)`` does), so
    every value of ``auth_params`` is struck out of them.
    """
    secrets = sorted({form for value in _leaves(auth_params) for form in _forms(value)}, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, secrets)) or r"(?!)")
    parts: list[str] = []
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        text = "".join(traceback.format_exception_only(link))
        parts.append("".join(traceback.format_tb(link.__traceback__)) + pattern.sub(REDACTED, text))
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return "which led to:\n".join(reversed(parts)).rstrip()


def _leaves(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _forms(value: str) -> Iterator[str]:
    """A value as it may appear in a text: plain, and escaped as ``repr`` and ``ascii`` do."""
    if value:
        yield value
        yield repr(value)[1:-1]
        yield ascii(value)[1:-1]
