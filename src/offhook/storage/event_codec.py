"""Events as the journal stores them: ``{"type": "user_updated", "user": {...}}``.

What is stored outlives the version that wrote it: fields it does not know are skipped, and fields that are missing
take the value objects' defaults.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from offhook.domain.events import EVENT_TYPES, Event

T = TypeVar("T")


class UnknownEvent(ValueError):
    """Stored bytes that are no event of this version."""


def encode(event: Event) -> bytes:
    """The event as JSON.

    Raises:
        UnicodeEncodeError: it holds text that is no Unicode (lone surrogates).
    """
    fields = {name: getattr(event, name) for name in _FIELDS[type(event)]}
    return _ENCODER.encode({"type": _TAGS[type(event)], **fields})


def decode(data: bytes) -> Event:
    """The event that ``encode`` was given.

    Raises:
        UnknownEvent: the bytes are no event that this version knows.
    """
    try:
        return _READERS[_TAG.decode(data).type](data)
    except (msgspec.DecodeError, KeyError) as error:
        raise UnknownEvent(f"not an event: {error}") from error


class _Tag(msgspec.Struct):
    type: str


_TAG = msgspec.json.Decoder(_Tag)
_ENCODER = msgspec.json.Encoder()
_TAGS: dict[type[Event], str] = {kind: re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower() for kind in EVENT_TYPES}
_FIELDS: dict[type[Event], tuple[str, ...]] = {
    kind: tuple(field.name for field in dataclasses.fields(kind)) for kind in EVENT_TYPES
}


def _hints(kind: type[object]) -> Mapping[str, Any]:
    # msgspec cannot resolve the recursive JsonValue; what is read there was checked before it was stored.
    return typing.get_type_hints(kind, localns={"JsonValue": Any})


def _mirror(kind: type[object]) -> type[msgspec.Struct]:
    """A struct with the fields of a dataclass, for msgspec to decode into."""
    hints = _hints(kind)
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for field in dataclasses.fields(typing.cast(Any, kind)):
        hint = hints[field.name]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            hint = _mirror(hint)
        if field.default is not dataclasses.MISSING:
            fields.append((field.name, hint, field.default))
        elif field.default_factory is not dataclasses.MISSING:
            fields.append((field.name, hint, msgspec.field(default_factory=field.default_factory)))
        else:
            fields.append((field.name, hint))
    return msgspec.defstruct(kind.__name__, fields)


def _builder(kind: type[T]) -> Callable[[object], T]:
    """Makes the function that turns a mirror of a dataclass into the dataclass."""
    hints = _hints(kind)
    names = [field.name for field in dataclasses.fields(typing.cast(Any, kind))]
    nested = {name: _builder(hints[name]) for name in names if dataclasses.is_dataclass(hints[name])}

    def build(mirror: object) -> T:
        values = {name: getattr(mirror, name) for name in names}
        for name, inner in nested.items():
            values[name] = inner(values[name])
        return kind(**values)

    return build


def _reader(kind: type[Event]) -> Callable[[bytes], Event]:
    decoder = msgspec.json.Decoder(_mirror(kind))
    build = _builder(kind)
    return lambda data: build(decoder.decode(data))


_READERS: dict[str, Callable[[bytes], Event]] = {tag: _reader(kind) for kind, tag in _TAGS.items()}
