"""The SockJS codec."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.sockjs import (
    XHR_STREAMING_PRELUDE,
    Address,
    Limits,
    SockJSError,
    Transport,
    decode_messages,
    encode_close,
    encode_heartbeat,
    encode_messages,
    encode_open,
    info,
    parse_path,
)


@pytest.mark.parametrize("transport", list(Transport))
def test_paths(transport: Transport) -> None:
    assert parse_path(f"/000/abc_1/{transport}") == Address("000", "abc_1", transport)
    assert parse_path(f"000/abc_1/{transport}") == Address("000", "abc_1", transport)


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "/",
        "/a/b",
        "//b/xhr",
        "/a//xhr",
        "/a/b/",
        "/a/b/xhr/",
        "/a/b/c/xhr",
        "/a.b/c/xhr",
        "/a/b.c/xhr",
        "/a/b/eventsource",
        "/a/b/XHR",
    ],
)
def test_other_paths_are_refused(tail: str) -> None:
    with pytest.raises(SockJSError):
        parse_path(tail)


def test_frames() -> None:
    assert encode_open() == b"o"
    assert encode_heartbeat() == b"h"
    assert encode_close(1000, 'Normal "closure"') == b'c[1000,"Normal \\"closure\\""]'
    assert encode_messages([]) == b"a[]"
    assert encode_messages(["a\n\0", "b"]) == b'a["a\\n\\u0000","b"]'
    assert XHR_STREAMING_PRELUDE == b"h" * 2048 + b"\n"


def test_problematic_unicode_is_escaped() -> None:
    text = "\u200c\u200f\u2028\u206f\ufff0\uffff\u0300ä\U0001f600"
    data = encode_messages([text])
    assert data.isascii()
    assert json.loads(data[1:]) == [text]


def test_the_info_document() -> None:
    assert json.loads(info(123456789)) == {
        "websocket": True,
        "origins": ["*:*"],
        "cookie_needed": False,
        "entropy": 123456789,
    }
    assert json.loads(info(1, websocket=False))["websocket"] is False


def test_one_string_or_an_array_of_them() -> None:
    assert decode_messages(b'"a\\u0000"') == ["a\0"]
    assert decode_messages(b' ["a", "\\ud83d\\ude00"] ') == ["a", "\U0001f600"]
    assert decode_messages(b"[]") == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        b'["a"',
        b"a",
        b"1",
        b"null",
        b"{}",
        b'["a",1]',
        b'[["a"]]',
        b'["\xff"]',
        b'["\\ud800"]',
        b'["a"]x',
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(SockJSError) as caught:
        decode_messages(body)
    assert not caught.value.too_large


def test_limits_are_inclusive() -> None:
    limits = Limits(max_body=8, max_messages=2)
    assert decode_messages(b'["","" ]', limits) == ["", ""]
    for body in (b'["",""  ]', b'"1234567"'):
        with pytest.raises(SockJSError) as caught:
            decode_messages(body, limits)
        assert caught.value.too_large
    with pytest.raises(SockJSError) as many:
        decode_messages(b'["","",""]', Limits(max_messages=2))
    assert many.value.too_large


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_round_trip(messages: list[str]) -> None:
    assert decode_messages(encode_messages(messages)[1:]) == messages


@given(st.one_of(st.binary(), st.text().map(lambda text: text.encode(errors="surrogatepass"))))
def test_any_bytes_give_strings_or_the_documented_error(body: bytes) -> None:
    try:
        messages = decode_messages(body)
    except SockJSError:
        return
    assert json.loads(encode_messages(messages)[1:]) == messages
