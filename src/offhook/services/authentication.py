"""Who is it? Decides whether a client may start a session as a user (ChatKitty protocol notes, 8.2).

Asked in this order: the application's own function or webhook if it has one; else a bearer token; else a password;
else, if the application lets guests in, nobody has to prove anything - except that a user who has a password, or who
is known through tokens, is never a guest's to take.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import TypeVar

import structlog

from offhook.domain.accounts import Application, User, UserChanges, check_username
from offhook.domain.events import UserUpdated, application_topic, user_topic
from offhook.domain.limits import Rate, RateLimiter
from offhook.domain.sessions import Authentication
from offhook.errors import AccessDenied, InvalidInput, OffhookError, RateLimited, SessionLimitReached, UserDisabled
from offhook.ports import Functions, Profile, StartAttempt, Store, Transaction
from offhook.services.passwords import Passwords
from offhook.services.tokens import TokenVerifier

log = structlog.get_logger(__name__)

T = TypeVar("T")

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
    """Judges who wants to start a session or to sign in, and slows down those who guess.

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
        self._judging: Counter[tuple[int, str]] = Counter()
        self._rehashing: dict[tuple[int, str], asyncio.Task[str | None]] = {}

    @contextlib.asynccontextmanager
    async def attempt(self, application: Application, attempt: StartAttempt) -> AsyncIterator[Verdict]:
        """Judges an attempt to start a session; in the context the session is started.

        Raises:
            AccessDenied: the user may not start a session.
            RateLimited: too many attempts were refused or are under way.
            Unavailable: too many passwords wait to be checked.
        """

        async def judge() -> Verdict:
            return await self.judge(application, attempt)

        async with self.guard(application, attempt.username, attempt.address, judge) as verdict:
            yield verdict
        self.renew_hash(application, attempt, verdict)

    # --- guessing -----------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def guard(
        self, application: Application, username: str, address: str, judge: Callable[[], Awaitable[T]]
    ) -> AsyncIterator[T]:
        """Judges somebody, unless too many were refused; in the context, what the judgement is for is done.

        Who is refused, be it in the context, uses up one of the refusals that are allowed, and one under way a part of
        one: many attempts at the same time are no way around the limit.

        Raises:
            AccessDenied: as ``check`` and ``judge`` do.
            RateLimited: too many were refused or are under way.
        """
        self.check(application, username, address)
        self._charge(application, username, address, UNDER_WAY)
        user, cost = (application.id, username), 0.0
        self._judging[user] += 1
        try:
            if (rehash := self._rehashing.get(user)) is not None:
                # Else the password could be right by the old hash, and wrong by the time of the transaction.
                await asyncio.wait((rehash,))
            yield await judge()
        except SessionLimitReached:
            # Who gets this has proved who they are.
            raise
        except AccessDenied:
            cost = 1.0
            raise
        finally:
            self._charge(application, username, address, cost - UNDER_WAY)
            self._judging[user] -= 1
            if not self._judging[user]:
                del self._judging[user]

    def check(self, application: Application, username: str, address: str) -> None:
        """Whether a user may try anything at all now.

        Raises:
            AccessDenied: the username is none, or the application is disabled.
            RateLimited: too many attempts were refused or are under way.
        """
        try:
            check_username(username)
        except InvalidInput as error:
            raise AccessDenied(error.message) from None
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        now = time.monotonic()
        user = (application.id, username, address)
        wait = max(self._by_user.wait(user, now), self._by_address.wait(address, now))
        if wait > 0:
            raise RateLimited("Too many attempts to start a session were refused", wait)

    def refused(self, application: Application, username: str, address: str) -> None:
        """Counts a refusal outside ``guard``."""
        self._charge(application, username, address, 1.0)

    def forged(self, address: str) -> None:
        """Counts a refused token that told by itself whose it was.

        Raises:
            RateLimited: there were too many from the address.
        """
        wait = self._by_address.take(address, time.monotonic())
        if wait > 0:
            raise RateLimited("Too many tokens were refused", wait)

    def _charge(self, application: Application, username: str, address: str, cost: float) -> None:
        now = time.monotonic()
        user = (application.id, username, address)
        self._by_user.charge(user, now, cost)
        self._by_address.charge(address, now, cost)

    # --- judging ------------------------------------------------------------------------------------------------------

    def asks_function(self, application: Application) -> bool:
        """Whether the application's own function or webhook decides, and nothing else does."""
        return self._functions.authenticates(application)

    async def judge(self, application: Application, attempt: StartAttempt) -> Verdict:
        """Judges credentials, whatever was refused before; see the module's text.

        Raises:
            AccessDenied: they do not prove it.
            Unavailable: too many passwords or attempts wait.
        """
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

    # --- passwords hashed with costs of former times ------------------------------------------------------------------

    def renew_hash(
        self, application: Application, attempt: StartAttempt, verdict: Verdict
    ) -> asyncio.Task[str | None] | None:
        """Sees to it, in the background, that a password just proved is stored as passwords are hashed now.

        Returns:
            The work, if there is any, with the new hash, or None if that was not stored. It never raises.
        """
        password, hashed = attempt.auth_params.get("password"), verdict.password_hash
        if hashed is None or not isinstance(password, str) or not self._passwords.needs_rehash(hashed):
            return None
        user = (application.id, attempt.username)
        if user in self._judging or user in self._rehashing:
            # Somebody relies on the hash as it is; there will be other times.
            return None
        task = asyncio.create_task(self._rehash(application, attempt.username, password, hashed), name="rehash")
        self._rehashing[user] = task
        task.add_done_callback(lambda _: self._rehashing.pop(user))
        return task

    async def _rehash(self, application: Application, username: str, password: str, hashed: str) -> str | None:
        try:
            renewed = await self._passwords.hash(password)

            def store(tx: Transaction) -> str | None:
                user = tx.users.by_name(application.id, username)
                if user is None or tx.users.password_hash(user.id) != hashed:
                    return None
                # Tokens are bound to the stored hash: clients that live on theirs must not lose them.
                if any(subscription.login for subscription in tx.subscriptions.live_of(user.id)):
                    return None
                tx.users.set_password_hash(user.id, renewed)
                return renewed

            return await self._store.transact(store)
        except OffhookError as error:
            log.warning("password_not_rehashed", error=error.code)
        except Exception:
            log.exception("password_not_rehashed")
        return None

    async def close(self) -> None:
        """Waits for what is done in the background. Idempotent."""
        while self._rehashing:
            await asyncio.wait(self._rehashing.values())


def admit(application: Application, verdict: Verdict, user: User, stored_hash: str | None) -> None:
    """The last word, inside the transaction that starts the session, on the user as stored by then.

    Raises:
        AccessDenied: the user was disabled, is not a guest's to take, or changed the password meanwhile.
    """
    if not user.enabled:
        raise UserDisabled("The user is disabled")
    if verdict.authentication is Authentication.PASSWORD and stored_hash != verdict.password_hash:
        raise AccessDenied("The username or the password is wrong")
    if verdict.authentication is Authentication.GUEST:
        if user.has_password:
            raise AccessDenied("This user has a password, and none was given")
        if application.tokens is not None and not user.guest:
            raise AccessDenied("This user signs in with a token, and none was given")


def newcomer(application: Application, username: str, verdict: Verdict, now: datetime) -> User:
    """What an unknown user becomes, to be stored.

    Raises:
        AccessDenied: the verdict is for known users only.
    """
    if verdict.newcomer is Newcomer.REFUSED:
        raise AccessDenied("The user is unknown, and guests may not start a session here")
    profile = verdict.profile or Profile()
    return User(
        id=0,
        application_id=application.id,
        name=username,
        display_name=profile.display_name or username,
        created_at=now,
        guest=verdict.newcomer is Newcomer.GUEST,
        properties=dict(profile.properties or {}),
    )


def merge(tx: Transaction, user: User, profile: Profile) -> User:
    """Merges what a function said of the user, and says so if that changed anything."""
    properties = None if profile.properties is None else {**user.properties, **profile.properties}
    changes = UserChanges(
        display_name=profile.display_name if profile.display_name != user.display_name else None,
        properties=properties if properties != dict(user.properties) else None,
    )
    if changes.empty:
        return user
    user = tx.users.change(user, changes)
    tx.publish(user_topic(user.id), UserUpdated(user))
    tx.publish(application_topic(user.application_id), UserUpdated(user))
    return user
