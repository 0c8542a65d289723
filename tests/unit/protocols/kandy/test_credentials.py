"""Credentials of a request."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy.credentials import (
    MAX_CREDENTIAL,
    Basic,
    Bearer,
    CredentialError,
    HmacSession,
    HmacToken,
    QueryToken,
    parse_credentials,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def basic(text: str, scheme: str = "Basic") -> str:
    return f"{scheme} {base64.b64encode(text.encode()).decode()}"


@given(texts.filter(lambda text: bool(text) and ":" not in text), texts, st.sampled_from(["Basic", "basic", "BASIC"]))
def test_names_and_passwords_round_trip(authname: str, password: str, scheme: str) -> None:
    value = basic(f"{authname}:{password}", scheme)
    assert parse_credentials(value) == parse_credentials(value.rstrip("=")) == (Basic(authname, password),)


def test_a_password_may_hold_colons() -> None:
    assert parse_credentials(basic("alice:a:b")) == (Basic("alice", "a:b"),)


def test_each_kind() -> None:
    assert parse_credentials() == ()
    assert parse_credentials("Bearer t1") == parse_credentials("bearer  t1 ") == (Bearer("t1"),)
    assert parse_credentials(x_token="t2") == (HmacToken("t2"),)
    assert parse_credentials(x_session="s3") == (HmacSession("s3"),)
    assert parse_credentials(query_token="t4") == (QueryToken("t4"),)
    assert parse_credentials(access_token="t5") == (Bearer("t5"),)


def test_headers_come_before_a_stale_token_in_the_query() -> None:
    assert parse_credentials(basic("alice:pw"), query_token="AT1") == (Basic("alice", "pw"), QueryToken("AT1"))
    everything = parse_credentials("Bearer a", "b", "c", "d", "e")
    assert everything == (Bearer("a"), HmacSession("c"), HmacToken("b"), Bearer("e"), QueryToken("d"))


@pytest.mark.parametrize("value", ["", "  ", "undefined", "null"])
def test_what_a_script_writes_for_nothing_is_nothing(value: str) -> None:
    assert parse_credentials(value, value, value, value, value) == ()


@pytest.mark.parametrize(
    "value",
    [
        "Basic",
        "Basic !!!!",
        "Basic YQ",
        "Basic /w==",
        "Basic Og==",
        "Basic é",
        "Bearer",
        "Digest x",
        "YWxpY2U6cHc=",
        "Bearer " + "x" * MAX_CREDENTIAL,
    ],
)
def test_malformed_ones_are_refused(value: str) -> None:
    with pytest.raises(CredentialError):
        parse_credentials(value)


def test_long_ones_are_refused() -> None:
    with pytest.raises(CredentialError):
        parse_credentials(query_token="x" * (MAX_CREDENTIAL + 1))


def test_secrets_are_not_shown() -> None:
    found = parse_credentials(basic("alice:hush"), "hush", "hush", "hush", "hush")
    assert len(found) == 5
    assert "hush" not in repr(found) and "alice" in repr(found)


@given(st.text(st.characters(), max_size=60), st.sampled_from(["", "Basic ", "Bearer "]))
def test_nothing_but_the_documented_error_is_raised(text: str, scheme: str) -> None:
    with contextlib.suppress(CredentialError):
        parse_credentials(scheme + text, text, text, text, text)


@given(st.binary(max_size=40))
def test_any_bytes_in_base64(raw: bytes) -> None:
    with contextlib.suppress(CredentialError):
        parse_credentials("Basic " + base64.b64encode(raw).decode())
