"""Who makes a request: which proof counts, what is remembered of it, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.door import (
    ADDRESS,
    ALICE,
    BOB,
    ELSEWHERE,
    GOOD,
    GUESSES,
    SECRET,
    WORD,
    WRONG,
    Door,
    access,
    open_door,
    token,
)

from offhook.domain.accounts import TokenPolicy, WebhookPolicy
from offhook.domain.sessions import Authentication
from offhook.errors import AccessDenied, RateLimited, Unavailable, UserDisabled
from offhook.ports import Profile
from offhook.services.applications import ApplicationChanges
from offhook.services.authentication import ADDRESS_FACTOR, Newcomer
from offhook.services.credentials import (
    CACHE_SECONDS,
    AccessProof,
    BearerProof,
    HmacProof,
    HmacSessionProof,
    PasswordProof,
    Proof,
)

CAROL = "carol@example.com"
SHORT = PasswordProof("alice", WORD)


@pytest.fixture
async def door(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Door]:
    async with open_door(tmp_path, clock) as door:
        yield door


@pytest.fixture
async def takes_tokens(door: Door) -> Door:
    changes = ApplicationChanges(tokens=TokenPolicy(("HS256",), secret=SECRET))
    door.application = await door.core.applications.change("default", changes)
    return door


# --- passwords ----------------------------------------------------------------------------------------------------


async def test_a_password_starts_a_subscription_and_makes_requests(door: Door) -> None:
    signed = await door.sign_in(GOOD)
    assert (signed.verdict.authentication, signed.verdict.newcomer) == (Authentication.PASSWORD, Newcomer.REFUSED)
    assert (signed.login, signed.used, signed.hmac) == ("", None, False)
    assert (await door.subscribe(GOOD)).authentication is Authentication.PASSWORD
    identity = await door.identify(GOOD)
    assert (identity.user, identity.login, identity.session_id) == (await door.user(), "", None)
    assert WORD not in repr(GOOD)


async def test_the_part_before_the_at_sign_will_do(door: Door) -> None:
    await door.sign_in(SHORT)
    assert (await door.identify(SHORT)).user.name == ALICE
    await door.core.users.create(door.application, "plain", password=WORD)
    assert (await door.identify(PasswordProof("plain", WORD), name="plain")).user.name == "plain"


@pytest.mark.parametrize(
    "proof",
    [
        WRONG,
        PasswordProof(ALICE, ""),
        PasswordProof(ALICE, "\ud800"),
        PasswordProof(BOB, "bob's word"),
        PasswordProof(BOB, WORD),
        PasswordProof("bob", WORD),
        PasswordProof("", WORD),
        PasswordProof("ALICE", WORD),
        PasswordProof("alice@", WORD),
        PasswordProof("alice@elsewhere.com", WORD),
    ],
    ids=str,
)
async def test_passwords_that_prove_nothing(door: Door, proof: PasswordProof) -> None:
    assert await door.refused(proof) == "The username or the password is wrong"


@pytest.mark.parametrize("name", ["plain", "@example.com", "a@b@example.com"])
async def test_names_that_have_no_part_to_be_called_by(door: Door, name: str) -> None:
    await door.core.users.create(door.application, name, password=WORD)
    for part in ("", name.partition("@")[0]):
        if part != name:
            assert "wrong" in await door.refused(PasswordProof(part, WORD), name=name)


async def test_an_unknown_user_is_as_slow_to_refuse_as_a_wrong_password(door: Door) -> None:
    for count, (proof, name) in enumerate([(WRONG, ALICE), (PasswordProof(CAROL, WORD), CAROL)], start=1):
        with pytest.raises(AccessDenied, match=r"^The username or the password is wrong$"):
            await door.identify(proof, name=name)
        assert door.passwords.verified == count
    assert CAROL not in await door.names()


async def test_a_good_password_is_checked_once(door: Door) -> None:
    for _ in range(20):
        await door.identify(GOOD)
    assert door.passwords.verified == 1
    # For another name it was sent with, and for another user, it is another.
    await door.identify(SHORT)
    assert door.passwords.verified == 2
    with pytest.raises(AccessDenied):
        await door.identify(PasswordProof(BOB, WORD), name=BOB)
    assert door.passwords.verified == 3


async def test_the_start_of_a_subscription_is_remembered_for_its_requests(door: Door) -> None:
    await door.subscribe(GOOD)
    await door.identify(GOOD)
    assert door.passwords.verified == 1
    # But each start is checked itself.
    await door.subscribe(GOOD)
    assert door.passwords.verified == 2


async def test_a_changed_password_is_asked_for_at_once(door: Door) -> None:
    await door.identify(GOOD)
    await door.core.users.set_password(door.application, ALICE, "another word")
    assert "wrong" in await door.refused(GOOD)
    await door.identify(PasswordProof(ALICE, "another word"))
    await door.core.users.set_password(door.application, ALICE, None)
    assert "wrong" in await door.refused(PasswordProof(ALICE, "another word"))
    # The same word again has another hash.
    before = door.passwords.verified
    await door.core.users.set_password(door.application, ALICE, WORD)
    await door.identify(GOOD)
    assert door.passwords.verified == before + 1


async def test_who_is_disabled_or_gone_is_refused_at_once(door: Door) -> None:
    await door.identify(GOOD)
    await door.change(enabled=False)
    with pytest.raises(UserDisabled):
        await door.identify(GOOD)
    with pytest.raises(AccessDenied, match="wrong"):
        await door.identify(WRONG)
    await door.change(enabled=True)
    await door.identify(GOOD)
    await door.core.users.delete(door.application, (await door.user()).id)
    assert "wrong" in await door.refused(GOOD)


async def test_a_disabled_application_knows_nobody(door: Door) -> None:
    await door.identify(GOOD)
    door.application = replace(door.application, enabled=False)
    assert await door.refused(GOOD) == "The application is disabled"


async def test_the_same_request_many_times_at_once_is_judged_once(door: Door) -> None:
    identities = await asyncio.gather(*(door.identify(GOOD) for _ in range(50)))
    assert {identity.user.name for identity in identities} == {ALICE} and door.passwords.verified == 1
    results = await asyncio.gather(*(door.identify(WRONG) for _ in range(50)), return_exceptions=True)
    assert {type(result) for result in results} == {AccessDenied} and door.passwords.verified == 2
    # They were one guess.
    await door.identify(GOOD)


async def test_a_request_that_was_given_up_does_not_take_the_others_along(door: Door) -> None:
    first, *others = [asyncio.create_task(door.identify(GOOD)) for _ in range(4)]
    while not door.passwords.verified:
        await asyncio.wait([first], timeout=0.002)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert {identity.user.name for identity in await asyncio.gather(*others)} == {ALICE}
    assert door.passwords.verified == 1


# --- several proofs -----------------------------------------------------------------------------------------------


async def test_the_first_good_one_of_several_proofs_counts(door: Door) -> None:
    tokens = await door.log_in()
    ours = access(tokens)
    bad: list[Proof] = [HmacProof("x"), HmacSessionProof("x"), AccessProof("x"), BearerProof("x"), WRONG]
    for proofs in ([*bad, GOOD], [GOOD, *bad], [*bad, ours], [ours, *bad]):
        await door.sign_in(*proofs)
        assert (await door.identify(*proofs)).user.name == ALICE
    login = (await door.logins.open(tokens.access)).id
    assert (await door.sign_in(ours, GOOD)).login == login
    assert (await door.sign_in(GOOD, ours)).login == ""


async def test_all_bad_are_one_refusal(door: Door) -> None:
    for number in range(GUESSES):
        with pytest.raises(AccessDenied, match="wrong"):
            await (door.sign_in if number % 2 else door.identify)(WRONG, BearerProof("x"), AccessProof("y"))
    for attempt in (door.sign_in(GOOD), door.identify(GOOD)):
        with pytest.raises(RateLimited):
            await attempt


async def test_nothing_shown_is_no_guess_and_guesses_lock_out_no_token(door: Door) -> None:
    tokens = await door.log_in()
    for _ in range(2 * GUESSES):
        with pytest.raises(AccessDenied):
            await door.identify()
        with pytest.raises(AccessDenied):
            await door.sign_in()
    await door.identify(GOOD)
    for _ in range(GUESSES):
        with pytest.raises(AccessDenied):
            await door.identify(WRONG)
    with pytest.raises(RateLimited):
        await door.identify(GOOD)
    assert (await door.identify(access(tokens))).user.name == ALICE


async def test_tokens_made_up_count_for_their_address(door: Door) -> None:
    tokens = await door.log_in()
    forged = tokens.access[:-22] + "A" * 22
    for _ in range(GUESSES * ADDRESS_FACTOR):
        with pytest.raises(AccessDenied):
            await door.credentials.open(forged, ADDRESS)
    with pytest.raises(RateLimited):
        await door.credentials.open(forged, ADDRESS)
    assert (await door.credentials.open(tokens.access, ADDRESS)).user.name == ALICE


async def test_nothing_proves_nothing(door: Door) -> None:
    assert await door.refused() == "No credentials were given"
    door.application = await door.core.applications.change("default", ApplicationChanges(guests=True))
    assert await door.refused(name="visitor") == "No credentials were given"


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 256], ids=ascii)
async def test_names_that_are_none_are_refused(door: Door, name: str) -> None:
    await door.refused(PasswordProof(name, WORD), name=name)


async def test_what_may_be_different_later_is_told_as_such(door: Door) -> None:
    await door.passwords.close()
    for attempt in (door.sign_in(GOOD, BearerProof("x")), door.identify(BearerProof("x"), GOOD)):
        with pytest.raises(Unavailable):
            await attempt


# --- guessing -----------------------------------------------------------------------------------------------------


async def test_who_guesses_too_often_learns_nothing_more(door: Door) -> None:
    await door.identify(GOOD)
    for number in range(GUESSES):
        with pytest.raises(AccessDenied):
            await door.identify(PasswordProof(ALICE, f"guess {number}"))
    verified = door.passwords.verified
    # Not even of a word that is remembered as good.
    for proof in (GOOD, WRONG):
        with pytest.raises(RateLimited) as caught:
            await door.identify(proof)
        assert caught.value.retry_after > 0
    assert door.passwords.verified == verified
    # Neither the user elsewhere nor another user here has to pay for it.
    await door.identify(GOOD, address=ELSEWHERE)
    await door.identify(PasswordProof(BOB, "bob's word"), name=BOB)


async def test_many_guesses_at_once_are_no_way_around(door: Door) -> None:
    guesses = [door.identify(PasswordProof(ALICE, f"guess {number}")) for number in range(100)]
    results = await asyncio.gather(*guesses, return_exceptions=True)
    refused = [result for result in results if isinstance(result, AccessDenied)]
    assert len(refused) + sum(isinstance(result, RateLimited) for result in results) == 100
    assert door.passwords.verified == len(refused) <= 5 * GUESSES


async def test_an_address_that_tries_many_names_has_to_wait(door: Door) -> None:
    attempts = 0
    with pytest.raises(RateLimited):
        for attempts in range(2 * GUESSES * ADDRESS_FACTOR):
            with pytest.raises(AccessDenied):
                await door.identify(BearerProof("x"), name=f"name-{attempts}")
    assert attempts == GUESSES * ADDRESS_FACTOR
    await door.identify(GOOD, address=ELSEWHERE)


# --- bearer tokens ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BearerProof, AccessProof])
async def test_a_bearer_token_makes_a_member(takes_tokens: Door, kind: type[BearerProof | AccessProof]) -> None:
    door, proof = takes_tokens, kind(token(CAROL))
    with pytest.raises(AccessDenied, match="unknown"):
        await door.identify(proof, name=CAROL)
    session = await door.subscribe(proof, name=CAROL)
    assert session.authentication is Authentication.TOKEN
    identity = await door.identify(proof, name=CAROL)
    assert identity.user.id == session.user_id and not identity.user.guest and identity.login == ""
    assert proof.token not in repr(proof)


async def test_a_bearer_token_is_verified_each_time(takes_tokens: Door) -> None:
    door, proof = takes_tokens, BearerProof(token(CAROL))
    await door.subscribe(proof, name=CAROL)
    await door.identify(proof, name=CAROL)
    policy = TokenPolicy(("HS256",), secret=SECRET[::-1])
    door.application = await door.core.applications.change("default", ApplicationChanges(tokens=policy))
    assert "signature" in await door.refused(proof, name=CAROL)
    assert "expired" in await door.refused(BearerProof(token(CAROL, SECRET[::-1], exp=1)), name=CAROL)


async def test_a_token_may_be_changed_in_the_middle(takes_tokens: Door) -> None:
    await takes_tokens.subscribe(BearerProof(token()))
    await takes_tokens.identify(BearerProof(token(jti="next")))
    await takes_tokens.identify(GOOD)


@pytest.mark.parametrize("bad", [token(BOB), token(secret=SECRET[::-1]), token(exp=1), "", "a.b.c", "\ud800"])
async def test_tokens_that_prove_nothing(takes_tokens: Door, bad: str) -> None:
    for proof in (BearerProof(bad), AccessProof(bad)):
        await takes_tokens.refused(proof)


async def test_our_own_tokens_are_no_bearer_tokens(door: Door) -> None:
    tokens = await door.log_in()
    await door.refused(BearerProof(tokens.access))


# --- functions ----------------------------------------------------------------------------------------------------


async def test_the_function_is_told_the_name_only_if_it_is_another(door: Door) -> None:
    door.function.words = {"password": "pin"}
    await door.sign_in(PasswordProof(ALICE, "pin"))
    with pytest.raises(AccessDenied, match="function says no"):
        await door.sign_in(PasswordProof("boss", "pin"))
    door.function.words = {"password": "pin", "authname": "boss"}
    await door.sign_in(PasswordProof("boss", "pin"))
    assert (await door.identify(PasswordProof("boss", "pin"))).user.name == ALICE
    asked = door.function.asked[0]
    assert (asked.application, asked.username, asked.protocol, asked.address) == ("default", ALICE, "kandy", ADDRESS)
    assert "wrong" not in await door.refused(GOOD), "the stored password is not asked for"


@pytest.mark.parametrize("kind", [BearerProof, AccessProof])
async def test_the_function_judges_tokens(door: Door, kind: type[BearerProof | AccessProof]) -> None:
    door.function.words = {"token": "opaque"}
    signed = await door.sign_in(kind("opaque"))
    assert signed.verdict.authentication is Authentication.FUNCTION and signed.verdict.newcomer is Newcomer.REFUSED
    await door.identify(kind("opaque"))
    await door.refused(kind(token()))


async def test_what_the_function_said_counts_for_minutes(door: Door) -> None:
    door.function.words, proof = {"password": "pin"}, PasswordProof(ALICE, "pin")
    await door.sign_in(proof)
    door.function.words = {"password": "new pin"}
    door.seconds[0] = CACHE_SECONDS - 1
    await door.identify(proof)
    assert len(door.function.asked) == 1
    door.seconds[0] = CACHE_SECONDS
    with pytest.raises(AccessDenied):
        await door.identify(proof)
    # A start asks it always, and so does everything if another one decides from now on.
    new = PasswordProof(ALICE, "new pin")
    for _ in range(2):
        await door.sign_in(new)
    assert len(door.function.asked) == 4
    webhook = WebhookPolicy("https://hook.example.test/")
    door.application = await door.core.applications.change("default", ApplicationChanges(webhook=webhook))
    await door.identify(new)
    assert len(door.function.asked) == 5


async def test_refusals_of_the_function_are_not_remembered(door: Door) -> None:
    door.function.words = {"password": "x"}
    proof = PasswordProof(ALICE, "pin")
    with pytest.raises(AccessDenied):
        await door.identify(proof)
    door.function.words = {"password": "pin"}
    assert (await door.identify(proof)).user.name == ALICE


async def test_what_the_function_says_of_the_user_goes_with_the_verdict(door: Door) -> None:
    door.function.words, door.function.profile = {"password": "pin"}, Profile("Alice A.")
    signed = await door.sign_in(PasswordProof(ALICE, "pin"))
    assert signed.verdict.profile == Profile("Alice A.")


async def test_tokens_made_with_our_keys_need_no_function(door: Door) -> None:
    tokens = await door.log_in()
    door.function.words = {"password": "pin"}
    await door.identify(access(tokens))
    await door.subscribe(HmacProof(door.hmac()))
    assert not door.function.asked
