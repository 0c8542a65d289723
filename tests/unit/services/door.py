"""What the tests of credentials and logins share: all that judges a Kandy client, around a real core."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import jwt
import pytest
from tests.contract.systems import ManualClock

from offhook.codes import EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application, User, UserChanges, UserFilter
from offhook.domain.limits import Rate
from offhook.domain.sessions import Client, Session
from offhook.domain.subscriptions import Product, Subscription
from offhook.domain.values import PageRequest
from offhook.errors import AccessDenied
from offhook.ports import Profile, StartAttempt, Transaction
from offhook.protocols.kandy import hmac_token
from offhook.services.authentication import Authenticator
from offhook.services.credentials import AccessProof, Credentials, Identity, PasswordProof, Proof, SignedIn
from offhook.services.hmac_tokens import HmacTokens
from offhook.services.logins import Logins, Tokens
from offhook.services.passwords import Passwords
from offhook.services.starting import Lease
from offhook.services.tokens import TokenVerifier
from offhook.settings import Settings

ADDRESS, ELSEWHERE = "192.0.2.7", "198.51.100.1"
CLIENT = Client("kandy", "test/1", ADDRESS)
ALICE, BOB, WORD = "alice@example.com", "bob@example.com", "alice's word"
GOOD, WRONG = PasswordProof(ALICE, WORD), PasswordProof(ALICE, "no")
SECRET = "a shared secret of at least 32 bytes"
GUESSES = 4
"""Refusals until a user has to wait; none is forgiven within a test."""


class CountingPasswords(Passwords):
    """Counts what is verified."""

    verified = 0

    async def verify(self, password: str, hashed: str | None) -> bool:
        self.verified += 1
        return await super().verify(password, hashed)


@dataclass
class Function:
    """The applications' own function: there is none until it has ``words``, and then those alone are good."""

    words: dict[str, str] = field(default_factory=dict)
    profile: Profile = field(default_factory=Profile)
    asked: list[StartAttempt] = field(default_factory=list)

    def authenticates(self, application: Application) -> bool:
        return bool(self.words)

    async def authenticate(self, application: Application, attempt: StartAttempt) -> Profile:
        self.asked.append(attempt)
        if self.words == attempt.auth_params:
            return self.profile
        raise AccessDenied("The function says no")


@dataclass
class Door:
    """A core with its judges, and an application with the domain ``example.com``."""

    core: Core
    clock: ManualClock
    application: Application
    function: Function
    passwords: CountingPasswords
    authenticator: Authenticator
    logins: Logins
    credentials: Credentials
    seconds: list[float]
    """The time of the clock for the age of what functions said."""

    async def sign_in(self, *proofs: Proof, name: str = ALICE, address: str = ADDRESS) -> SignedIn:
        """Signs in, and starts nothing."""
        client = replace(CLIENT, address=address)
        async with self.credentials.sign_in(self.application, name, proofs, client) as signed:
            return signed

    async def subscribe(self, *proofs: Proof, name: str = ALICE) -> Session:
        """Starts a subscription."""

        async with self.credentials.sign_in(self.application, name, proofs, CLIENT) as signed:

            def work(tx: Transaction) -> Session:
                if signed.used is not None:
                    signed.used.use(tx)
                lease = Lease(3600.0, announces=True, force=False)
                starter = self.core.sessions.starter
                session = starter.begin(tx, self.application, name, signed.verdict, CLIENT, lease).session
                tx.subscriptions.add(Subscription(session.id, Product.UC, ("call",), 3600.0, login=signed.login))
                return session

            return await self.core.store.transact(work)

    async def identify(self, *proofs: Proof, name: str = ALICE, address: str = ADDRESS) -> Identity:
        return await self.credentials.identify(self.application, name, proofs, address)

    async def log_in(self, proof: PasswordProof = GOOD, *, name: str = ALICE, lifetime: float | None = None) -> Tokens:
        return await self.logins.log_in(self.application, name, proof, lifetime, CLIENT)

    async def refused(self, *proofs: Proof, name: str = ALICE) -> str:
        """Checks that no use of the proofs gets anybody in. Returns the words for a new subscription."""
        with pytest.raises(AccessDenied) as caught:
            await self.sign_in(*proofs, name=name)
        with pytest.raises(AccessDenied):
            await self.identify(*proofs, name=name, address=ELSEWHERE)
        return caught.value.message

    async def change(self, name: str = ALICE, *, enabled: bool) -> None:
        user = await self.core.users.by_name(self.application, name)
        await self.core.users.change(self.application, user.id, UserChanges(enabled=enabled))

    async def names(self) -> set[str]:
        page = await self.core.store.query(
            lambda tx: tx.users.list(self.application.id, UserFilter(), PageRequest(size=100))
        )
        return {user.name for user in page.items}

    async def user(self, name: str = ALICE) -> User:
        return await self.core.users.by_name(self.application, name)

    async def end(self, session: Session, reason: EndReason) -> None:
        await self.core.sessions.end(session.id, reason)

    def hmac(self, name: str = ALICE, *, domain: str = "example.com", age: int = 0, nonce: str = "n" * 16) -> str:
        """A token as the application's back end makes it."""
        issued_at = int(self.clock.now().timestamp()) - age
        key = self.credentials.hmac_key(self.application).encode()
        return hmac_token.encode(key, hmac_token.HmacClaims(name, domain, issued_at, nonce))


def token(name: str = ALICE, secret: str = SECRET, **claims: object) -> str:
    """A JWT of an application that takes tokens."""
    return jwt.encode({"sub": name, "exp": 4102444800, **claims}, secret, "HS256")


def access(tokens: Tokens) -> AccessProof:
    return AccessProof(tokens.access)


@contextlib.asynccontextmanager
async def open_door(
    folder: Path, clock: ManualClock, make_passwords: Callable[[], CountingPasswords] = CountingPasswords
) -> AsyncIterator[Door]:
    """A door with Alice, who has a password, and Bob, who has another."""
    async with open_core(Settings(data_dir=folder, durability="normal")) as core, contextlib.AsyncExitStack() as stack:
        application, _ = await core.applications.create("default", domain="example.com", guests=False)
        for name, password in ((ALICE, WORD), (BOB, "bob's word")):
            await core.users.create(application, name, password=password)
        function, passwords, verifier, seconds = Function(), make_passwords(), TokenVerifier(), [0.0]
        stack.push_async_callback(passwords.close)
        stack.push_async_callback(verifier.close)
        authenticator = Authenticator(core.store, function, passwords, verifier, Rate(0.0001, GUESSES))
        stack.push_async_callback(authenticator.close)
        logins = Logins(core.store, authenticator, core.signer, clock)
        hmac = HmacTokens(core.signer, clock, hmac_token.decode)
        credentials = Credentials(core.store, authenticator, logins, hmac, now=lambda: seconds[0])
        yield Door(core, clock, application, function, passwords, authenticator, logins, credentials, seconds)
