"""Tokens that an application's back end makes, and the session ids that follow them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.door import ADDRESS, ALICE, BOB, GOOD, Door, open_door

from offhook.codes import EndReason
from offhook.domain.sessions import Authentication, Session, SessionState
from offhook.errors import AccessDenied
from offhook.protocols.kandy import hmac_token
from offhook.services.credentials import HmacProof, HmacSessionProof
from offhook.services.hmac_tokens import AFTERLIFE, AHEAD, CHAIN, MAX_AGE, REOPENABLE

CAROL = "carol@example.com"


@pytest.fixture
async def door(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Door]:
    async with open_door(tmp_path, clock) as door:
        yield door


def shown(door: Door, session: Session) -> HmacSessionProof:
    return HmacSessionProof(door.credentials.hmac_session(session))


async def test_a_token_starts_one_subscription(door: Door) -> None:
    proof = HmacProof(door.hmac())
    signed = await door.sign_in(proof)
    assert signed.hmac and signed.used is not None
    session = await door.subscribe(proof)
    assert session.authentication is Authentication.TOKEN and session.user_name == ALICE
    with pytest.raises(AccessDenied, match="used already"):
        await door.subscribe(proof)
    # A failed start does not use it up, and another token is another.
    await door.subscribe(HmacProof(door.hmac(nonce="m" * 16)))
    assert proof.token not in repr(proof)


async def test_an_unknown_user_becomes_a_member(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac(CAROL)), name=CAROL)
    carol = await door.user(CAROL)
    assert session.user_id == carol.id and not carol.guest and not carol.has_password


async def test_the_key_is_the_applications(door: Door) -> None:
    other, _ = await door.core.applications.create("other", domain="other.example.com")
    keys = {door.credentials.hmac_key(application) for application in (door.application, other)}
    assert len(keys) == 2 and all(len(bytes.fromhex(key)) == 32 for key in keys)
    theirs = door.hmac(domain="other.example.com")
    door.application = other
    assert await door.refused(HmacProof(theirs)) == "The token is not valid"


@pytest.mark.parametrize("token", ["", "x", "a.b", "\ud800", "x" * 5000, "é" * 10 + "." + "a" * 43])
async def test_texts_that_are_no_tokens(door: Door, token: str) -> None:
    assert await door.refused(HmacProof(token)) == "The token is not valid"


async def test_tokens_for_others(door: Door) -> None:
    assert await door.refused(HmacProof(door.hmac(BOB))) == "The token is for another user"
    assert await door.refused(HmacProof(door.hmac(domain="elsewhere.com"))) == "The token is for another domain"
    await door.sign_in(HmacProof(door.hmac(domain="EXAMPLE.com")))


async def test_a_token_is_good_for_minutes(door: Door) -> None:
    for age in (MAX_AGE, 0, -AHEAD):
        signed = await door.sign_in(HmacProof(door.hmac(age=age)))
        # It stays known as used for longer than it is good.
        assert signed.used is not None
        assert signed.used.until.timestamp() > door.clock.now().timestamp() - age + MAX_AGE - 1
    assert await door.refused(HmacProof(door.hmac(age=MAX_AGE + 1))) == "The token has expired"
    assert await door.refused(HmacProof(door.hmac(age=-AHEAD - 1))) == "The token is not valid yet"


@pytest.mark.parametrize("issued_at", [0, 2**53 - 1])
async def test_times_out_of_bounds(door: Door, issued_at: int) -> None:
    key = door.credentials.hmac_key(door.application).encode()
    token = hmac_token.encode(key, hmac_token.HmacClaims(ALICE, "example.com", issued_at, "n" * 16))
    await door.refused(HmacProof(token))


async def test_it_is_no_proof_for_other_requests(door: Door) -> None:
    with pytest.raises(AccessDenied, match="starting"):
        await door.identify(HmacProof(door.hmac()))


# --- session ids --------------------------------------------------------------------------------------------------


async def test_the_session_id_is_proof_while_the_session_lives(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    proof = shown(door, session)
    identity = await door.identify(proof)
    assert (identity.user.name, identity.login, identity.session_id) == (ALICE, "", session.id)
    signed = await door.sign_in(proof)
    assert signed.hmac and signed.used is None and signed.verdict.authentication is Authentication.TOKEN
    second = await door.subscribe(proof)
    assert second.id != session.id and second.state is SessionState.STARTING
    await door.end(session, EndReason.CLIENT)
    with pytest.raises(AccessDenied, match="ended"):
        await door.identify(proof)
    assert (await door.identify(shown(door, second))).session_id == second.id
    assert proof.session not in repr(proof)


@pytest.mark.parametrize("reason", list(EndReason))
async def test_a_new_subscription_after_an_end_that_was_no_decision(door: Door, reason: EndReason) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    proof = shown(door, session)
    await door.end(session, reason)
    if reason not in REOPENABLE:
        assert await door.refused(proof) == "The session has ended"
        return
    second = await door.subscribe(proof)
    # And so on, one after the other.
    await door.end(second, reason)
    await door.subscribe(shown(door, second))
    door.clock.advance(AFTERLIFE.total_seconds() - 1)
    await door.sign_in(proof)
    door.clock.advance(1)
    assert await door.refused(proof) == "The session has ended"


async def test_a_new_password_ends_session_ids(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    proof = shown(door, session)
    await door.end(session, EndReason.CLIENT)
    await door.core.users.set_password(door.application, ALICE, "another word")
    assert await door.refused(proof) == "The session is from before the password was changed"


async def test_an_operators_end_holds_for_earlier_sessions_too(door: Door) -> None:
    first = await door.subscribe(HmacProof(door.hmac()))
    await door.end(first, EndReason.CLIENT)
    second = await door.subscribe(shown(door, first))
    await door.end(second, EndReason.OPERATOR)
    assert await door.refused(shown(door, first)) == "The session has ended"


async def test_session_ids_go_back_to_a_token_for_a_day(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    door.clock.advance(CHAIN.total_seconds() - 1)
    second = await door.subscribe(shown(door, session))
    door.clock.advance(1)
    with pytest.raises(AccessDenied, match="new token"):
        await door.sign_in(shown(door, second))
    # It is proof for the session itself.
    await door.identify(shown(door, second))


async def test_an_application_made_anew_has_another_key(door: Door) -> None:
    again = replace(door.application, id=door.application.id + 1)
    assert door.credentials.hmac_key(again) != door.credentials.hmac_key(door.application)


async def test_session_ids_of_others(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    proof = shown(door, session)
    assert await door.refused(proof, name=BOB) == "The session is another user's"
    assert await door.refused(proof, name=CAROL) == "The session is unknown"
    other, _ = await door.core.applications.create("other")
    await door.core.users.create(other, ALICE)
    home, door.application = door.application, other
    assert await door.refused(proof) == "The session is another user's"
    door.application = home
    await door.core.users.delete(home, session.user_id)
    await door.core.users.create(home, ALICE)
    assert await door.refused(proof) == "The session is another user's"


async def test_a_disabled_user_has_no_use_of_it(door: Door) -> None:
    proof = shown(door, await door.subscribe(HmacProof(door.hmac())))
    await door.change(enabled=False)
    for attempt in (door.subscribe(proof), door.identify(proof)):
        with pytest.raises(AccessDenied):
            await attempt


@pytest.mark.parametrize("text", ["", "1", "1.", ".", "1.x", "x.y", "9" * 99, "\ud800", "9" * 5000])
async def test_texts_that_are_no_session_ids(door: Door, text: str) -> None:
    await door.subscribe(HmacProof(door.hmac()))
    assert await door.refused(HmacSessionProof(text)) == "The session is unknown"


async def test_other_signed_texts_are_none(door: Door) -> None:
    session = await door.subscribe(HmacProof(door.hmac()))
    text = door.core.signer.sign("session", f"{session.id}")
    assert await door.refused(HmacSessionProof(text)) == "The session is unknown"


async def test_a_session_that_began_by_password_gives_no_id_away(door: Door) -> None:
    signed = await door.sign_in(GOOD, address=ADDRESS)
    assert not signed.hmac and signed.used is None
