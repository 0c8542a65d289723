"""Who is really there, when proxies stand between.

Forwarded headers are claims: they count only when the socket's peer is a trusted proxy, and only as far as
trusted proxies made them. Read from the right, the first address that is no trusted proxy is the client;
what stands left of it the client may have invented.

``X-Forwarded-For`` wins over RFC 7239's ``Forwarded`` when both are there. A proxy that writes one of them
has to drop the other, since a client may send either.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_HOPS = 20
"""Entries read of one forwarded header, from its right end."""

MAX_FORWARDED = 2048
"""Characters read of a Forwarded header, from its right end: its quoting makes long nonsense dear to read."""

PEER_KEY = "offhook.peer"
"""Where the ASGI scope keeps the Peer."""

X_FOR, X_PROTO, X_HOST = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"
RFC_7239 = "forwarded"

FORWARDED_NAMES = tuple(name.encode() for name in (X_FOR, X_PROTO, X_HOST, RFC_7239))
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")
_PAIR = re.compile(r'\s*([A-Za-z-]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(?:;|\Z)')
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*")+')
_SECURE = {"https": True, "wss": True, "http": False, "ws": False}


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a request.

    Attributes:
        address: the client's IP address; empty on a Unix socket.
        port: the client's port; 0 if it is not known.
        secure: whether the client came by TLS.
        host: host and port by which the client called us (the Host header); empty if it is not known.
    """

    address: str
    port: int
    secure: bool
    host: str


@dataclass(frozen=True, slots=True)
class _Hop:
    """What one proxy said of the one who called it."""

    node: str
    proto: str | None
    host: str | None


class TrustedProxies:
    """Knows whom to believe.

    Args:
        trusted: addresses and networks (``10.0.0.0/8``), ``unix`` for peers on a Unix socket, or ``*`` for
            everyone, which is safe only where nobody but the proxy can connect.

    Raises:
        ValueError: an entry is none of these.
    """

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        entries = [entry.strip() for entry in trusted]
        self._everyone = "*" in entries
        self._unix = self._everyone or "unix" in entries
        self._networks = [ipaddress.ip_network(entry, strict=False) for entry in entries if entry not in ("*", "unix")]
        self._nobody = not entries
        self._is_trusted = functools.lru_cache(maxsize=4096)(self._look_up)

    def trusts(self, address: str) -> bool:
        """Whether the address (empty: a Unix socket) is a trusted proxy."""
        return not self._nobody and self._is_trusted(address)

    def resolve(self, direct: Peer, forwarded: Mapping[str, str] | None) -> Peer:
        """The client behind the socket's peer.

        Args:
            direct: the socket's own peer, and the Host header as it came.
            forwarded: the request's forwarded headers by their names in lower case, several lines of one name
                joined by commas; ill-formed ones are as good as none.
        """
        if not forwarded or not self.trusts(direct.address):
            return direct
        if X_FOR in forwarded:
            hops = _x_forwarded(forwarded)
        elif RFC_7239 in forwarded:
            hops = _rfc_7239(forwarded[RFC_7239])
        else:
            hops = [_Hop("", *_x_last(forwarded))]
        address, port, told = direct.address, direct.port, None
        for hop in reversed(hops):
            node = _node(hop.node) if hop.node else (address, port)
            if node is None:
                break  # a hidden or broken name: the proxy that says so is the last we know
            (address, port), told = node, hop
            if not self._is_trusted(address):
                break
        if told is None:
            return direct
        secure = _SECURE.get((told.proto or "").lower(), direct.secure)
        host = told.host if told.host is not None and _HOST.match(told.host) else direct.host
        return Peer(address, port, secure, host)

    def _look_up(self, address: str) -> bool:
        if self._everyone:
            return True
        if not address:
            return self._unix
        try:
            ip = _normal(address)
        except ValueError:
            return False
        return any(ip in network for network in self._networks)


class ForwardedMiddleware:
    """ASGI middleware: puts the real client into the scope's ``client``, ``scheme`` and Host header.

    The whole ``Peer`` is kept under PEER_KEY, see ``peer_of``.
    """

    def __init__(self, app: ASGIApp, proxies: TrustedProxies) -> None:
        self.app = app
        self._proxies = proxies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers: list[tuple[bytes, bytes]] = scope["headers"]
            address, port = scope["client"] or ("", 0)
            direct = Peer(address, port, scope["scheme"] == "https", _values(headers, b"host") or "")
            peer = direct
            if self._proxies.trusts(address):
                found = {name.decode(): _values(headers, name) for name in FORWARDED_NAMES}
                peer = self._proxies.resolve(
                    direct, {name: value for name, value in found.items() if value is not None}
                )
            scope[PEER_KEY] = peer
            if peer is not direct and peer != direct:
                scope["client"] = (peer.address, peer.port)
                scope["scheme"] = "https" if peer.secure else "http"
                if peer.host != direct.host:
                    rest = [header for header in headers if header[0] != b"host"]
                    scope["headers"] = [*rest, (b"host", peer.host.encode("latin-1"))]
        await self.app(scope, receive, send)


def peer_of(scope: Scope) -> Peer:
    """The Peer of an HTTP request that came through ForwardedMiddleware."""
    peer = scope[PEER_KEY]
    if not isinstance(peer, Peer):
        raise TypeError("The request did not come through ForwardedMiddleware")
    return peer


def _values(headers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    found = [value for name, value in headers if name == wanted]
    return b",".join(found).decode("latin-1") if found else None


def _normal(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, an IPv4 one mapped into IPv6 as IPv4. Raises ValueError."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    return ip


def _node(text: str) -> tuple[str, int] | None:
    """Address and port of ``1.2.3.4``, ``1.2.3.4:5``, ``2001:db8::1`` or ``[2001:db8::1]:5``; else None."""
    if text.startswith("["):
        address, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") == 1:
        address, _, port = text.partition(":")
    else:
        address, port = text, ""
    try:
        return str(_normal(address)), int(port) if port.isascii() and port.isdigit() else 0
    except ValueError:
        return None


def _x_forwarded(forwarded: Mapping[str, str]) -> list[_Hop]:
    nodes = _split(forwarded.get(X_FOR))
    protos, hosts = _split(forwarded.get(X_PROTO)), _split(forwarded.get(X_HOST))
    return [
        _Hop(node or "unknown", _beside(protos, index, nodes), _beside(hosts, index, nodes))
        for index, node in enumerate(nodes)
    ]


def _x_last(forwarded: Mapping[str, str]) -> tuple[str | None, str | None]:
    protos, hosts = _split(forwarded.get(X_PROTO)), _split(forwarded.get(X_HOST))
    return protos[-1] if protos else None, hosts[-1] if hosts else None


def _beside(values: list[str], index: int, nodes: list[str]) -> str | None:
    """The value that belongs to a node: beside it if every proxy added one, else the nearest proxy's."""
    if not values:
        return None
    return values[index] if len(values) == len(nodes) else values[-1]


def _split(value: str | None) -> list[str]:
    return [part.strip() for part in value.rsplit(",", MAX_HOPS)[-MAX_HOPS:]] if value is not None else []


def _rfc_7239(value: str) -> list[_Hop]:
    """The elements of a Forwarded header (RFC 7239 section 4)."""
    hops = []
    for element in _ELEMENT.findall(value[-MAX_FORWARDED:])[-MAX_HOPS:]:
        pairs = {
            name.lower(): re.sub(r"\\(.)", r"\1", quoted) or token for name, quoted, token in _PAIR.findall(element)
        }
        hops.append(_Hop(pairs.get("for") or "unknown", pairs.get("proto"), pairs.get("host")))
    return hops
