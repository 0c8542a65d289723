"""Credentials for a TURN server that shares a secret with this one (draft-uberti-behave-turn-rest-00, section 2.2).

coturn calls it ``use-auth-secret``. Nothing is stored: the name holds the expiry, and the password proves that the
server that knows the secret gave out the name.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TurnCredentials:
    """What a client gives to every TURN server of its own configuration (Kandy protocol notes, 8.12).

    Attributes:
        username: ``{expiry}:{user}``.
        password: base64.
    """

    username: str
    password: str = field(repr=False)


def credentials(secret: str, user: str, expires_at: int) -> TurnCredentials:
    """Make credentials.

    Args:
        secret: shared with the TURN server.
        user: for the TURN server's log; may hold colons, because the name is split at the first one.
        expires_at: seconds since 1970, after which the server allocates nothing more.

    Raises:
        ValueError: the secret is empty, which would let anybody make credentials.
    """
    if not secret:
        raise ValueError("The TURN secret is empty")
    username = f"{expires_at}:{user}"
    digest = hmac.digest(secret.encode(), username.encode(), "sha1")
    return TurnCredentials(username, base64.b64encode(digest).decode())
