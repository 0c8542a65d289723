"""Signing in for tokens instead of a session (Kandy protocol notes, 2.4 and 2.5).

Nothing of the tokens is stored. Each says whose it is, how that was proved, and until when it is good; its MAC also
covers the user's stored password hash, so that all of a user's tokens die with the password they were got by.

Clients go on using the first access token of a session after they got newer ones. So one that has run out stays good
while a subscription lives that was made by the same sign-in.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from offhook.codes import EndReason
from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Authentication, Client, Session
from offhook.errors import AccessDenied, UserDisabled
from offhook.ports import Clock, Store, Transaction
from offhook.services.authentication import Authenticator, Verdict, admit, merge, newcomer
from offhook.services.presence import leave
from offhook.services.proofs import PasswordProof, attempt_by, check_authname
from offhook.services.signing import Signer
from offhook.services.starting import ended_with_story

MIN_LIFETIME, MAX_LIFETIME, DEFAULT_LIFETIME = 600.0, 24 * 3600.0, 3600.0
"""Seconds for which access tokens are good. Clients refresh without a pause what lives for 300 or less."""
REFRESH_LIFETIME = timedelta(days=30)
"""How long after the sign-in its tokens are good, however often they are refreshed."""
JUDGED_LIFETIME = timedelta(hours=24)
"""The same, if the application's function judged the sign-in: it is to be asked again."""

ACCESS, REFRESH = "a", "r"

_INVALID = "The token is not valid"
_FORM = re.compile(
    r"([ar])-([0-9]{1,18})-([0-9]{1,18})-([0-9a-f]{16})-([a-z]{1,16})-([0-9]{1,12})-([0-9]{1,12})\.([A-Za-z0-9_-]{22})"
)


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a client that signed in gets.

    Attributes:
        access: its proof from now on.
        refresh: gets it new ones.
        expires: seconds for which ``access`` is good.
    """

    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires: int


@dataclass(frozen=True, slots=True)
class Login:
    """A sign-in, as one of its tokens tells it.

    Attributes:
        application: where.
        user: who signed in.
        id: tells it from the user's others.
        authentication: how the user proved it.
        began: when the user signed in, in seconds since the epoch.
        password_hash: the user's stored one, to which the token is bound; None if there is none.
    """

    application: Application
    user: User
    id: str
    authentication: Authentication
    began: int
    password_hash: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LoginToken:
    """A token's content.

    Attributes:
        kind: ACCESS or REFRESH.
        application_id: the user's application.
        user_id: the user.
        login: id of the sign-in.
        authentication: how the user proved it.
        began: when the user signed in, in seconds since the epoch.
        expires: seconds since the epoch.
    """

    kind: str
    application_id: int
    user_id: int
    login: str
    authentication: Authentication
    began: int
    expires: int

    @property
    def _text(self) -> str:
        ids = f"{self.application_id}-{self.user_id}-{self.login}"
        return f"{self.kind}-{ids}-{self.authentication.value}-{self.began}-{self.expires}"

    def _mac(self, signer: Signer, password_hash: str | None) -> str:
        return signer.mac("login", f"{self._text}\0{password_hash or ''}")

    def encode(self, signer: Signer, password_hash: str | None) -> str:
        """The text for the client: of ``[A-Za-z0-9._-]`` only."""
        return f"{self._text}.{self._mac(signer, password_hash)}"

    def made(self, text: str, signer: Signer, password_hash: str | None) -> bool:
        """Whether a text is this token, made by us while the user had this password."""
        return hmac.compare_digest(text.encode(), self.encode(signer, password_hash).encode())

    @staticmethod
    def read(text: str) -> LoginToken | None:
        """What a text claims to be that looks like one of our tokens; None if it does not. See ``made``."""
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        kind, application_id, user_id, login, authentication, began, expires, _ = match.groups()
        try:
            proved = Authentication(authentication)
        except ValueError:
            return None
        return LoginToken(kind, int(application_id), int(user_id), login, proved, int(began), int(expires))


class Logins:
    """Use cases around sign-ins for tokens."""

    def __init__(self, store: Store, authenticator: Authenticator, signer: Signer, clock: Clock) -> None:
        self._store = store
        self._authenticator = authenticator
        self._signer = signer
        self._clock = clock

    async def log_in(
        self, application: Application, username: str, proof: PasswordProof, lifetime: float | None, client: Client
    ) -> Tokens:
        """Signs a user in; one who is unknown comes to be, if the application's function says so.

        Args:
            application: where.
            username: who the client says it is.
            proof: what it sent to prove it.
            lifetime: seconds for which the access token shall be good, or None.
            client: what is known of the client.

        Raises:
            AccessDenied: the credentials are refused, or the user is disabled.
            RateLimited: too many refused attempts.
            Unavailable: too many passwords or attempts wait, or the store does not take it.
        """
        attempt = attempt_by(application.name, username, proof, client.address)

        async def judge() -> Verdict:
            if not self._authenticator.asks_function(application):
                check_authname(proof, username)
            return await self._authenticator.judge(application, attempt)

        async with self._authenticator.guard(application, username, client.address, judge) as verdict:
            # Who has a password is known, and nothing is stored: that need not wait for a commit.
            work = self._store.query if verdict.authentication is Authentication.PASSWORD else self._store.transact
            login = await work(lambda tx: self._log_in(tx, application, username, verdict))
        rehash = self._authenticator.renew_hash(application, attempt, verdict)
        # The tokens are to be bound to the hash that stays.
        renewed = None if rehash is None else await asyncio.shield(rehash)
        return self._issue(login, lifetime, renewed or login.password_hash)

    def _log_in(self, tx: Transaction, application: Application, username: str, verdict: Verdict) -> Login:
        user, hashed = tx.users.by_name(application.id, username), None
        if user is None:
            user = tx.users.add(newcomer(application, username, verdict, self._clock.now()))
        else:
            hashed = tx.users.password_hash(user.id)
            admit(application, verdict, user, hashed)
            if verdict.profile is not None:
                user = merge(tx, user, verdict.profile)
        began = int(self._clock.now().timestamp())
        return Login(application, user, secrets.token_hex(8), verdict.authentication, began, hashed)

    async def refresh(self, token: str, lifetime: float | None) -> Tokens:
        """New tokens of the same sign-in, which are not good for longer than it is.

        Args:
            token: an access or a refresh token: clients send either (Kandy protocol notes, 2.5).
            lifetime: as for ``log_in``.

        Raises:
            AccessDenied: it is none of ours, has run out, or the user is gone, disabled or has another password.
        """
        login = await self._store.query(lambda tx: self.read(tx, token, refresh=True))
        return self._issue(login, lifetime, login.password_hash)

    async def revoke(self, token: str) -> Sequence[Session]:
        """Makes all tokens of a sign-in worthless, and ends the subscriptions that were made by it.

        Args:
            token: one of them, even if it has run out by now.

        Returns:
            The sessions that ended, for ``SessionService.tell_ended``.

        Raises:
            AccessDenied: as ``refresh`` does otherwise.
        """

        def work(tx: Transaction) -> Sequence[Session]:
            login = self.read(tx, token, refresh=True, expired=True)
            now = self._clock.now()
            tx.use_token(_revoked(login.id), now + REFRESH_LIFETIME)
            return [
                self._end(tx, session, now)
                for subscription in tx.subscriptions.live_of(login.user.id)
                if subscription.login == login.id and (session := tx.sessions.get(subscription.session_id)) is not None
            ]

        return await self._store.transact(work)

    @staticmethod
    def _end(tx: Transaction, session: Session, now: datetime) -> Session:
        ended, story = ended_with_story(session, now, EndReason.CLIENT, "")
        tx.sessions.save(ended, story)
        leave(tx, session.application_id, session.user_id, now)
        return ended

    def expecting(self, token: str) -> Callable[[Transaction, int], None]:
        """What checks inside a transaction that an access token is good, and of the user with an id.

        It raises AccessDenied: as ``open`` does, and for another user.
        """

        def check(tx: Transaction, user_id: int) -> None:
            if self.read(tx, token).user.id != user_id:
                raise AccessDenied("The token is another user's")

        return check

    async def open(self, token: str) -> Login:
        """The sign-in that an access token is of.

        Raises:
            AccessDenied: as ``refresh`` does, and for refresh tokens.
        """
        return await self._store.query(lambda tx: self.read(tx, token))

    def read(self, tx: Transaction, token: str, *, refresh: bool = False, expired: bool = False) -> Login:
        """As ``open``, inside a transaction.

        Args:
            tx: the transaction.
            token: the token.
            refresh: whether a refresh token will do, too.
            expired: whether one that has run out will.

        Raises:
            AccessDenied: as ``open`` does.
        """
        shown = LoginToken.read(token)
        if shown is None:
            raise AccessDenied(_INVALID)
        user = tx.users.get(shown.application_id, shown.user_id)
        hashed = None if user is None else tx.users.password_hash(user.id)
        if user is None or not shown.made(token, self._signer, hashed) or (shown.kind == REFRESH and not refresh):
            raise AccessDenied(_INVALID)
        application = tx.applications.get(shown.application_id)
        if application is None or not application.enabled:
            raise AccessDenied("The application is disabled")
        if not user.enabled:
            raise UserDisabled("The user is disabled")
        if tx.token_used(_revoked(shown.login)):
            raise AccessDenied(_INVALID)
        login = Login(application, user, shown.login, shown.authentication, shown.began, hashed)
        now = self._clock.now().timestamp()
        over = min(_last(login), shown.expires) <= now
        if over and not expired and not self._lives_on(tx, shown):
            raise AccessDenied("The token has expired")
        return login

    @staticmethod
    def _lives_on(tx: Transaction, shown: LoginToken) -> bool:
        return shown.kind == ACCESS and any(
            subscription.login == shown.login for subscription in tx.subscriptions.live_of(shown.user_id)
        )

    def _issue(self, login: Login, lifetime: float | None, password_hash: str | None) -> Tokens:
        wanted = DEFAULT_LIFETIME if lifetime is None else lifetime
        # In this order, a lifetime that is no number becomes the shortest.
        expires = int(min(max(MIN_LIFETIME, wanted), MAX_LIFETIME))
        now, last = int(self._clock.now().timestamp()), _last(login)
        # Clients would refresh what lives for less without a pause.
        expires = max(int(MIN_LIFETIME), min(expires, last - now))

        def token(kind: str, until: int) -> str:
            ids = (login.application.id, login.user.id, login.id)
            return LoginToken(kind, *ids, login.authentication, login.began, until).encode(self._signer, password_hash)

        return Tokens(token(ACCESS, now + expires), token(REFRESH, last), expires)


def _last(login: Login) -> int:
    """When no token of a sign-in is good any more, in seconds since the epoch."""
    judged = login.authentication is Authentication.FUNCTION
    return login.began + int((JUDGED_LIFETIME if judged else REFRESH_LIFETIME).total_seconds())


def _revoked(login: str) -> str:
    """By what it is remembered that a sign-in was revoked, for as long as any token of it could be good."""
    return f"login.{login}"


def is_ours(token: str) -> bool:
    """Whether a text looks like one of our tokens; JWTs never do, as they have two dots."""
    return _FORM.fullmatch(token) is not None
