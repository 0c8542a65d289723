"""JSON out: valid for any text, without ``null``.

A lone surrogate has no UTF-8 form. It becomes U+FFFD, as browsers do it, rather than fail a whole delivery.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

_encode = msgspec.json.Encoder().encode


def encode(value: object) -> bytes:
    """The value as JSON.

    Args:
        value: made of mappings with text for keys, lists, tuples, text, numbers and booleans.
    """
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(_well_formed(value))


def quote(text: str) -> bytes:
    """The text as a JSON string, with its quotation marks."""
    try:
        return _encode(text)
    except UnicodeEncodeError:
        return _encode(_replace_surrogates(text))


def without_nulls(value: object) -> object:
    """A copy without the members whose value is None, at any depth.

    Some versions of the SDK fail over a ``null`` in an answer (Kandy protocol notes, 1.6).
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [without_nulls(item) for item in value if item is not None]
    return value


def _well_formed(value: object) -> object:
    if isinstance(value, str):
        return _replace_surrogates(value)
    if isinstance(value, Mapping):
        return {_replace_surrogates(str(key)): _well_formed(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_well_formed(item) for item in value]
    return value


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
