"""Signed texts: nobody else can make or change one, use it for another purpose, or use it for ever."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from offhook.services.signing import GRANT_LIFETIME, Grant, SessionToken, Signer

SIGNER = Signer(b"k" * 32)
STRANGER = Signer(b"s" * 32)
NOW = datetime(2026, 3, 1, tzinfo=UTC)
IDS = st.integers(0, 2**63)
PURPOSES = st.sampled_from(["session", "grant", "webhook", "", "a b"])
GRANTS = st.builds(lambda kind, a, u: Grant.issue(kind, a, u, NOW), st.sampled_from("rw"), IDS, IDS)
TOKENS = st.builds(SessionToken, IDS, st.integers(1, 2**31))


@given(st.text())
def test_what_was_signed_is_read(text: str) -> None:
    assert SIGNER.check("session", SIGNER.sign("session", text)) == text


@given(PURPOSES, PURPOSES, st.text())
def test_a_signature_holds_for_its_purpose_only(purpose: str, other: str, text: str) -> None:
    assume(purpose != other)
    assert SIGNER.check(other, SIGNER.sign(purpose, text)) is None


@given(st.text(), st.text(alphabet=string.ascii_letters + string.digits + "-_.=é", max_size=40))
def test_invented_signatures_are_refused(text: str, signature: str) -> None:
    assume(signature != SIGNER.mac("session", text))
    assert SIGNER.check("session", f"{text}.{signature}") is None
    assert SIGNER.check("session", text) is None


@given(st.text(min_size=1), st.data())
def test_changed_and_shortened_texts_are_refused(text: str, data: st.DataObject) -> None:
    signed = SIGNER.sign("session", text)
    place = data.draw(st.integers(0, len(signed) - 1))
    character = data.draw(st.characters(codec="utf-8"))
    changed = signed[:place] + character + signed[place + 1 :]
    assume(changed != signed)
    assert SIGNER.check("session", changed) is None
    assert SIGNER.check("session", signed[:place]) is None
    assert SIGNER.check("session", signed[place + 1 :]) is None
    assert SIGNER.check("session", signed + character) is None


@given(st.text())
def test_another_key_gives_another_signature(text: str) -> None:
    assert SIGNER.check("session", STRANGER.sign("session", text)) is None
    assert Signer(b"k" * 32).check("session", SIGNER.sign("session", text)) == text


@given(TOKENS)
def test_session_tokens_come_back_and_are_plain_text(token: SessionToken) -> None:
    text = token.encode(SIGNER)
    assert SessionToken.decode(text, SIGNER) == token
    assert set(text) <= set(string.ascii_letters + string.digits + "-_.")
    assert SessionToken.decode(text, STRANGER) is None
    assert Grant.decode(text, SIGNER, NOW) is None


@given(TOKENS, TOKENS)
def test_a_token_is_no_other_sessions(token: SessionToken, other: SessionToken) -> None:
    assume(token != other)
    signature = token.encode(SIGNER).rpartition(".")[2]
    forged = f"{other.session_id}-{other.generation}.{signature}"
    assert SessionToken.decode(forged, SIGNER) is None


@given(st.text(max_size=300))
def test_no_text_makes_reading_fail(text: str) -> None:
    assert SessionToken.decode(text, SIGNER) is None
    assert Grant.decode(text, SIGNER, NOW) is None


@given(GRANTS)
def test_grants_come_back(grant: Grant) -> None:
    text = grant.encode(SIGNER)
    assert Grant.decode(text, SIGNER, NOW) == grant
    assert set(text) <= set(string.ascii_letters + string.digits + "-_.")
    assert Grant.decode(text, STRANGER, NOW) is None
    assert SessionToken.decode(text, SIGNER) is None


@given(GRANTS, st.integers(1, 10**10))
def test_a_longer_life_or_another_user_cannot_be_written_into_a_grant(grant: Grant, more: int) -> None:
    text, _, signature = grant.encode(SIGNER).rpartition(".")
    kind, application_id, user_id, expires = text.split("-")
    for forged in (
        f"{kind}-{application_id}-{user_id}-{int(expires) + more}",
        f"{kind}-{application_id}-{int(user_id) + more}-{expires}",
        f"{kind}-{int(application_id) + more}-{user_id}-{expires}",
        f"{'w' if kind == 'r' else 'r'}-{application_id}-{user_id}-{expires}",
    ):
        assert Grant.decode(f"{forged}.{signature}", SIGNER, NOW) is None


@pytest.mark.parametrize(
    ("age", "good"),
    [
        (timedelta(), True),
        (GRANT_LIFETIME - timedelta(seconds=1), True),
        (GRANT_LIFETIME, False),
        (GRANT_LIFETIME + timedelta(days=1000), False),
    ],
)
def test_grants_run_out(age: timedelta, good: bool) -> None:
    text = Grant.issue("w", 1, 2, NOW).encode(SIGNER)
    assert (Grant.decode(text, SIGNER, NOW + age) is not None) is good


def test_derived_secrets_are_each_their_own() -> None:
    secrets = {
        SIGNER.derive("webhook", "shop"),
        SIGNER.derive("webhook", "shop2"),
        SIGNER.derive("other", "shop"),
        STRANGER.derive("webhook", "shop"),
    }
    assert len(secrets) == 4 and all(len(bytes.fromhex(secret)) == 32 for secret in secrets)
    assert SIGNER.derive("webhook", "shop") == Signer(b"k" * 32).derive("webhook", "shop")


def test_short_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(b"short")
