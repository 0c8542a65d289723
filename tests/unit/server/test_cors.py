"""What pages of other origins are told, by policies without routes."""

from __future__ import annotations

import pytest

from offhook.server.cors import MAX_ORIGIN, REMEMBERED, Cors

APP = b"https://app.example"
VARY = (b"vary", b"Origin")
GRANTED = [
    VARY,
    (b"access-control-allow-origin", APP),
    (b"access-control-allow-credentials", b"true"),
    (b"access-control-expose-headers", b"Retry-After"),
]


def policy(*allowed: str) -> Cors:
    return Cors(allowed, ("GET", "POST", "OPTIONS"), ("authorization", "x-token"), ("Retry-After",), 600)


def test_allowed_origins_are_named() -> None:
    for cors in (policy("https://app.example"), policy("https://*.example"), policy("*")):
        assert cors.headers_for(APP) == GRANTED
        assert cors.headers_for(APP) == GRANTED


def test_a_preflight_tells_what_is_allowed() -> None:
    assert policy("*").preflight(APP) == [
        *GRANTED,
        (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
        (b"access-control-allow-headers", b"authorization, x-token"),
        (b"access-control-max-age", b"600"),
    ]


@pytest.mark.parametrize("origin", [None, b"null", b"https://evil.example", b"https://app.example.evil", b"\xff", b""])
def test_others_are_told_nothing(origin: bytes | None) -> None:
    cors = policy("https://app.example")
    assert cors.headers_for(origin) == cors.preflight(origin) == [VARY]


def test_an_origin_is_bounded_even_if_all_are_allowed() -> None:
    cors = policy("*")
    assert len(cors.headers_for(b"x" * MAX_ORIGIN)) == len(GRANTED)
    assert cors.headers_for(b"x" * (MAX_ORIGIN + 1)) == [VARY]


def test_the_lists_are_the_callers() -> None:
    cors = policy("*")
    for origin in (APP, None):
        before = cors.headers_for(origin)
        for made in (cors.headers_for(origin), cors.preflight(origin)):
            made.clear()
        assert cors.headers_for(origin) == before


def test_many_origins_are_told_apart() -> None:
    cors = policy("https://*.example")
    for _ in range(2):
        for number in range(REMEMBERED + 10):
            origin = f"https://{number}.example".encode()
            assert (b"access-control-allow-origin", origin) in cors.headers_for(origin)


def test_all_may_read_without_credentials() -> None:
    cors = Cors(None, ("GET",))
    assert cors.headers_for(None) == cors.headers_for(APP)
    assert dict(cors.headers_for(APP))[b"access-control-allow-origin"] == b"*"
    names = [name for name, _ in cors.preflight(APP)]
    assert b"access-control-allow-credentials" not in names and b"access-control-max-age" in names
