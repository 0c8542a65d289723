"""Signing in by tokens that an application's own back end makes (Kandy protocol notes, 2.2).

The back end shares a key with the server, which is derived from the server's own, so that nothing is stored. A token
is good for a few minutes and for one subscription; the answer to that gives the client a session id, and this is what
it shows from then on, in later subscriptions too, for a day. What a session goes back to is stored with its
subscription: when the token was shown, and a fingerprint of the password that the user had then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from offhook.codes import EndReason
from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Session
from offhook.domain.values import PageRequest
from offhook.errors import AccessDenied
from offhook.ports import Clock, SessionFilter, Transaction
from offhook.services.signing import Signer

MAX_AGE = 300
"""Seconds after it was made for which a token is good."""
AHEAD = 60
"""Seconds that the back end's clock may be ahead."""
AFTERLIFE = timedelta(hours=24)
"""How long after its end a session's id is still good for a new subscription."""
CHAIN = timedelta(hours=24)
"""How long after a token was shown session ids that go back to it are good for new subscriptions."""
REOPENABLE = frozenset(
    {
        EndReason.CLIENT,
        EndReason.LEASE_EXPIRED,
        EndReason.NOT_RENEWED,
        EndReason.NOT_CONNECTED,
        EndReason.HISTORY_LOST,
        EndReason.REPLACED,
    }
)
"""Ends that were no decision against the user."""

_MAX_SESSION = 100
_MAX_PAST = 200
_ORIGIN = "hmac"


class HmacClaims(Protocol):
    """What a token says."""

    @property
    def subscriber(self) -> str:
        """The whole username."""

    @property
    def organization(self) -> str:
        """The application's domain."""

    @property
    def issued_at(self) -> int:
        """When it was made, in seconds since the epoch."""

    @property
    def nonce(self) -> str:
        """Tells it from all others."""


HmacDecoder = Callable[[bytes, str], HmacClaims]
"""Takes the key and a token; gives what the token says, or raises ValueError unless it was made with the key."""


@dataclass(frozen=True, slots=True)
class UsedToken:
    """A token that is good for one use, to be used up by the transaction that it starts.

    Attributes:
        digest: names it, without being it.
        until: when it is not good any more by itself.
    """

    digest: str
    until: datetime

    def use(self, tx: Transaction) -> None:
        """Uses it up. Raises AccessDenied if it was used already."""
        if not tx.use_token(self.digest, self.until):
            raise AccessDenied("The token was used already")


@dataclass(frozen=True, slots=True)
class HmacStay:
    """A session whose id a client shows.

    Attributes:
        session: the session.
        origin: what it goes back to, to be stored with each subscription that it leads to.
    """

    session: Session
    origin: str


class HmacTokens:
    """Checks HMAC tokens, and the session ids that follow them."""

    def __init__(self, signer: Signer, clock: Clock, decode: HmacDecoder) -> None:
        self._signer = signer
        self._clock = clock
        self._decode = decode

    def key(self, application: Application) -> str:
        """What the application's back end makes its tokens with: 64 characters, whose bytes are the key."""
        return self._signer.derive_for("hmac", application)

    def check(self, application: Application, username: str, token: str) -> UsedToken:
        """Checks a token, but for whether it was used already.

        Raises:
            AccessDenied: it is not made with the application's key, for another user, too old, or from the future.
        """
        key = self.key(application).encode()
        try:
            claims = self._decode(key, token)
        except ValueError:
            raise AccessDenied("The token is not valid") from None
        if claims.organization.casefold() != application.domain.casefold():
            raise AccessDenied("The token is for another domain")
        if claims.subscriber != username:
            raise AccessDenied("The token is for another user")
        age = int(self._clock.now().timestamp()) - claims.issued_at
        if age > MAX_AGE:
            raise AccessDenied("The token has expired")
        if age < -AHEAD:
            raise AccessDenied("The token is not valid yet")
        nonce = claims.nonce.encode(errors="backslashreplace")
        digest = hashlib.blake2b(nonce, digest_size=16, key=key).hexdigest()
        # One second more: the token is good up to and in its last one.
        return UsedToken(digest, datetime.fromtimestamp(claims.issued_at + MAX_AGE + 1, UTC))

    def origin(self, tx: Transaction, application: Application, username: str) -> str:
        """What a session that begins with a token goes back to: to be stored as its subscription's ``login``."""
        user = tx.users.by_name(application.id, username)
        password_hash = None if user is None else tx.users.password_hash(user.id)
        return self._origin(int(self._clock.now().timestamp()), password_hash)

    def _origin(self, began: int, password_hash: str | None) -> str:
        return f"{_ORIGIN}-{began}-{self._signer.mac('hmac-password', password_hash or '')}"

    def session_id(self, session: Session) -> str:
        """What the client of a session that began with a token is to show from then on: URL-safe."""
        return self._signer.sign("hmac-session", str(session.id))

    def session(
        self, tx: Transaction, application: Application, user: User | None, shown: str, *, ended: bool
    ) -> HmacStay:
        """The session that a client shows the id of.

        Args:
            tx: the transaction.
            application: the user's application.
            user: the user whom the client wants to be.
            shown: what ``session_id`` gave it.
            ended: whether it is for a new subscription. For that, one that has ended will do, unless somebody decided
                against the user since, or long ago; but what it goes back to must not be long ago.

        Raises:
            AccessDenied: it is none of ours, another user's, or has ended, or the user's password was changed.
        """
        text = self._signer.check("hmac-session", shown) if len(shown) <= _MAX_SESSION else None
        session = None if text is None else tx.sessions.get(int(text))
        if session is None or user is None:
            raise AccessDenied("The session is unknown")
        if (session.application_id, session.user_id) != (application.id, user.id):
            raise AccessDenied("The session is another user's")
        if not session.live and not (ended and self._reopenable(tx, session)):
            raise AccessDenied("The session has ended")
        subscription = tx.subscriptions.get(session.id)
        origin = "" if subscription is None else subscription.login
        kind, _, rest = origin.partition("-")
        began = rest.partition("-")[0]
        if kind != _ORIGIN or origin != self._origin(int(began), tx.users.password_hash(user.id)):
            raise AccessDenied("The session is from before the password was changed")
        if ended and self._clock.now().timestamp() >= int(began) + CHAIN.total_seconds():
            raise AccessDenied("A new token is needed")
        return HmacStay(session, origin)

    def _reopenable(self, tx: Transaction, session: Session) -> bool:
        ended_at = session.ended_at
        if session.end_reason not in REOPENABLE or ended_at is None or self._clock.now() >= ended_at + AFTERLIFE:
            return False
        # What somebody decided since, about another of the user's sessions, counts for this one too.
        where = SessionFilter(session.application_id, session.user_name, live=False)
        past = tx.sessions.list(where, PageRequest(size=_MAX_PAST)).items
        if all(other.id != session.id for other in past):
            return False
        return all(
            other.end_reason in REOPENABLE or other.ended_at is None or other.ended_at < ended_at for other in past
        )
