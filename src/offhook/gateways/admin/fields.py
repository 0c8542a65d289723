"""Strict reading of what operators send: fields have types and ranges, and unknown ones are refused."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TypeVar

from starlette.requests import Request

from offhook.domain.values import PageRequest
from offhook.errors import InvalidInput, TooLarge

MAX_BODY = 256 * 1024
"""Bytes of a request's body."""
MAX_PAGE = 500
"""Items of one page."""
MAX_PAGE_NUMBER = 1_000_000

E = TypeVar("E", bound=StrEnum)


class Fields:
    """The members of a JSON object, to be read by name; ``finish`` refuses those that nobody read.

    Args:
        values: the object.
        prefix: what the object is called in messages, e.g. ``tokens``; empty for the whole body.
    """

    def __init__(self, values: Mapping[str, object], prefix: str = "") -> None:
        self._values = values
        self._prefix = f"{prefix}." if prefix else ""
        self._read: set[str] = set()

    def __contains__(self, name: str) -> bool:
        self._read.add(name)
        return name in self._values

    def raw(self, name: str) -> object:
        """The member as it came; None if it is absent."""
        self._read.add(name)
        return self._values.get(name)

    def text(self, name: str) -> str | None:
        """A string, or None if it is absent or null."""
        value = self.raw(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "a string")
        return value

    def required(self, name: str) -> str:
        """A string that must be there."""
        value = self.text(name)
        if value is None:
            raise InvalidInput(f"{self._prefix}{name} is required", f"{self._prefix}{name}")
        return value

    def flag(self, name: str) -> bool | None:
        """A boolean, or None if it is absent or null."""
        value = self.raw(name)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within bounds, or the default if it is absent."""
        value = self._values.get(name, default)
        self._read.add(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within bounds, or the default if it is absent."""
        value = self._values.get(name, default)
        self._read.add(name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return value

    def choice(self, name: str, default: E) -> E:
        """A member of an enumeration, or the default if it is absent."""
        value = self._values.get(name, default)
        self._read.add(name)
        kind = type(default)
        if not isinstance(value, str) or value not in list(kind):
            raise self.wrong(name, f"one of {', '.join(kind)}")
        return kind(value)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None if it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.wrong(name, "a list of strings")
        return tuple(value)

    def child(self, name: str) -> Fields | None:
        """An object, or None if it is absent or null."""
        value = self.raw(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.wrong(name, "an object")
        return Fields(value, f"{self._prefix}{name}")

    def wrong(self, name: str, what: str) -> InvalidInput:
        """The error for a member that should have been something else."""
        return InvalidInput(f"{self._prefix}{name} must be {what}", f"{self._prefix}{name}")

    def finish(self) -> None:
        """Raises InvalidInput if the object has a member that was not asked for."""
        for name in self._values:
            if name not in self._read:
                raise InvalidInput(f"There is no field {self._prefix}{name[:100]}", f"{self._prefix}{name[:100]}")


async def read_body(request: Request, *, optional: bool = False) -> Fields:
    """The JSON object in a request's body.

    Args:
        request: the request.
        optional: whether an empty body stands for an empty object.

    Raises:
        InvalidInput: it is no JSON object.
        TooLarge: it has more than MAX_BODY bytes.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise TooLarge("The body is too large", MAX_BODY)
    if optional and not body:
        return Fields({})
    try:
        value: object = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The body must be JSON") from error
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object")
    return Fields(value)


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


class Query:
    """The query parameters of a request, each at most once, unknown ones refused."""

    def __init__(self, request: Request, allowed: Sequence[str]) -> None:
        self._values: dict[str, str] = {}
        for name, value in request.query_params.multi_items():
            if name not in allowed:
                raise InvalidInput(f"There is no parameter {name[:100]}", name[:100])
            if name in self._values:
                raise InvalidInput(f"{name} must be given once", name)
            self._values[name] = value

    def text(self, name: str) -> str | None:
        """The parameter, or None."""
        return self._values.get(name)

    def flag(self, name: str) -> bool | None:
        """``true`` or ``false``, or None if it is absent."""
        match self._values.get(name):
            case None:
                return None
            case "true":
                return True
            case "false":
                return False
        raise InvalidInput(f"{name} must be true or false", name)

    def page(self) -> PageRequest:
        """``page`` (from 0) and ``size`` (25 unless given)."""
        return PageRequest(self._integer("page", 0, 0, MAX_PAGE_NUMBER), self._integer("size", 25, 1, MAX_PAGE))

    def _integer(self, name: str, default: int, low: int, high: int) -> int:
        text = self._values.get(name)
        if text is None:
            return default
        if not text.isascii() or not text.isdigit() or len(text) > 10 or not low <= int(text) <= high:
            raise InvalidInput(f"{name} must be a whole number from {low} to {high}", name)
        return int(text)
