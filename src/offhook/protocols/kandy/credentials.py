"""How a request says who it is from (Kandy protocol notes, 2.1 to 2.4).

A request may carry several: a UC client that signs in again still has the token of the last time in its query, and the
calls of 3.x clients come with a token and a password of which either may be the valid one.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

MAX_CREDENTIAL = 8 * 1024
"""Characters of one header or parameter."""

_NOTHING = frozenset({"", "undefined", "null"})
"""What a JavaScript client writes when it has nothing to write."""


class CredentialError(ValueError):
    """A credential is there, but cannot be understood.

    Args:
        message: one sentence that may be shown to the client.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Basic:
    """A name and a password.

    Attributes:
        authname: who signs in; not always the user of the path.
        password: may be empty, and may hold colons.
    """

    authname: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token of ``Authorization: Bearer``, or of ``access_token`` in the query of a WebSocket."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class QueryToken:
    """A token of ``token`` in the query."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HmacToken:
    """A token of ``x-token``, signed by the application; to be exchanged for a session."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class HmacSession:
    """The session of ``x-session``, which such a token was exchanged for."""

    session_id: str = field(repr=False)


Credential = Basic | Bearer | QueryToken | HmacToken | HmacSession


def parse_credentials(
    authorization: str | None = None,
    x_token: str | None = None,
    x_session: str | None = None,
    query_token: str | None = None,
    access_token: str | None = None,
) -> tuple[Credential, ...]:
    """The credentials of a request in the order in which to try them: what is in headers first.

    Args:
        authorization: the header.
        x_token: the header.
        x_session: the header.
        query_token: the parameter ``token``.
        access_token: the parameter ``access_token``.

    Raises:
        CredentialError: the ``Authorization`` header is malformed or of a scheme that is not known, or one of the
            others is too long.
    """
    found: list[Credential] = []
    if (value := _given(authorization)) is not None:
        found.append(_parse_authorization(value))
    if (value := _given(x_session)) is not None:
        found.append(HmacSession(value))
    if (value := _given(x_token)) is not None:
        found.append(HmacToken(value))
    if (value := _given(access_token)) is not None:
        found.append(Bearer(value))
    if (value := _given(query_token)) is not None:
        found.append(QueryToken(value))
    return tuple(found)


def _given(value: str | None) -> str | None:
    if value is None or (text := value.strip()) in _NOTHING:
        return None
    if len(text) > MAX_CREDENTIAL:
        raise CredentialError("A credential is too long")
    return text


def _parse_authorization(value: str) -> Credential:
    scheme, _, rest = value.partition(" ")
    rest = rest.strip()
    match scheme.lower():
        case "basic":
            return _parse_basic(rest)
        case "bearer" if rest:
            return Bearer(rest)
        case "bearer":
            raise CredentialError("The bearer token is missing")
        case _:
            raise CredentialError("The Authorization header is neither Basic nor Bearer")


def _parse_basic(encoded: str) -> Basic:
    unpadded = encoded.rstrip("=")
    try:
        text = base64.b64decode(unpadded + "=" * (-len(unpadded) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        raise CredentialError("The Basic credentials are no base64 of UTF-8") from None
    authname, colon, password = text.partition(":")
    if not colon or not authname:
        raise CredentialError("The Basic credentials are no name and password")
    return Basic(authname, password)
