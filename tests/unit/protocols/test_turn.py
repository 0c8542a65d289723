"""TURN credentials."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.turn import credentials

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_a_known_pair() -> None:
    # printf '1700003600:alice' | openssl dgst -sha1 -hmac north -binary | base64
    found = credentials("north", "alice", 1_700_003_600)
    assert found.username == "1700003600:alice"
    assert found.password == "wjwSXO2ch1B6VaLTLMy2Avn5O9o="


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), names, st.integers(0, 2**40))
def test_what_a_turn_server_computes_is_the_same(secret: str, user: str, expires_at: int) -> None:
    found = credentials(secret, user, expires_at)
    expiry, _, name = found.username.partition(":")
    assert (int(expiry), name) == (expires_at, user)
    mac = hmac.new(secret.encode(), found.username.encode(), hashlib.sha1)
    assert base64.b64decode(found.password) == mac.digest()


def test_the_password_is_not_shown() -> None:
    found = credentials("north", "alice", 1)
    assert found.password not in repr(found)


def test_an_empty_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="secret"):
        credentials("", "alice", 1)
