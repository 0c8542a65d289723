"""Who is it? Decides what clients of Kandy may do that prove themselves at every request (Kandy protocol notes, 2).

What proves a user at the start of a subscription is judged as a ChatKitty session's start is: by the application's own
function if it has one, else by token or password. Tokens that were made with a key of the server are proof by
themselves: those of our own sign-ins, and those of the application's back end.

The same credentials come with each of a client's requests. So a good password is remembered, as a keyed digest that
this process alone can make, together with the stored hash that it matched; a changed password is asked for at once.
What a function said is remembered for a few minutes. Refusals never are.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Authentication, Client, Session
from offhook.errors import AccessDenied, OffhookError, Unavailable, UserDisabled
from offhook.ports import Store, Transaction
from offhook.services.authentication import Authenticator, Newcomer, Verdict
from offhook.services.hmac_tokens import HmacTokens, UsedToken
from offhook.services.logins import Login, Logins, is_ours
from offhook.services.proofs import (
    AccessProof,
    BearerProof,
    HmacProof,
    HmacSessionProof,
    PasswordProof,
    Proof,
    attempt_by,
    check_authname,
)
from offhook.services.proven import Flights, Proven

__all__ = [
    "AccessProof",
    "BearerProof",
    "Credentials",
    "HmacProof",
    "HmacSessionProof",
    "Identity",
    "PasswordProof",
    "Proof",
    "SignedIn",
    "UsedToken",
]

CACHE_SECONDS = 300.0
"""How long what an application's function said counts for the requests after it."""

_Judged = PasswordProof | BearerProof | AccessProof
"""Proofs that are judged as a ChatKitty session's start is."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user may start a subscription.

    Attributes:
        verdict: how that was proved.
        login: id of the sign-in whose token proved it, or what an HMAC session goes back to; empty if there is none.
        used: a token to be used up inside the transaction that starts the subscription, or None.
        hmac: whether the answer has to give the client a session id (see ``Credentials.hmac_session``).
    """

    verdict: Verdict
    login: str = ""
    used: UsedToken | None = None
    hmac: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is.

    Attributes:
        user: the user.
        login: id of the sign-in whose token proved it; empty if none did.
        session_id: the session whose id proved it, or None.
    """

    user: User
    login: str = ""
    session_id: int | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """What the store says of a request's credentials.

    Attributes:
        user: the user in its path, if there is one.
        password_hash: the user's.
        identity: the user, if a proof that needs no judging is good.
        refusals: why such proofs are not.
        judged: the other proofs.
    """

    user: User | None
    password_hash: str | None
    identity: Identity | None
    refusals: Sequence[OffhookError]
    judged: Sequence[_Judged]


class Credentials:
    """Judges what clients of Kandy show. To be used from one event loop.

    Args:
        now: a clock in seconds that only goes forward, for the age of what functions said.
    """

    def __init__(
        self,
        store: Store,
        authenticator: Authenticator,
        logins: Logins,
        hmac: HmacTokens,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._authenticator = authenticator
        self._logins = logins
        self._hmac = hmac
        self._proven = Proven(now)
        self._flights = Flights()

    def hmac_key(self, application: Application) -> str:
        """What the application's back end makes its HMAC tokens with."""
        return self._hmac.key(application)

    def hmac_session(self, session: Session) -> str:
        """What the client of a session that began by HMAC is to show from then on."""
        return self._hmac.session_id(session)

    # --- starting a subscription --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def sign_in(
        self, application: Application, username: str, proofs: Sequence[Proof], client: Client
    ) -> AsyncIterator[SignedIn]:
        """Judges who wants to start a subscription; in the context it is started, and ``used`` used up.

        Args:
            application: where.
            username: who the client says it is.
            proofs: what it sent to prove it; the first good one counts, and all of them bad are one refusal.
            client: what is known of the client.

        Raises:
            AccessDenied: nothing of it proves it.
            RateLimited: too many attempts were refused or are under way.
            Unavailable: too many passwords or attempts wait, or the store is away.
        """
        if not proofs:
            # Nothing was guessed, so that this is none of the refusals that are allowed.
            raise _refusal(())
        good: list[Proof] = []

        async def judge() -> SignedIn:
            refusals: list[OffhookError] = []
            for proof in proofs:
                try:
                    signed = await self._sign_in(application, username, proof, client.address)
                except (AccessDenied, Unavailable) as error:
                    refusals.append(error)
                else:
                    good.append(proof)
                    return signed
            raise _refusal(refusals)

        async with self._authenticator.guard(application, username, client.address, judge) as signed:
            yield signed
        for proof in good:
            if isinstance(proof, PasswordProof):
                attempt = attempt_by(application.name, username, proof, client.address)
                self._authenticator.renew_hash(application, attempt, signed.verdict)

    async def _sign_in(self, application: Application, username: str, proof: Proof, address: str) -> SignedIn:
        match proof:
            case HmacProof(token):
                used = self._hmac.check(application, username, token)
                origin = await self._store.query(lambda tx: self._hmac.origin(tx, application, username))
                return SignedIn(Verdict(Authentication.TOKEN, Newcomer.MEMBER), origin, used, hmac=True)
            case HmacSessionProof(shown):
                origin = await self._store.query(lambda tx: self._reopened(tx, application, username, shown))
                return SignedIn(Verdict(Authentication.TOKEN, Newcomer.REFUSED), origin, hmac=True)
            case AccessProof(token) if is_ours(token):
                login = await self._logins.open(token)
                _check_owner(login, application, username)
                verdict = Verdict(login.authentication, Newcomer.REFUSED, password_hash=login.password_hash)
                return SignedIn(verdict, login.id)
            case PasswordProof() | BearerProof() | AccessProof():
                return SignedIn(await self._judge(application, username, proof, address))

    def _reopened(self, tx: Transaction, application: Application, username: str, shown: str) -> str:
        user = tx.users.by_name(application.id, username)
        return self._hmac.session(tx, application, user, shown, ended=True).origin

    # --- every other request ------------------------------------------------------------------------------------------

    async def identify(
        self, application: Application, username: str, proofs: Sequence[Proof], address: str
    ) -> Identity:
        """Whose request it is; cheap for credentials that were good before.

        What takes long to judge is judged only if nothing else proves the user, and only once if it comes several
        times at the same time.

        Args:
            application: where.
            username: who the client says it is.
            proofs: what it sent to prove it; one good proof is enough, and all of them bad are one refusal.
            address: the client's IP address.

        Raises:
            AccessDenied: nothing of it proves it, or the user is unknown or disabled.
            RateLimited: too many attempts were refused or are under way.
            Unavailable: too many passwords or attempts wait, or the store is away.
        """
        if not proofs:
            raise _refusal(())
        if not application.enabled:
            raise AccessDenied("The application is disabled")
        found = await self._store.query(lambda tx: self._look_up(tx, application, username, proofs))
        if found.identity is not None:
            # Nobody can guess these, so that others' guesses do not lock out who has them.
            return found.identity
        # Before all that is looked up for passwords: whoever may not guess any more must not learn what would have
        # been a good guess, either.
        self._authenticator.check(application, username, address)
        digests = [self._digest(application, username, proof, found.password_hash) for proof in found.judged]
        if not any(digest in self._proven for digest in digests):

            async def judge() -> None:
                await self._judge_any(application, username, found, address)

            async def guarded() -> None:
                async with self._authenticator.guard(application, username, address, judge):
                    pass

            shown = (application.id, username, address, *digests, *(error.message for error in found.refusals))
            await self._flights.join(self._proven.digest(*shown), guarded)
        return Identity(_present(found.user))

    async def open(self, token: str, address: str) -> Login:
        """The sign-in that one of our access tokens is of, wherever the user belongs.

        Args:
            token: what the client shows.
            address: the client's IP address.

        Raises:
            AccessDenied: as ``Logins.open`` does.
            RateLimited: that, after too many from this address.
        """
        with self.forging(address):
            return await self._logins.open(token)

    @contextlib.contextmanager
    def forging(self, address: str) -> Iterator[None]:
        """In the context tokens are judged that are no proof for a given user; a refusal counts for the address.

        Raises:
            RateLimited: instead of AccessDenied, if there were too many.
        """
        try:
            yield
        except AccessDenied:
            self._authenticator.forged(address)
            raise

    def _look_up(self, tx: Transaction, application: Application, username: str, proofs: Sequence[Proof]) -> _Found:
        user = tx.users.by_name(application.id, username)
        hashed = None if user is None else tx.users.password_hash(user.id)
        refusals: list[OffhookError] = []
        judged: list[_Judged] = []
        for proof in proofs:
            try:
                match proof:
                    case HmacProof():
                        raise AccessDenied("An HMAC token is good for starting a subscription only")
                    case HmacSessionProof(shown):
                        session = self._hmac.session(tx, application, user, shown, ended=False).session
                        return _Found(user, hashed, Identity(_present(user), session_id=session.id), (), ())
                    case AccessProof(token) if is_ours(token):
                        login = self._logins.read(tx, token)
                        _check_owner(login, application, username)
                        return _Found(user, hashed, Identity(login.user, login.id), (), ())
                    case PasswordProof() | BearerProof() | AccessProof():
                        judged.append(proof)
            except AccessDenied as error:
                refusals.append(error)
        return _Found(user, hashed, None, refusals, judged)

    async def _judge_any(self, application: Application, username: str, found: _Found, address: str) -> None:
        refusals = list(found.refusals)
        for proof in found.judged:
            try:
                await self._judge(application, username, proof, address)
            except (AccessDenied, Unavailable) as error:
                refusals.append(error)
            else:
                return
        raise _refusal(refusals)

    # --- judging ------------------------------------------------------------------------------------------------------

    async def _judge(self, application: Application, username: str, proof: _Judged, address: str) -> Verdict:
        """Judges a proof, and remembers it if it is good."""
        by_function = self._authenticator.asks_function(application)
        if isinstance(proof, PasswordProof) and not by_function:
            check_authname(proof, username)
        attempt = attempt_by(application.name, username, proof, address)
        verdict = await self._authenticator.judge(application, attempt)
        # Bearer tokens are verified each time, as they run out.
        if by_function or isinstance(proof, PasswordProof):
            digest = self._digest(application, username, proof, verdict.password_hash)
            self._proven.add(digest, CACHE_SECONDS if by_function else math.inf)
        return verdict

    def _digest(self, application: Application, username: str, proof: _Judged, password_hash: str | None) -> bytes:
        """What stands for a proof and for what decides about it: if either changes, it is judged anew."""
        if self._authenticator.asks_function(application):
            decides = ("function", "" if application.webhook is None else application.webhook.url)
        else:
            decides = ("password", password_hash or "")
        if isinstance(proof, PasswordProof):
            shown = ("password", proof.authname, proof.password)
        else:
            shown = ("token", "", proof.token)
        return self._proven.digest(application.id, username, decides, shown)


def _check_owner(login: Login, application: Application, username: str) -> None:
    if login.application.id != application.id or login.user.name != username:
        raise AccessDenied("The token is for another user")


def _present(user: User | None) -> User:
    if user is None:
        raise AccessDenied("The user is unknown")
    if not user.enabled:
        raise UserDisabled("The user is disabled")
    return user


def _refusal(refusals: Sequence[OffhookError]) -> OffhookError:
    """Which of the refusals of several proofs to raise: what may be different later, else the first."""
    for error in refusals:
        if error.retryable:
            return error
    return refusals[0] if refusals else AccessDenied("No credentials were given")
