"""Tokens by which an application lets its users in without a password (Kandy protocol notes, 2.2).

Clients pass them through unread, so the form is the server's own: base64url of JSON, a dot, and base64url of the
HMAC-SHA256 of what is before the dot, both without padding. Of every token there is exactly one spelling.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass, field

import msgspec

MAX_TOKEN = 2 * 1024
"""Characters of a token."""
MIN_NONCE = 16
MAX_NONCE = 64
_MAX_TIME = 2**53
_SIGNATURE = 43
"""Characters of the base64url of 32 bytes."""


class HmacTokenError(ValueError):
    """The token is malformed, too long, or not signed with the key. The message names no part of it."""


@dataclass(frozen=True, slots=True)
class HmacClaims:
    """What a token says.

    Attributes:
        subscriber: the user.
        organization: the application, by which the key is found.
        issued_at: seconds since 1970; how long it is good from there is for the server to say.
        nonce: 16 to 64 random characters, by which a token is used once.
    """

    subscriber: str
    organization: str
    issued_at: int
    nonce: str = field(repr=False)

    def __post_init__(self) -> None:
        if not self.subscriber or not self.organization:
            raise HmacTokenError("A token names a subscriber and an organization")
        if not 0 <= self.issued_at < _MAX_TIME:
            raise HmacTokenError("The time of issue is out of bounds")
        if not MIN_NONCE <= len(self.nonce) <= MAX_NONCE:
            raise HmacTokenError(f"A nonce has {MIN_NONCE} to {MAX_NONCE} characters")


class _Claims(msgspec.Struct, rename="camel"):
    subscriber_id: str
    organization_id: str
    issued_at: int
    nonce: str


class _Payload(msgspec.Struct, rename="camel"):
    authentication_token_request: _Claims


_PAYLOAD = msgspec.json.Decoder(_Payload)


def encode(key: bytes, claims: HmacClaims) -> str:
    """Make a token.

    Raises:
        HmacTokenError: it would be too long, or a claim has no UTF-8 form.
        ValueError: the key is empty.
    """
    inner = _Claims(claims.subscriber, claims.organization, claims.issued_at, claims.nonce)
    try:
        payload = _to_base64url(msgspec.json.encode(_Payload(inner)))
    except (UnicodeEncodeError, OverflowError):
        raise HmacTokenError("A claim cannot be written") from None
    token = f"{payload}.{_sign(key, payload)}"
    if len(token) > MAX_TOKEN:
        raise HmacTokenError("The token is too long")
    return token


def decode(key: bytes, token: str) -> HmacClaims:
    """Read a token and verify its signature, before anything in it is looked at.

    Raises:
        HmacTokenError: see there.
        ValueError: the key is empty.
    """
    payload, signature = _split(token)
    if not hmac.compare_digest(_sign(key, payload), signature):
        raise HmacTokenError("The token is not signed with the key")
    return _claims(payload)


def peek(token: str) -> tuple[str, str]:
    """The subscriber and organization that a token claims to be of, **unverified**: only to look up the key.

    Raises:
        HmacTokenError: see there.
    """
    claims = _claims(_split(token)[0])
    return claims.subscriber, claims.organization


def _sign(key: bytes, payload: str) -> str:
    if not key:
        raise ValueError("The key is empty")
    return _to_base64url(hmac.digest(key, payload.encode("ascii"), "sha256"))


def _split(token: str) -> tuple[str, str]:
    if len(token) > MAX_TOKEN or not token.isascii():
        raise HmacTokenError("The token is too long or not ASCII")
    payload, _, signature = token.partition(".")
    if not payload or len(signature) != _SIGNATURE:
        raise HmacTokenError("The token is no payload and signature")
    return payload, signature


def _claims(payload: str) -> HmacClaims:
    try:
        raw = base64.b64decode(payload + "=" * (-len(payload) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise HmacTokenError("The token is no base64url") from None
    if _to_base64url(raw) != payload:
        raise HmacTokenError("The token is no base64url")
    try:
        claims = _PAYLOAD.decode(raw).authentication_token_request
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise HmacTokenError("The token holds no claims") from None
    return HmacClaims(claims.subscriber_id, claims.organization_id, claims.issued_at, claims.nonce)


def _to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
