"""Signatures of webhook requests: HMAC-SHA256 (RFC 2104) over time and body."""

from __future__ import annotations

import hashlib
import hmac
import time

TIMESTAMP_HEADER = "Offhook-Timestamp"
SIGNATURE_HEADER = "Offhook-Signature"


def sign(secret: str, timestamp: int, body: bytes) -> str:
    """The value of the ``Offhook-Signature`` header.

    Args:
        secret: the application's webhook secret.
        timestamp: seconds since 1970, as in the ``Offhook-Timestamp`` header.
        body: the request's body.
    """
    message = f"{timestamp}.".encode() + body
    return "v1=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def verify_signature(
    secret: str,
    timestamp: str,
    body: bytes,
    signature: str,
    tolerance: float = 300,
    *,
    now: float | None = None,
) -> bool:
    """Whether a webhook request comes from the server, for those who receive it::

        if not verify_signature(secret, headers["Offhook-Timestamp"], body, headers["Offhook-Signature"]):
            return 401

    Args:
        secret: the application's webhook secret.
        timestamp: the ``Offhook-Timestamp`` header.
        body: the body's bytes as received, before any parsing.
        signature: the ``Offhook-Signature`` header. Several signatures may be given, separated by commas; one
            must fit.
        tolerance: seconds that the timestamp may differ from now; bounds the replay of a request that was
            overheard.
        now: seconds since 1970; the present unless given.
    """
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 12):
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        return False
    expected = sign(secret, int(timestamp), body).encode()
    return any(
        hmac.compare_digest(expected, candidate.strip().encode(errors="replace")) for candidate in signature.split(",")
    )
