"""Who is it? Decides whether a client may start a session as a user (ChatKitty protocol notes, 8.2).

Asked in this order: the application's own function or webhook if it has one; else a bearer token; else a password;
else, if the application lets guests in, nobody has to prove anything - except that a user who has a password, or who
is known through tokens, is never a guest's to take.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Hashable
from dataclasses import dataclass
from enum import Enum

from offhook.domain.accounts import Application, User, check_username
from offhook.domain.limits import Rate, RateLimiter
from offhook.domain.sessions import Authentication
from offhook.errors import AccessDenied, InvalidInput, RateLimited, SessionLimitReached
from offhook.ports import Functions, Profile, StartAttempt, Store, Transaction
from offhook.services.passwords import Passwords
from offhook.services.tokens import TokenVerifier

UNDER_WAY = 0.2
"""What an attempt under way counts of a refused one."""
ADDRESS_FACTOR = 50
"""An address may be refused this many times more often than one user from that address: many users may share it."""


class Newcomer(Enum):
    """What an unknown user becomes."""

    REFUSED = "refused"
    GUEST = "guest"
    MEMBER = "member"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A user may start a session.

    Attributes:
        authentication: how that was proved.
        newcomer: what becomes of the user if unknown.
        profile: what to merge into the user, or None.
        password_hash: the stored hash that the password matched, or None.
    """

    authentication: Authentication
    newcomer: Newcomer
    profile: Profile | None = None
    password_hash: str | None = None


class Authenticator:
    """Judges attempts to start a session, and slows down those who guess.

    Args:
        denial: how often one user from one address may be refused; addresses get ADDRESS_FACTOR times as much.
    """

    def __init__(
        self, store: Store, functions: Functions, passwords: Passwords, tokens: TokenVerifier, denial: Rate
    ) -> None:
        self._store = store
        self._functions = functions
        self._passwords = passwords
        self._tokens = tokens
        self._by_user = RateLimiter(denial)
        self._by_address = RateLimiter(Rate(denial.per_second * ADDRESS_FACTOR, denial.burst * ADDRESS_FACTOR))

    @contextlib.asynccontextmanager
    async def attempt(self, application: Application, attempt: StartAttempt) -> AsyncIterator[Verdict]:
        """Judges an attempt to start a session; in the context the session is started.

        An attempt that is refused uses up one of the refusals that are allowed, and one under way a part of one: many
        attempts at the same time are no way around the limit.

        Raises:
            AccessDenied: the user may not start a session.
            RateLimited: too many attempts were refused or are under way.
            Unavailable: too many passwords wait to be checked.
        """
        try:
            check_username(attempt.username)
        except InvalidInput as error:
            raise AccessDenied(error.message) from None
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        now = time.monotonic()
        user = (application.id, attempt.username, attempt.address)
        wait = max(self._by_user.wait(user, now), self._by_address.wait(attempt.address, now))
        if wait > 0:
            raise RateLimited("Too many attempts to start a session were refused", wait)
        self._charge(user, attempt.address, UNDER_WAY)
        cost = 0.0
        try:
            yield await self._judge(application, attempt)
        except SessionLimitReached:
            # Who gets this has proved who they are.
            raise
        except AccessDenied:
            cost = 1.0
            raise
        finally:
            self._charge(user, attempt.address, cost - UNDER_WAY)

    def _charge(self, user: Hashable, address: str, cost: float) -> None:
        now = time.monotonic()
        self._by_user.charge(user, now, cost)
        self._by_address.charge(address, now, cost)

    async def _judge(self, application: Application, attempt: StartAttempt) -> Verdict:
        if self._functions.authenticates(application):
            profile = await self._functions.authenticate(application, attempt)
            newcomer = Newcomer.GUEST if application.guests else Newcomer.REFUSED
            return Verdict(Authentication.FUNCTION, newcomer, profile)
        token = attempt.auth_params.get("token")
        if token is not None:
            return await self._judge_token(application, attempt.username, token)
        password = attempt.auth_params.get("password")
        if password is not None:
            return await self._judge_password(application, attempt.username, password)
        if application.guests:
            return Verdict(Authentication.GUEST, Newcomer.GUEST)
        raise AccessDenied("Guests may not start a session here, and no credentials were given")

    async def _judge_token(self, application: Application, username: str, token: object) -> Verdict:
        if not isinstance(token, str):
            raise AccessDenied("authParams.token must be a string")
        if application.tokens is None:
            raise AccessDenied("This application does not accept tokens")
        verified = await self._tokens.verify(application.tokens, token, username)
        return Verdict(Authentication.TOKEN, Newcomer.MEMBER, Profile(display_name=verified.display_name))

    async def _judge_password(self, application: Application, username: str, password: object) -> Verdict:
        if not isinstance(password, str):
            raise AccessDenied("authParams.password must be a string")

        def stored(tx: Transaction) -> str | None:
            user = tx.users.by_name(application.id, username)
            return None if user is None else tx.users.password_hash(user.id)

        hashed = await self._store.query(stored)
        if not await self._passwords.verify(password, hashed) or hashed is None:
            raise AccessDenied("The username or the password is wrong")
        return Verdict(Authentication.PASSWORD, Newcomer.REFUSED, password_hash=hashed)


def admit(application: Application, verdict: Verdict, user: User, stored_hash: str | None) -> None:
    """The last word, inside the transaction that starts the session, on the user as stored by then.

    Raises:
        AccessDenied: the user was disabled, is not a guest's to take, or changed the password meanwhile.
    """
    if not user.enabled:
        raise AccessDenied("The user is disabled")
    if verdict.authentication is Authentication.PASSWORD and stored_hash != verdict.password_hash:
        raise AccessDenied("The username or the password is wrong")
    if verdict.authentication is Authentication.GUEST:
        if user.has_password:
            raise AccessDenied("This user has a password, and none was given")
        if application.tokens is not None and not user.guest:
            raise AccessDenied("This user signs in with a token, and none was given")
