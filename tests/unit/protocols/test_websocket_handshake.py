"""The opening handshake."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.websocket import (
    HandshakeError,
    UpgradeRequest,
    accept_response,
    parse_request,
    reject_response,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "Host": "server.example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def request(*more: str, line: str = "GET /rtm HTTP/1.1", changes: Mapping[str, str | None] | None = None) -> bytes:
    """A request; ``changes`` replace headers, or drop them by None."""
    headers = {**HEADERS, **(changes or {})}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return "\r\n".join([line, *lines, *more, "", ""]).encode("latin-1")


def fail(raw: bytes) -> HandshakeError:
    with pytest.raises(HandshakeError) as caught:
        parse_request(raw)
    return caught.value


def test_a_request() -> None:
    raw = request(
        "Origin: https://app.example.com",
        "Sec-WebSocket-Protocol: v12.stomp, v11.stomp",
        "sec-websocket-protocol:other",
        "User-Agent: test/1",
        "X-Forwarded-For: 192.0.2.1",
        "x-forwarded-for: 192.0.2.2",
        "Forwarded: for=192.0.2.1",
        "Cookie: secret",
        line="GET /rtm%20%C3%A4?api-key=a%20b&x=? HTTP/1.1",
    )
    assert parse_request(raw) == UpgradeRequest(
        method="GET",
        path="/rtm ä",
        query="api-key=a%20b&x=?",
        host="server.example.com",
        origin="https://app.example.com",
        subprotocols=("v12.stomp", "v11.stomp", "other"),
        key=KEY,
        version=13,
        user_agent="test/1",
        forwarded={"x-forwarded-for": "192.0.2.1, 192.0.2.2", "forwarded": "for=192.0.2.1"},
    )


def test_the_least_request() -> None:
    found = parse_request(request())
    assert (found.path, found.query, found.origin) == ("/rtm", "", None)
    assert (found.subprotocols, found.user_agent, found.forwarded) == ((), None, None)
    with pytest.raises(HandshakeError) as caught:
        parse_request(request(changes={"Host": None}))
    assert caught.value.status == 400


@pytest.mark.parametrize("upgrade", ["WebSocket", "h2c, websocket"])
@pytest.mark.parametrize("connection", ["upgrade", "keep-alive, Upgrade", "Upgrade,keep-alive"])
def test_tokens_are_compared_as_tokens(upgrade: str, connection: str) -> None:
    assert parse_request(request(changes={"Upgrade": upgrade, "Connection": connection})).key == KEY


@pytest.mark.parametrize(
    "changes", [{"Upgrade": None}, {"Upgrade": "websockets"}, {"Connection": "close"}, {"Connection": None}]
)
def test_a_request_for_something_else_is_told_what_is_here(changes: dict[str, str | None]) -> None:
    error = fail(request(changes=changes))
    assert (error.status, error.headers["Upgrade"]) == (426, "websocket")


@pytest.mark.parametrize("version", [None, "8", "0", "13, 8", ""])
def test_other_versions_are_told_the_right_one(version: str | None) -> None:
    error = fail(request(changes={"Sec-WebSocket-Version": version}))
    assert (error.status, error.headers["Sec-WebSocket-Version"]) == (426, "13")


@pytest.mark.parametrize(
    "key", [None, "", "short", "dGhlIHNhbXBsZSBub25jZ", "dGhlIHNhbXBsZSBub25j", KEY + "AAAA", "ä" * 24]
)
def test_the_key_must_be_base64_of_16_bytes(key: str | None) -> None:
    assert fail(request(changes={"Sec-WebSocket-Key": key})).status == 400


@pytest.mark.parametrize("name", ["Sec-WebSocket-Key", "sec-websocket-version", "Host", "Origin"])
def test_single_headers_may_not_be_repeated(name: str) -> None:
    value = HEADERS.get(name, KEY)
    assert fail(request(f"{name}: {value}", f"{name}: {value}")).status == 400


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("POST / HTTP/1.1", 405),
        ("get / HTTP/1.1", 405),
        ("GET / HTTP/1.0", 505),
        ("GET / HTTP/2", 505),
        ("GET /", 400),
        ("GET / x HTTP/1.1", 400),
        ("GET  HTTP/1.1", 400),
        ("GET * HTTP/1.1", 400),
        ("GET ftp://host/ HTTP/1.1", 400),
        ("GET /%ff HTTP/1.1", 400),
        ("", 400),
    ],
)
def test_other_request_lines_are_refused(line: str, status: int) -> None:
    assert fail(request(line=line)).status == status


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [("http://h:80/rtm?a", "/rtm", "a"), ("WSS://h", "/", ""), ("//a/b", "//a/b", ""), ("/a?b?c", "/a", "b?c")],
)
def test_targets(target: str, path: str, query: str) -> None:
    found = parse_request(request(line=f"GET {target} HTTP/1.1"))
    assert (found.path, found.query) == (path, query)


@pytest.mark.parametrize(
    "header", ["no colon", ": no name", " folded: x", "name : x", "a: b\0", "a: b\nc: d", "a: b\rc"]
)
def test_malformed_headers_are_refused(header: str) -> None:
    assert fail(request(header)).status == 400


def test_an_unfinished_head_is_refused() -> None:
    assert fail(request()[:-2]).status == 400


def test_the_accepting_answer_of_the_rfc() -> None:
    found = parse_request(request("Sec-WebSocket-Protocol: chat, superchat"))
    assert accept_response(found, "chat") == (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
    assert b"Sec-WebSocket-Protocol" not in accept_response(found)
    with pytest.raises(ValueError, match="not offered"):
        accept_response(found, "v12.stomp")


def test_a_refusing_answer() -> None:
    assert reject_response(426, "Wröng", {"Sec-WebSocket-Version": "13"}) == (
        b"HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n"
        b"Connection: close\r\nSec-WebSocket-Version: 13\r\n\r\nWr\xc3\xb6ng"
    )


@given(
    st.one_of(
        st.binary(max_size=300),
        st.lists(st.sampled_from(request().splitlines(True)) | st.binary(max_size=9)).map(b"".join),
    )
)
def test_any_bytes_give_a_request_or_the_documented_error(raw: bytes) -> None:
    try:
        assert parse_request(raw).version == 13
    except HandshakeError as error:
        assert error.status in (400, 405, 426, 505)
