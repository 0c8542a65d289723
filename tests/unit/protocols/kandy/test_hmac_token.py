"""Tokens that an application signs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy.hmac_token import (
    MAX_NONCE,
    MAX_TOKEN,
    MIN_NONCE,
    HmacClaims,
    HmacTokenError,
    decode,
    encode,
    peek,
)

KEY = b"k" * 32
CLAIMS = HmacClaims("alice@example.com", "example", 1_700_000_000, "0123456789abcdef")
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
nonces = st.text(st.characters(exclude_categories=["Cs"]), min_size=MIN_NONCE, max_size=MAX_NONCE)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(payload: str, key: bytes = KEY) -> str:
    return f"{payload}.{base64url(hmac.new(key, payload.encode(), hashlib.sha256).digest())}"


@given(st.binary(min_size=1, max_size=80), names, names, st.integers(0, 2**53 - 1), nonces)
def test_round_trip(key: bytes, subscriber: str, organization: str, issued_at: int, nonce: str) -> None:
    claims = HmacClaims(subscriber, organization, issued_at, nonce)
    token = encode(key, claims)
    assert decode(key, token) == claims
    assert peek(token) == (subscriber, organization)
    assert token.isascii() and len(token) <= MAX_TOKEN


def test_the_form_that_applications_have_to_make() -> None:
    request = {
        "subscriberId": "alice@example.com",
        "organizationId": "example",
        "issuedAt": 1_700_000_000,
        "nonce": "0123456789abcdef",
    }
    assert decode(KEY, signed(base64url(json.dumps({"authenticationTokenRequest": request}).encode()))) == CLAIMS
    text = json.dumps({"authenticationTokenRequest": request}, separators=(",", ":"))
    assert encode(KEY, CLAIMS) == signed(base64url(text.encode()))


@given(st.data())
def test_no_change_of_a_character_goes_unnoticed(data: st.DataObject) -> None:
    token = encode(KEY, CLAIMS)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(ALPHABET + ".=+/ ").filter(lambda character: character != token[at]))
    with pytest.raises(HmacTokenError):
        decode(KEY, token[:at] + other + token[at + 1 :])


@pytest.mark.parametrize("change", ["{}=", "{}\n", " {}", "{}.", "{}A", "{}==="])
def test_there_is_no_second_spelling(change: str) -> None:
    with pytest.raises(HmacTokenError):
        decode(KEY, change.format(encode(KEY, CLAIMS)))


def test_a_payload_with_stray_bits_is_refused_though_signed() -> None:
    # 'e30' and 'e31' decode to the same two bytes.
    with pytest.raises(HmacTokenError, match="base64url"):
        decode(KEY, signed("e31"))


def test_another_key_is_refused() -> None:
    with pytest.raises(HmacTokenError, match="signed"):
        decode(b"other", encode(KEY, CLAIMS))


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"authenticationTokenRequest": {}},
        {"authenticationTokenRequest": {"subscriberId": "a", "organizationId": "b", "issuedAt": 1}},
        *(
            {
                "authenticationTokenRequest": {
                    "subscriberId": "a",
                    "organizationId": "b",
                    "issuedAt": 1,
                    "nonce": "n" * 16,
                    **change,
                }
            }
            for change in (
                {"subscriberId": ""},
                {"organizationId": ""},
                {"issuedAt": -1},
                {"issuedAt": 2**53},
                {"issuedAt": "1"},
                {"nonce": "n" * 15},
                {"nonce": "n" * 65},
                {"nonce": None},
            )
        ),
    ],
)
def test_other_claims_are_refused_though_signed(value: object) -> None:
    token = signed(base64url(json.dumps(value).encode()))
    with pytest.raises(HmacTokenError):
        decode(KEY, token)
    with pytest.raises(HmacTokenError):
        peek(token)


@pytest.mark.parametrize("token", ["", ".", "a.b", "é.x", "x" * 3000, "." + "A" * 43, signed("e30", b"x")[:-1]])
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(HmacTokenError):
        decode(KEY, token)
    with pytest.raises(HmacTokenError):
        peek(token)


def test_long_or_unwritable_claims_are_refused() -> None:
    with pytest.raises(HmacTokenError, match="long"):
        encode(KEY, HmacClaims("a" * 2000, "o", 1, "n" * 16))
    with pytest.raises(HmacTokenError, match="written"):
        encode(KEY, HmacClaims("\ud800", "o", 1, "n" * 16))


def test_an_empty_key_is_a_mistake_of_the_server() -> None:
    with pytest.raises(ValueError, match="key"):
        encode(b"", CLAIMS)
    with pytest.raises(ValueError, match="key"):
        decode(b"", encode(KEY, CLAIMS))


def test_errors_and_claims_show_no_secrets() -> None:
    assert CLAIMS.nonce not in repr(CLAIMS)
    with pytest.raises(HmacTokenError) as caught:
        decode(b"other", encode(KEY, CLAIMS))
    assert encode(KEY, CLAIMS)[:20] not in str(caught.value)


@given(st.text(st.characters(), max_size=80))
def test_nothing_but_the_documented_error_is_raised(text: str) -> None:
    for token in (text, f"{text}.{'A' * 43}"):
        with contextlib.suppress(HmacTokenError):
            decode(KEY, token)
        with contextlib.suppress(HmacTokenError):
            peek(token)


@given(st.binary(max_size=80))
def test_any_bytes_signed(raw: bytes) -> None:
    with contextlib.suppress(HmacTokenError):
        decode(KEY, signed(base64url(raw)))
