"""Small shared values: JSON and pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from offhook.errors import InvalidInput

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """Which part of a list is wanted.

    Attributes:
        number: page number from 0.
        size: items a page.
        descending: reverse the list's order.
    """

    number: int = 0
    size: int = 25
    descending: bool = False

    @property
    def offset(self) -> int:
        return self.number * self.size


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a list and the size of the whole."""

    items: Sequence[T]
    total: int
    request: PageRequest

    @property
    def pages(self) -> int:
        return -(-self.total // self.request.size)

    @property
    def has_next(self) -> bool:
        return self.request.number + 1 < self.pages

    @property
    def has_previous(self) -> bool:
        return self.request.number > 0


def json_size(value: object, max_depth: int, field: str) -> int:
    """Bytes of ``value`` as JSON.

    Raises:
        InvalidInput: nested deeper than ``max_depth``, or not JSON at all.
    """
    _check_depth(value, max_depth, field)
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"{field} must be JSON", field) from error


def _check_depth(value: object, left: int, field: str) -> None:
    if isinstance(value, dict | list):
        if left == 0:
            raise InvalidInput(f"{field} is nested too deeply", field)
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1, field)
