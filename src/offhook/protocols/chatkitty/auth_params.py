"""The ``StompX-Auth-Params`` header, in all the ways clients have written it (ChatKitty protocol notes, 2.2)."""

from __future__ import annotations

import base64
import binascii
import json

_JSON_STARTS = '{["-0123456789tfn'


class AuthParamsError(ValueError):
    """The header holds no JSON object in any known encoding."""


def decode(value: str | None) -> dict[str, object]:
    """Reads the header.

    Args:
        value: JSON text, or its base64 over UTF-8 (Swift) or Latin-1 (JavaScript) bytes; None or blank is ``{}``.

    Raises:
        AuthParamsError: none of these, or the JSON is not an object.
    """
    if value is None or not (text := value.strip()):
        return {}
    if text[0] in _JSON_STARTS:
        try:
            return _object(json.loads(text))
        except (json.JSONDecodeError, RecursionError):
            pass
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise AuthParamsError("StompX-Auth-Params is neither JSON nor base64") from None
    try:
        decoded = raw.decode()
    except UnicodeDecodeError:
        decoded = raw.decode("latin-1")
    try:
        return _object(json.loads(decoded))
    except (json.JSONDecodeError, RecursionError):
        raise AuthParamsError("StompX-Auth-Params is not JSON") from None


def _object(value: object) -> dict[str, object]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise AuthParamsError("StompX-Auth-Params is not a JSON object")
    return value
