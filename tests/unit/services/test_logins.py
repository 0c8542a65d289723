"""Signing in for tokens: how long they are good, for whom, and what ends them."""

from __future__ import annotations

import string
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from argon2 import PasswordHasher
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.contract.systems import ManualClock
from tests.unit.services.door import (
    ALICE,
    BOB,
    GOOD,
    GUESSES,
    WORD,
    WRONG,
    CountingPasswords,
    Door,
    access,
    open_door,
)

from offhook.codes import EndReason
from offhook.domain.sessions import Authentication
from offhook.errors import AccessDenied, RateLimited, UserDisabled
from offhook.ports import Profile
from offhook.services.applications import ApplicationChanges
from offhook.services.credentials import AccessProof, PasswordProof
from offhook.services.logins import ACCESS, JUDGED_LIFETIME, REFRESH, REFRESH_LIFETIME, LoginToken, Tokens, is_ours
from offhook.services.signing import Signer

SIGNER, STRANGER = Signer(b"k" * 32), Signer(b"s" * 32)
IDS = st.integers(0, 10**18 - 1)
HASHES = st.none() | st.text(min_size=1)
CONTENTS = st.builds(
    LoginToken,
    st.sampled_from([ACCESS, REFRESH]),
    IDS,
    IDS,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.sampled_from(Authentication),
    st.integers(0, 10**12 - 1),
    st.integers(0, 10**12 - 1),
)


@pytest.fixture
async def door(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Door]:
    async with open_door(tmp_path, clock) as door:
        yield door


async def dead(door: Door, tokens: Tokens) -> bool:
    """Whether tokens are good for nothing any more."""
    refusals = 0
    for attempt in (door.logins.open(tokens.access), door.logins.refresh(tokens.access, None)):
        try:
            await attempt
        except AccessDenied:
            refusals += 1
    try:
        await door.logins.refresh(tokens.refresh, None)
    except AccessDenied:
        refusals += 1
    return refusals == 3


# --- form ---------------------------------------------------------------------------------------------------------


@given(CONTENTS, HASHES)
def test_what_was_made_is_read(content: LoginToken, hashed: str | None) -> None:
    text = content.encode(SIGNER, hashed)
    assert LoginToken.read(text) == content and is_ours(text) and content.made(text, SIGNER, hashed)
    assert set(text) <= set(string.ascii_letters + string.digits + "-_.")


@given(CONTENTS, HASHES, HASHES)
def test_a_token_holds_for_its_key_and_its_password_only(
    content: LoginToken, hashed: str | None, other: str | None
) -> None:
    text = content.encode(SIGNER, hashed)
    assert not content.made(text, STRANGER, hashed)
    assume(other != hashed)
    assert not content.made(text, SIGNER, other)


@given(CONTENTS, HASHES, st.data())
def test_changed_tokens_are_none(content: LoginToken, hashed: str | None, data: st.DataObject) -> None:
    text = content.encode(SIGNER, hashed)
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.characters(codec="utf-8")) + text[place + 1 :]
    assume(changed != text)
    for other in (changed, text[:place], text[place + 1 :], text + data.draw(st.characters())):
        read = LoginToken.read(other)
        assert read is None or not read.made(other, SIGNER, hashed)


@given(st.text() | st.text("ar-0123456789abcdef._", max_size=80))
def test_any_text_can_be_read(text: str) -> None:
    read = LoginToken.read(text)
    assert (read is not None) is (is_ours(text) and read is not None)
    assert read is None or not read.made(text, SIGNER, None)


# --- signing in ---------------------------------------------------------------------------------------------------


async def test_tokens_are_their_users_proof(door: Door) -> None:
    tokens = await door.log_in()
    login = await door.logins.open(tokens.access)
    assert (login.application, login.user.name) == (door.application, ALICE)
    assert login.authentication is Authentication.PASSWORD
    identity = await door.identify(access(tokens))
    assert (identity.user.name, identity.login, identity.session_id) == (ALICE, login.id, None)
    session = await door.subscribe(access(tokens))
    assert session.authentication is Authentication.PASSWORD and session.user_name == ALICE
    (stored,) = await door.core.store.query(lambda tx: tx.subscriptions.live_of(session.user_id))
    assert stored.login == login.id
    assert "token" not in repr(tokens) and tokens.access not in repr(tokens) and tokens.refresh not in repr(tokens)


async def test_each_sign_in_has_its_own_id(door: Door) -> None:
    first, second = [await door.logins.open((await door.log_in()).access) for _ in range(2)]
    assert first.id != second.id


@pytest.mark.parametrize(
    ("wanted", "given_"),
    [
        (None, 3600),
        (1.0, 600),
        (-5.0, 600),
        (7200.9, 7200),
        (1e9, 86400),
        (float("inf"), 86400),
        (float("-inf"), 600),
        (float("nan"), 600),
    ],
)
async def test_the_lifetime_is_kept_within_bounds(
    door: Door, clock: ManualClock, wanted: float | None, given_: int
) -> None:
    tokens = await door.log_in(lifetime=wanted)
    assert tokens.expires == given_
    clock.advance(given_ - 1)
    assert (await door.logins.refresh(tokens.refresh, wanted)).expires == given_
    await door.logins.open(tokens.access)
    clock.advance(1)
    with pytest.raises(AccessDenied, match="expired"):
        await door.logins.open(tokens.access)


async def test_a_wrong_password_gets_no_tokens_and_counts_as_any_refusal(door: Door) -> None:
    for _ in range(GUESSES):
        with pytest.raises(AccessDenied, match="wrong"):
            await door.log_in(WRONG)
    for attempt in (door.log_in(), door.sign_in(GOOD), door.identify(GOOD)):
        with pytest.raises(RateLimited):
            await attempt
    await door.log_in(PasswordProof(BOB, "bob's word"), name=BOB)


async def test_only_known_users_sign_in_by_password(door: Door) -> None:
    with pytest.raises(AccessDenied, match="wrong"):
        await door.log_in(PasswordProof("carol@example.com", "x"), name="carol@example.com")
    with pytest.raises(AccessDenied, match="wrong"):
        await door.log_in(PasswordProof(BOB, "bob's word"))
    assert (await door.log_in(PasswordProof("alice", WORD))).expires
    assert await door.names() == {ALICE, BOB}


async def test_whom_the_function_lets_in_comes_to_be(door: Door) -> None:
    door.function.words, door.function.profile = {"password": "pin"}, Profile("Carol C.", {"plan": "pro"})
    name = "carol@example.com"
    with pytest.raises(AccessDenied, match="unknown"):
        await door.log_in(PasswordProof(name, "pin"), name=name)
    door.application = await door.core.applications.change("default", ApplicationChanges(guests=True))
    tokens = await door.log_in(PasswordProof(name, "pin"), name=name)
    login = await door.logins.open(tokens.access)
    assert (login.user.guest, login.user.display_name, login.user.properties) == (True, "Carol C.", {"plan": "pro"})
    assert login.authentication is Authentication.FUNCTION
    session = await door.subscribe(access(tokens), name=name)
    assert session.authentication is Authentication.FUNCTION
    # What it says of a known user is merged at the sign-in: the subscription does not ask it again.
    door.function.profile = Profile("Carol", {"size": 1})
    await door.log_in(PasswordProof(name, "pin"), name=name)
    carol = await door.user(name)
    assert (carol.display_name, carol.properties) == ("Carol", {"plan": "pro", "size": 1})
    assert len(door.function.asked) == 3


# --- refreshing ---------------------------------------------------------------------------------------------------


async def test_either_token_gets_new_ones_of_the_same_sign_in(door: Door, clock: ManualClock) -> None:
    tokens = await door.log_in()
    first = await door.logins.open(tokens.access)
    clock.advance(60)
    for old in (tokens.refresh, tokens.access):
        new = await door.logins.refresh(old, 900.0)
        assert new.expires == 900 and new.access != tokens.access
        assert (await door.logins.open(new.access)).id == first.id
    # The first one goes on being good.
    assert (await door.identify(access(tokens))).login == first.id


async def test_a_refresh_token_is_no_access_token(door: Door) -> None:
    tokens = await door.log_in()
    with pytest.raises(AccessDenied):
        await door.logins.open(tokens.refresh)
    assert await door.refused(AccessProof(tokens.refresh)) == "The token is not valid"


async def test_a_refresh_token_is_good_for_a_month(door: Door, clock: ManualClock) -> None:
    tokens = await door.log_in()
    clock.advance(REFRESH_LIFETIME.total_seconds() - 1)
    renewed = await door.logins.refresh(tokens.refresh, None)
    clock.advance(1)
    assert renewed.expires == 600
    # Nor do the tokens that it got last longer.
    for late in (tokens.refresh, renewed.refresh, renewed.access):
        with pytest.raises(AccessDenied, match="expired"):
            await door.logins.refresh(late, None)


async def test_what_a_function_judged_is_good_for_a_day(door: Door, clock: ManualClock) -> None:
    door.function.words = {"password": WORD}
    tokens = await door.log_in()
    clock.advance(JUDGED_LIFETIME.total_seconds() - 1)
    await door.logins.refresh(tokens.refresh, None)
    clock.advance(1)
    assert await dead(door, tokens)


async def test_revoking_ends_what_the_sign_in_made(door: Door) -> None:
    tokens, other = await door.log_in(), await door.log_in()
    session, kept = await door.subscribe(access(tokens)), await door.subscribe(access(other))
    (ended,) = await door.logins.revoke(tokens.refresh)
    assert (ended.id, ended.end_reason) == (session.id, EndReason.CLIENT)
    assert not (await door.core.sessions.show(session.id)).session.live
    assert (await door.core.sessions.show(kept.id)).session.live


async def test_the_first_access_token_lives_as_long_as_its_subscription(door: Door, clock: ManualClock) -> None:
    tokens, other = await door.log_in(), await door.log_in()
    session = await door.subscribe(access(tokens))
    clock.advance(timedelta(days=20).total_seconds())
    assert (await door.identify(access(tokens))).user.name == ALICE
    assert (await door.logins.refresh(tokens.access, None)).expires == 3600
    # Other sign-ins have their own time.
    with pytest.raises(AccessDenied, match="expired"):
        await door.logins.refresh(other.access, None)
    await door.end(session, EndReason.CLIENT)
    with pytest.raises(AccessDenied, match="expired"):
        await door.logins.open(tokens.access)


# --- the end of tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["another word", WORD, None], ids=["changed", "set anew", "removed"])
async def test_a_new_password_ends_all_tokens(door: Door, word: str | None) -> None:
    tokens = await door.log_in()
    await door.subscribe(access(tokens))
    bobs = await door.log_in(PasswordProof(BOB, "bob's word"), name=BOB)
    await door.core.users.set_password(door.application, ALICE, word)
    assert await dead(door, tokens)
    assert await door.refused(access(tokens)) == "The token is not valid"
    assert not await dead(door, bobs)


async def test_tokens_of_users_who_are_disabled_or_gone(door: Door) -> None:
    tokens = await door.log_in()
    await door.change(enabled=False)
    with pytest.raises(UserDisabled):
        await door.logins.open(tokens.access)
    assert await dead(door, tokens)
    await door.change(enabled=True)
    assert not await dead(door, tokens)
    await door.core.users.delete(door.application, (await door.user()).id)
    assert await dead(door, tokens)
    # Whoever gets the name next is somebody else.
    await door.core.users.create(door.application, ALICE, password=WORD)
    assert await dead(door, tokens)


async def test_tokens_of_a_disabled_application(door: Door) -> None:
    tokens = await door.log_in()
    await door.core.applications.change("default", ApplicationChanges(enabled=False))
    assert await dead(door, tokens)


async def test_tokens_work_for_their_own_user_and_application_only(door: Door) -> None:
    tokens = await door.log_in()
    assert await door.refused(access(tokens), name=BOB) == "The token is for another user"
    other, _ = await door.core.applications.create("other")
    await door.core.users.create(other, ALICE, password=WORD)
    door.application = other
    assert await door.refused(access(tokens)) == "The token is for another user"


# --- hashes of former times ---------------------------------------------------------------------------------------


def stronger() -> CountingPasswords:
    return CountingPasswords(hasher=PasswordHasher(time_cost=3, memory_cost=19 * 1024, parallelism=1))


async def test_tokens_are_good_although_the_password_was_hashed_anew_for_them(
    tmp_path: Path, clock: ManualClock
) -> None:
    async with open_door(tmp_path, clock, stronger) as door:
        before = await door.log_in()
        hashed = (await door.logins.open(before.access)).password_hash
        assert hashed is not None and not door.passwords.needs_rehash(hashed)
        await door.log_in()
        assert not await dead(door, before)


async def test_no_hash_is_renewed_under_a_live_subscription(tmp_path: Path, clock: ManualClock) -> None:
    async with open_door(tmp_path, clock) as door:
        tokens = await door.log_in()
        session = await door.subscribe(access(tokens))
        strong = door.authenticator._passwords = stronger()
        await door.sign_in(GOOD)
        await door.authenticator.close()
        assert not await dead(door, tokens), "the page that lives on these must not be thrown out"
        await door.end(session, EndReason.CLIENT)
        await door.sign_in(GOOD)
        await door.authenticator.close()
        assert await dead(door, tokens)
        assert (await door.log_in()).expires
        await strong.close()
