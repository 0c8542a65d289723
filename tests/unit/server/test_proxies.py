"""Forwarded headers: whom to believe, and how far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from offhook.server.proxies import ForwardedMiddleware, Peer, TrustedProxies, peer_of

PROXY = Peer("10.0.0.1", 4000, False, "inner:8686")
STRANGER = Peer("203.0.113.9", 4000, False, "chat.example")
proxies = TrustedProxies(["10.0.0.0/8", "fd00::/8"])


def test_nobody_is_trusted_by_default() -> None:
    assert TrustedProxies().resolve(PROXY, {"x-forwarded-for": "1.2.3.4"}) == PROXY


def test_a_stranger_is_not_believed() -> None:
    claims = {"x-forwarded-for": "1.2.3.4", "x-forwarded-proto": "https", "forwarded": "for=1.2.3.4"}
    assert proxies.resolve(STRANGER, claims) == STRANGER


@pytest.mark.parametrize(
    ("header", "address", "port"),
    [
        ("198.51.100.7", "198.51.100.7", 0),
        ("198.51.100.7:5555", "198.51.100.7", 5555),
        ("[2001:db8::7]:5555", "2001:db8::7", 5555),
        ("2001:db8::7", "2001:db8::7", 0),
        ("::ffff:198.51.100.7", "198.51.100.7", 0),
        ("198.51.100.7, 10.1.1.1, 10.2.2.2", "198.51.100.7", 0),
        # The client wrote the left part itself: only what our proxies appended counts.
        ("127.0.0.1, 198.51.100.7", "198.51.100.7", 0),
        ("10.9.9.9, 198.51.100.7, 10.1.1.1", "198.51.100.7", 0),
        # Every hop is ours: the left-most is as far as anyone knows.
        ("10.3.3.3, 10.2.2.2", "10.3.3.3", 0),
        # Nonsense ends the chain at the last proxy that is known.
        ("198.51.100.7, unknown, 10.2.2.2", "10.2.2.2", 0),
        ("nonsense", "10.0.0.1", 4000),
        ("", "10.0.0.1", 4000),
        (",,,", "10.0.0.1", 4000),
    ],
)
def test_x_forwarded_for(header: str, address: str, port: int) -> None:
    peer = proxies.resolve(PROXY, {"x-forwarded-for": header})
    assert (peer.address, peer.port) == (address, port)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("for=198.51.100.7", Peer("198.51.100.7", 0, False, "inner:8686")),
        ("For=198.51.100.7;Proto=HTTPS;Host=chat.example", Peer("198.51.100.7", 0, True, "chat.example")),
        ('for="[2001:db8::7]:4711";proto=https', Peer("2001:db8::7", 4711, True, "inner:8686")),
        ('for="_hidden;proto=https", for=10.1.1.1', Peer("10.1.1.1", 0, False, "inner:8686")),
        (
            "for=1.1.1.1;proto=https, for=198.51.100.7;proto=http",
            Peer("198.51.100.7", 0, False, "inner:8686"),
        ),
        ("for=_secret, for=10.1.1.1;proto=https", Peer("10.1.1.1", 0, True, "inner:8686")),
        ('for="198.51.100.7', PROXY),
    ],
)
def test_rfc_7239(header: str, expected: Peer) -> None:
    assert proxies.resolve(PROXY, {"forwarded": header}) == expected


def test_x_forwarded_for_wins_over_forwarded() -> None:
    headers = {"x-forwarded-for": "198.51.100.7", "forwarded": "for=1.1.1.1;proto=https"}
    assert proxies.resolve(PROXY, headers) == Peer("198.51.100.7", 0, False, "inner:8686")


@pytest.mark.parametrize(
    ("proto", "secure"),
    [("https", True), ("wss", True), ("http", False), ("https, http", False), ("gopher", False)],
)
def test_the_protocol_told_by_the_proxy_counts(proto: str, secure: bool) -> None:
    headers = {"x-forwarded-for": "1.1.1.1, 198.51.100.7", "x-forwarded-proto": proto}
    assert proxies.resolve(PROXY, headers).secure is secure


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("chat.example:8443", "chat.example:8443"),
        ("[2001:db8::1]:443", "[2001:db8::1]:443"),
        ("evil.example/path", "inner:8686"),
        ("evil.example\r\nset-cookie: a=b", "inner:8686"),
        ("a@b", "inner:8686"),
    ],
)
def test_the_host_told_by_the_proxy_counts_if_it_is_one(host: str, expected: str) -> None:
    assert proxies.resolve(PROXY, {"x-forwarded-for": "198.51.100.7", "x-forwarded-host": host}).host == expected


def test_proto_alone_is_enough() -> None:
    assert proxies.resolve(PROXY, {"x-forwarded-proto": "https"}) == Peer("10.0.0.1", 4000, True, "inner:8686")


def test_unix_and_everyone() -> None:
    unix = Peer("", 0, False, "")
    assert TrustedProxies(["unix"]).resolve(unix, {"x-forwarded-for": "1.2.3.4"}).address == "1.2.3.4"
    assert proxies.resolve(unix, {"x-forwarded-for": "1.2.3.4"}) == unix
    everyone = TrustedProxies(["*"])
    assert everyone.resolve(STRANGER, {"x-forwarded-for": "1.2.3.4, 5.6.7.8"}).address == "1.2.3.4"
    assert TrustedProxies(["10.0.0.1"]).trusts("::ffff:10.0.0.1")
    with pytest.raises(ValueError):
        TrustedProxies(["not a network"])


text = st.text(st.characters(codec="latin-1"), max_size=60)


@given(text, text, st.from_regex(r"[0-9a-f.,:\[\]\" ;=for]*", fullmatch=True))
def test_what_a_client_sends_never_moves_the_address_the_proxy_appended(junk: str, more: str, close: str) -> None:
    for left in (junk, more, close):
        forwarded = {"x-forwarded-for": f"{left}, 198.51.100.7", "forwarded": more}
        assert proxies.resolve(PROXY, forwarded).address == "198.51.100.7"
        assert proxies.resolve(STRANGER, {"forwarded": left, "x-forwarded-for": more}) == STRANGER
        proxies.resolve(PROXY, {"forwarded": left})


async def through_middleware(client: tuple[str, int] | None, headers: list[tuple[bytes, bytes]]) -> Scope:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError("nothing to receive")

    async def send(message: Message) -> None:
        raise AssertionError("nothing to send")

    scope: Scope = {"type": "http", "client": client, "scheme": "http", "headers": headers}
    await ForwardedMiddleware(app, proxies)(scope, receive, send)
    return seen[0]


async def test_the_middleware_rewrites_the_scope() -> None:
    headers = [
        (b"host", b"inner:8686"),
        (b"x-forwarded-for", b"6.6.6.6"),
        (b"x-forwarded-for", b"198.51.100.7"),
        (b"x-forwarded-proto", b"https"),
        (b"x-forwarded-host", b"chat.example"),
    ]
    scope = await through_middleware(("10.0.0.1", 4000), headers)
    assert (scope["client"], scope["scheme"]) == (("198.51.100.7", 0), "https")
    assert [value for name, value in scope["headers"] if name == b"host"] == [b"chat.example"]
    assert peer_of(scope) == Peer("198.51.100.7", 0, True, "chat.example")


async def test_the_middleware_leaves_strangers_as_they_are() -> None:
    headers = [
        (b"host", b"chat.example"),
        (b"x-forwarded-for", b"127.0.0.1"),
        (b"forwarded", b"for=127.0.0.1"),
    ]
    scope = await through_middleware(("203.0.113.9", 1), headers)
    assert (scope["client"], scope["scheme"], scope["headers"]) == (("203.0.113.9", 1), "http", headers)
    assert (await through_middleware(None, headers))["client"] is None
