"""Signed texts: what a client may carry for us without being able to make or change it.

Session tokens and file grants hold only ids and times and a keyed BLAKE2b (RFC 7693) under the server's key, so
nothing of them is stored, and checking one needs no look-up.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from offhook.domain.accounts import Application

GRANT_LIFETIME = timedelta(days=7)
"""Clients fetch grants once in their life and keep them over reconnects (ChatKitty protocol notes, 2.7)."""
_MAC_BYTES = 16


class Signer:
    """Signs and checks short texts with one key.

    Args:
        key: at least 32 random bytes.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < 32:
            raise ValueError("the signing key must have at least 32 bytes")
        self._key = hashlib.sha512(key).digest()

    def mac(self, purpose: str, text: str) -> str:
        """The URL-safe signature of a text for one purpose; another purpose gives another signature."""
        signature = hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=_MAC_BYTES, key=self._key).digest()
        return base64.urlsafe_b64encode(signature).decode().rstrip("=")

    def sign(self, purpose: str, text: str) -> str:
        """The text with its signature: ``text.signature``."""
        return f"{text}.{self.mac(purpose, text)}"

    def check(self, purpose: str, signed: str) -> str | None:
        """The text of what ``sign`` returned, or None if it was made or changed by somebody else."""
        text, dot, signature = signed.rpartition(".")
        if not dot or not signature.isascii():
            return None
        return text if hmac.compare_digest(signature, self.mac(purpose, text)) else None

    def derive(self, purpose: str, name: str) -> str:
        """A secret of 256 bits for ``name``, hexadecimal; the same for as long as the key is."""
        return hashlib.blake2b(f"{purpose}\0{name}".encode(), digest_size=32, key=self._key).hexdigest()

    def derive_for(self, purpose: str, application: Application) -> str:
        """As ``derive``, for an application; one that is made anew under the same name has another."""
        return self.derive(purpose, f"{application.id}\0{application.name}")


@dataclass(frozen=True, slots=True)
class SessionToken:
    """What a client shows to resume its session.

    Attributes:
        session_id: the session.
        generation: of the connection it was given to.
    """

    session_id: int
    generation: int

    def encode(self, signer: Signer) -> str:
        """The text for the client: URL-safe, without colons."""
        return signer.sign("session", f"{self.session_id}-{self.generation}")

    @staticmethod
    def decode(text: str, signer: Signer) -> SessionToken | None:
        """The token in a text, or None if it is not one of ours."""
        if len(text) > 100:
            return None
        plain = signer.check("session", text)
        if plain is None:
            return None
        session_id, _, generation = plain.partition("-")
        return SessionToken(int(session_id), int(generation))


@dataclass(frozen=True, slots=True)
class Grant:
    """Leave to read or write files as a user.

    Attributes:
        kind: ``r`` or ``w``.
        application_id: the user's application.
        user_id: the user.
        expires: seconds since the epoch.
    """

    kind: str
    application_id: int
    user_id: int
    expires: int

    @staticmethod
    def issue(kind: str, application_id: int, user_id: int, now: datetime) -> Grant:
        """A new grant that lives for GRANT_LIFETIME."""
        return Grant(kind, application_id, user_id, int((now + GRANT_LIFETIME).timestamp()))

    def encode(self, signer: Signer) -> str:
        """The text for the client: of ``[A-Za-z0-9._-]`` only."""
        return signer.sign("grant", f"{self.kind}-{self.application_id}-{self.user_id}-{self.expires}")

    @staticmethod
    def decode(text: str, signer: Signer, now: datetime) -> Grant | None:
        """The grant in a text, or None if it is not one of ours or has run out."""
        if len(text) > 200:
            return None
        plain = signer.check("grant", text)
        if plain is None:
            return None
        kind, application_id, user_id, expires = plain.split("-")
        if int(expires) <= now.timestamp():
            return None
        return Grant(kind, int(application_id), int(user_id), int(expires))
