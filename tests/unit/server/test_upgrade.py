"""Which upgrades go straight to the WebSocket layer: only those about which no parser could differ."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.websocket import HandshakeError, parse_request
from offhook.server.upgrades import is_plain_upgrade

HEAD = (
    b"GET /rtm/websocket?api-key=k HTTP/1.1\r\nHost: example.test:8686\r\nConnection: Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Origin: https://app.example.test\r\nSec-WebSocket-Protocol: v12.stomp\r\n\r\n"
)


class Seen:
    """What httptools makes of a head."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def test_what_clients_send_is_plain() -> None:
    assert is_plain_upgrade(HEAD)
    assert is_plain_upgrade(HEAD.replace(b"Upgrade: websocket", b"upgrade: WebSocket"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"GET ", b"POST "),
        (b"GET /", b"GET x/"),
        (b"HTTP/1.1", b"HTTP/1.0"),
        (b"HTTP/1.1", b"HTTP/1.1 "),
        (b" HTTP", b"  HTTP"),
        (b"/rtm", b"/r\ttm"),
        (b"/rtm", "/r\u00e9".encode()),
        (b"\r\nHost", b"\nHost"),
        (b"\r\nHost", b"\r\rHost"),
        (b"\r\nHost", b"\r\n Host"),
        (b"\r\nHost", b"\r\n\r\nHost"),
        (b"Host:", b"Host :"),
        (b"Host:", b"Ho(st:"),
        (b"Host:", b":"),
        (b"Host: e", b"Host: \x00"),
        (b"Origin: ", b"Origin: \t"),
        (b"Origin: ", b"no colon\r\nOrigin: "),
        (b"Origin: ", b"Content-Length: 0\r\nOrigin: "),
        (b"Origin: ", b"Transfer-Encoding: chunked\r\nOrigin: "),
        (b"Origin: ", b"Expect: 100-continue\r\nOrigin: "),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket", b"Upgrade: h2c, websocket"),
        (b"Upgrade: websocket\r\n", b""),
        (b"stomp\r\n\r\n", b"stomp\r\n"),
        (b"stomp\r\n\r\n", b"stomp\r\n\r\nx"),
        (b"Origin: ", b"X: " + b"x" * 40_000 + b"\r\nOrigin: "),
    ],
)
def test_whatever_is_unusual_goes_the_long_way(old: bytes, new: bytes) -> None:
    assert old in HEAD
    assert not is_plain_upgrade(HEAD.replace(old, new, 1))


def test_nothing_is_plain_before_it_is_whole() -> None:
    assert not any(is_plain_upgrade(HEAD[:size]) for size in range(len(HEAD)))


pieces = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b" ",
        b"\t",
        b":",
        b"Upgrade: websocket",
        b"Host: x",
        b"a",
        b"GET / HTTP/1.1",
        b"\x00",
        b"-",
    ]
)


@given(st.lists(pieces, max_size=12), st.integers(0, len(HEAD)))
def test_what_is_plain_is_read_alike_by_both(inserted: list[bytes], at: int) -> None:
    head = HEAD[:at] + b"".join(inserted) + HEAD[at:]
    if not is_plain_upgrade(head):
        return
    seen = Seen()
    parser = httptools.HttpRequestParser(seen)
    with pytest.raises(httptools.HttpParserUpgrade):
        parser.feed_data(head)
    lines = [line.split(b":", 1) for line in head[:-4].split(b"\r\n")[1:]]
    assert seen.headers == [(name, value.strip(b" ")) for name, value in lines]
    assert seen.url == head.split(b" ")[1]
    try:
        request = parse_request(head)
    except HandshakeError:
        return
    assert request.query == (seen.url.split(b"?", 1)[1].decode() if b"?" in seen.url else "")
