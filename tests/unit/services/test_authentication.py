"""Who may start a session: which proof counts, and how guessing is slowed down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import jwt
import pytest
from argon2 import PasswordHasher
from structlog.testing import capture_logs
from tests.contract.systems import ManualClock
from tests.unit.services.support import CLIENT, Outlet, until

from offhook.core import Core, open_core
from offhook.domain.accounts import Application, TokenPolicy, UserChanges
from offhook.domain.limits import Rate
from offhook.domain.sessions import Authentication, Client
from offhook.errors import AccessDenied, RateLimited
from offhook.functions.events import Context, StartSessionAttempted
from offhook.functions.registry import Registry
from offhook.ports import Profile, StartAttempt, Transaction
from offhook.services.applications import ApplicationChanges
from offhook.services.authentication import ADDRESS_FACTOR, Authenticator, admit
from offhook.services.hub import LiveSession
from offhook.services.passwords import Passwords
from offhook.services.tokens import TokenVerifier
from offhook.settings import Settings

SECRET = "a shared secret of at least 32 bytes"


async def enter(
    core: Core, application: Application, name: str = "jane", address: str = CLIENT.address, **auth_params: object
) -> LiveSession:
    client = Client("chatkitty", "test/1", address)
    return await core.sessions.start(application, name, dict(auth_params), client, Outlet())  # type: ignore[arg-type]


async def refused(core: Core, application: Application, name: str = "jane", **auth_params: object) -> str:
    with pytest.raises(AccessDenied) as caught:
        await enter(core, application, name, CLIENT.address, **auth_params)
    return caught.value.message


def token(name: str = "jane", secret: str = SECRET, **claims: object) -> str:
    return jwt.encode({"sub": name, "exp": 4102444800, **claims}, secret, "HS256")


@pytest.fixture
async def members(core: Core) -> Application:
    """An application that takes tokens, and no guests."""
    changes = ApplicationChanges(tokens=TokenPolicy(("HS256",), secret=SECRET))
    application, _ = await core.applications.create("members", guests=False, changes=changes)
    return application


async def test_a_guest_proves_nothing_and_becomes_a_user(core: Core, application: Application) -> None:
    live = await enter(core, application)
    assert live.record.authentication is Authentication.GUEST
    assert live.user.guest and live.user.online and live.user.display_name == "jane"


async def test_a_user_with_a_password_is_no_guests_to_take(core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="secret")
    assert "password" in await refused(core, application)
    live = await enter(core, application, password="secret")
    assert live.record.authentication is Authentication.PASSWORD and not live.user.guest


async def test_wrong_and_unknown_cannot_be_told_apart(core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="secret")
    await core.users.create(application, "nopass")
    texts = {await refused(core, application, name, password="x") for name in ("jane", "nopass", "nobody")}
    assert texts == {"The username or the password is wrong"}
    # And no user comes to be by a wrong password.
    page = {await refused(core, application, "nobody", password="") for _ in range(2)}
    assert page == texts


@pytest.mark.parametrize("password", [7, None, ["secret"], {"a": "b"}, True])
async def test_passwords_that_are_no_text(core: Core, application: Application, password: object) -> None:
    await core.users.create(application, "jane", password="secret")
    await refused(core, application, password=password)


async def test_a_token_makes_a_member(core: Core, members: Application) -> None:
    live = await enter(core, members, token=token(name="jane"))
    assert live.record.authentication is Authentication.TOKEN and not live.user.guest
    again = await enter(core, members, token=token())
    assert again.user_id == live.user_id


@pytest.mark.parametrize(
    "bad",
    [
        token("john"),
        token(secret="another shared secret of 32 bytes"),
        token(exp=1),
        jwt.encode({"sub": "jane", "exp": 4102444800}, "", "none"),
        token()[:-3],
        "",
        7,
        None,
    ],
    ids=["another user", "another key", "expired", "unsigned", "shortened", "empty", "number", "null"],
)
async def test_tokens_that_prove_nothing(core: Core, members: Application, bad: object) -> None:
    await refused(core, members, token=bad)


async def test_tokens_of_one_application_are_worth_nothing_in_another(core: Core, members: Application) -> None:
    changes = ApplicationChanges(tokens=TokenPolicy(("HS256",), secret=SECRET[::-1]))
    other, _ = await core.applications.create("other", changes=changes)
    await refused(core, other, token=token())
    await refused(core, await core.applications.get("default"), token=token())


async def test_a_member_is_no_guests_to_take(core: Core, members: Application) -> None:
    await enter(core, members, token=token())
    mixed = await core.applications.change("members", ApplicationChanges(guests=True))
    assert "token" in await refused(core, mixed)
    # Guests keep their own names.
    await enter(core, mixed, "visitor")
    await enter(core, mixed, "visitor")


async def test_without_guests_somebody_has_to_prove_something(core: Core) -> None:
    closed, _ = await core.applications.create("closed", guests=False)
    await core.users.create(closed, "nopass")
    for name in ("nopass", "nobody"):
        await refused(core, closed, name)
    await core.users.create(closed, "jane", password="secret")
    await enter(core, closed, password="secret")


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 256, "\x00"], ids=ascii)
async def test_names_that_are_none_are_refused(core: Core, application: Application, name: str) -> None:
    await refused(core, application, name)


async def test_a_disabled_application_lets_nobody_in(core: Core, application: Application) -> None:
    assert await refused(core, replace(application, enabled=False)) == "The application is disabled"


# --- guessing -----------------------------------------------------------------------------------------------------


@pytest.fixture
async def strict(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Core]:
    """A core that suffers three wrong guesses, and forgives none within the test."""
    settings = Settings(data_dir=tmp_path, durability="normal", denial_rate=0.0001, denial_burst=3)
    async with open_core(settings) as core:
        application, _ = await core.applications.create("default")
        await core.users.create(application, "jane", password="secret")
        await core.users.create(application, "john", password="secret")
        yield core


async def test_who_guesses_too_often_has_to_wait_even_with_the_right_word(strict: Core) -> None:
    application = await strict.applications.get("default")
    for _ in range(3):
        await refused(strict, application, password="wrong")
    with pytest.raises(RateLimited) as caught:
        await enter(strict, application, password="secret")
    assert caught.value.retry_after > 0
    # Neither the user at another address nor another user at this one has to pay for it.
    await enter(strict, application, address="198.51.100.1", password="secret")
    await enter(strict, application, "john", password="secret")
    assert strict.metrics.session_starts.value("rate_limited", "none") == 1


async def test_an_address_that_tries_many_names_has_to_wait(strict: Core) -> None:
    application = await strict.applications.get("default")
    attempts = 0
    with pytest.raises(RateLimited):
        for attempts in range(4 * ADDRESS_FACTOR):
            await refused(strict, application, f"name-{attempts}", token="x")
    assert attempts == 3 * ADDRESS_FACTOR
    with pytest.raises(RateLimited):
        await enter(strict, application, "john", password="secret")
    await enter(strict, application, "john", address="198.51.100.1", password="secret")


async def test_successes_cost_nothing(strict: Core) -> None:
    application = await strict.applications.get("default")
    for _ in range(10):
        await enter(strict, application, "visitor")


# --- functions ----------------------------------------------------------------------------------------------------


async def test_the_function_alone_decides_where_there_is_one(tmp_path: Path, clock: ManualClock) -> None:
    registry = Registry()

    async def authenticate(event: StartSessionAttempted, context: Context) -> dict[str, object] | None:
        if event.auth_params.get("password") == "function's word":
            return {"display_name": "Jane Doe", "properties": {"plan": "pro"}}
        raise AccessDenied("The function says no")

    registry.add("shop", authenticate)
    async with open_core(Settings(data_dir=tmp_path, durability="normal"), registry) as core:
        shop, _ = await core.applications.create("shop")
        other, _ = await core.applications.create("other")
        await core.users.create(shop, "jane", password="stored word")
        assert await refused(core, shop, password="stored word") == "The function says no"
        live = await enter(core, shop, password="function's word")
        assert live.record.authentication is Authentication.FUNCTION
        assert (live.user.display_name, live.user.properties) == ("Jane Doe", {"plan": "pro"})
        await core.users.change(shop, live.user_id, UserChanges(properties={"own": 1}))
        merged = await enter(core, shop, password="function's word")
        assert merged.user.properties == {"own": 1, "plan": "pro"}
        # The other application has no function, so nothing is asked there.
        assert (await enter(core, other)).record.authentication is Authentication.GUEST
        closed = await core.applications.change("shop", ApplicationChanges(guests=False))
        assert "unknown" in await refused(core, closed, "newcomer", password="function's word")


# --- hashes of former times ---------------------------------------------------------------------------------------


class SlowPasswords(Passwords):
    """Hashes with other costs than those that the core stores passwords with; can be made to wait."""

    def __init__(self) -> None:
        super().__init__(hasher=PasswordHasher(time_cost=3, memory_cost=64, parallelism=1))
        self.hash_gate, self.verify_gate = asyncio.Event(), asyncio.Event()
        self.hash_gate.set()
        self.verify_gate.set()
        self.verified = self.hashing = 0

    async def hash(self, password: str) -> str:
        self.hashing += 1
        await self.hash_gate.wait()
        return await super().hash(password)

    async def verify(self, password: str, hashed: str | None) -> bool:
        gate = self.verify_gate
        right = await super().verify(password, hashed)
        self.verified += 1
        await gate.wait()
        return right


@dataclass
class Renewal:
    """A core and an authenticator with ``SlowPasswords``."""

    core: Core
    authenticator: Authenticator
    passwords: SlowPasswords

    async def stored(self) -> str:
        application = await self.core.applications.get("default")
        user = await self.core.users.by_name(application, "jane")
        hashed = await self.core.store.query(lambda tx: tx.users.password_hash(user.id))
        assert hashed is not None
        return hashed

    async def is_renewed(self) -> bool:
        """Whether the stored hash has today's costs, once all that goes on in the background is done."""
        await self.authenticator.close()
        return not self.passwords.needs_rehash(await self.stored())

    async def enter(self, password: str = "secret") -> None:
        """Does what the start of a session does with a password."""
        application = await self.core.applications.get("default")
        attempt = StartAttempt("default", "jane", {"password": password}, "chatkitty", CLIENT.address)
        async with self.authenticator.attempt(application, attempt) as verdict:

            def work(tx: Transaction) -> None:
                user = tx.users.by_name(application.id, "jane")
                assert user is not None
                admit(application, verdict, user, tx.users.password_hash(user.id))

            await self.core.store.transact(work)


@pytest.fixture
async def renewal(core: Core, application: Application) -> AsyncIterator[Renewal]:
    await core.users.create(application, "jane", password="secret")
    passwords, tokens = SlowPasswords(), TokenVerifier()
    authenticator = Authenticator(core.store, FunctionlessRunner(), passwords, tokens, Rate(1.0, 20))
    yield Renewal(core, authenticator, passwords)
    await authenticator.close()
    await passwords.close()
    await tokens.close()


class FunctionlessRunner:
    """No application has a function."""

    def authenticates(self, application: Application) -> bool:
        return False

    async def authenticate(self, application: Application, attempt: StartAttempt) -> Profile:
        raise AccessDenied("There is no function")


async def test_a_password_that_was_right_is_hashed_anew(renewal: Renewal) -> None:
    with pytest.raises(AccessDenied):
        await renewal.enter("wrong")
    assert not await renewal.is_renewed()
    await renewal.enter()
    assert await renewal.is_renewed()
    after = await renewal.stored()
    await renewal.enter()
    assert await renewal.is_renewed() and await renewal.stored() == after


async def test_no_right_password_is_refused_because_it_is_hashed_anew_meanwhile(renewal: Renewal) -> None:
    renewal.passwords.hash_gate.clear()
    await renewal.enter()
    await until(lambda: renewal.passwords.hashing == 1)
    renewal.passwords.verify_gate.clear()
    second = asyncio.create_task(renewal.enter())
    for _ in range(30):
        # Time enough to have read the hash and to have found the password right.
        await renewal.core.store.query(lambda tx: tx.users.password_hash(1))
        await renewal.core.passwords.verify("x", None)
    renewal.passwords.hash_gate.set()
    assert await renewal.is_renewed()
    renewal.passwords.verify_gate.set()
    await second


async def test_no_hash_is_renewed_while_somebody_relies_on_it(renewal: Renewal) -> None:
    renewal.passwords.verify_gate.clear()
    first = asyncio.create_task(renewal.enter())
    await until(lambda: renewal.passwords.verified == 1)
    gate, renewal.passwords.verify_gate = renewal.passwords.verify_gate, asyncio.Event()
    renewal.passwords.verify_gate.set()
    await renewal.enter()
    assert not await renewal.is_renewed()
    gate.set()
    await first
    assert await renewal.is_renewed()


async def test_a_password_changed_meanwhile_stays(renewal: Renewal, application: Application) -> None:
    renewal.passwords.hash_gate.clear()
    await renewal.enter()
    await until(lambda: renewal.passwords.hashing == 1)
    await renewal.core.users.set_password(application, "jane", "another")
    renewal.passwords.hash_gate.set()
    assert not await renewal.is_renewed()
    await renewal.enter("another")
    with pytest.raises(AccessDenied):
        await renewal.enter("secret")


async def test_what_cannot_be_hashed_anew_stays_as_it_is(renewal: Renewal) -> None:
    before = await renewal.stored()
    await renewal.enter()
    with capture_logs() as logs:
        await renewal.passwords.close()
        await renewal.authenticator.close()
    assert await renewal.stored() == before
    assert [entry["event"] for entry in logs] == ["password_not_rehashed"]
