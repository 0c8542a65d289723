"""The opening handshake (RFC 6455 section 4), server side."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import unquote

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
_SINGLE = frozenset({"host", "origin", "sec-websocket-key", "sec-websocket-version"})


class HandshakeError(Exception):
    """The request cannot be upgraded.

    Args:
        status: the HTTP status to answer with: 400, 405, 426 or 505.
        message: one sentence, the body of the answer.

    Attributes:
        headers: what the answer must carry besides.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers: Mapping[str, str] = headers or {}


@dataclass(frozen=True, slots=True)
class UpgradeRequest:
    """What is worth knowing of a valid upgrade request.

    Attributes:
        method: always ``GET``.
        path: percent-decoded, without the query.
        query: the raw query string, without its question mark. May hold credentials: never log it.
        host: the ``Host`` header.
        origin: the ``Origin`` header, which browsers always send.
        subprotocols: offered, in the client's order of preference.
        key: ``Sec-WebSocket-Key`` as sent.
        version: always 13.
        user_agent: the ``User-Agent`` header.
        forwarded: the headers in which proxies tell whom they speak for (``x-forwarded-for``,
            ``x-forwarded-proto``, ``x-forwarded-host``, ``forwarded``), by lower-case name, repeated ones
            joined by commas. To be believed only where the peer is a trusted proxy. None if there are none.
    """

    method: str
    path: str
    query: str
    host: str
    origin: str | None
    subprotocols: tuple[str, ...]
    key: str
    version: int
    user_agent: str | None = None
    forwarded: Mapping[str, str] | None = None


_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded")


def parse_request(raw: bytes) -> UpgradeRequest:
    """Read and check an upgrade request.

    Args:
        raw: the whole head of the HTTP request, up to and including its blank line.

    Raises:
        HandshakeError: it is no valid upgrade to WebSocket version 13.
    """
    head, blank, _ = raw.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    parts = lines[0].split(" ")
    if not blank or len(parts) != 3:
        raise HandshakeError(400, "The request is malformed")
    method, target, http_version = parts
    if method != "GET":
        raise HandshakeError(405, "A WebSocket is opened by GET", {"Allow": "GET"})
    if http_version != "HTTP/1.1":
        raise HandshakeError(505, "A WebSocket is opened over HTTP/1.1")
    headers = _parse_headers(lines[1:])
    if "websocket" not in _tokens(headers.get("upgrade")) or "upgrade" not in _tokens(headers.get("connection")):
        raise HandshakeError(426, "The request asks for no WebSocket", {"Upgrade": "websocket"})
    if headers.get("sec-websocket-version") != _VERSION:
        message = "Only version 13 of the WebSocket protocol is spoken"
        raise HandshakeError(426, message, {"Upgrade": "websocket", "Sec-WebSocket-Version": _VERSION})
    path, query = _parse_target(target)
    offered = headers.get("sec-websocket-protocol", "").split(",")
    return UpgradeRequest(
        method=method,
        path=path,
        query=query,
        host=_required_host(headers),
        origin=headers.get("origin"),
        subprotocols=tuple(name for item in offered if (name := item.strip(" \t"))),
        key=_check_key(headers.get("sec-websocket-key")),
        version=13,
        user_agent=headers.get("user-agent"),
        forwarded={name: headers[name] for name in _FORWARDED if name in headers} or None,
    )


def accept_response(request: UpgradeRequest, subprotocol: str | None = None) -> bytes:
    """The answer that opens the WebSocket.

    Args:
        request: what is being answered.
        subprotocol: the one chosen of those offered, if any.

    Raises:
        ValueError: the subprotocol was not offered, for which clients fail the connection.
    """
    # SHA-1 proves that the server understood the request (RFC 6455 section 1.3); it protects nothing.
    digest = hashlib.sha1(request.key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode('ascii')}",
    ]
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise ValueError(f"The subprotocol {subprotocol!r} was not offered")
        lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def reject_response(status: int, body: str, headers: Mapping[str, str] | None = None) -> bytes:
    """An answer that refuses, after which the connection is to be closed.

    Args:
        status: the HTTP status.
        body: plain text.
        headers: further headers.
    """
    content = body.encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "Content-Type: text/plain; charset=utf-8",
        f"Content-Length: {len(content)}",
        "Connection: close",
        *[f"{name}: {value}" for name, value in (headers or {}).items()],
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def _parse_headers(lines: list[str]) -> dict[str, str]:
    """The headers by lower-case name; repeated ones joined by commas (RFC 9110 section 5.3)."""
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or "\n" in line or "\r" in line or "\0" in line:
            raise HandshakeError(400, "A header is malformed")
        name, value = name.lower(), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _SINGLE:
            raise HandshakeError(400, f"The header {name} is repeated")
        else:
            headers[name] += f", {value}"
    return headers


def _required_host(headers: Mapping[str, str]) -> str:
    """RFC 6455 section 4.2.1, RFC 9112 section 3.2."""
    if "host" not in headers:
        raise HandshakeError(400, "The request has no Host")
    return headers["host"]


def _tokens(value: str | None) -> list[str]:
    return [token.strip(" \t").lower() for token in value.split(",")] if value else []


def _check_key(key: str | None) -> str:
    try:
        if key and len(base64.b64decode(key, validate=True)) == 16:
            return key
    except (binascii.Error, ValueError):
        pass
    raise HandshakeError(400, "Sec-WebSocket-Key is not the base64 of 16 bytes")


def _parse_target(target: str) -> tuple[str, str]:
    """Path and raw query of a request target in origin form or absolute form (RFC 9112 section 3.2)."""
    if not target.startswith("/"):
        scheme, found, rest = target.partition("://")
        if not found or scheme.lower() not in ("http", "https", "ws", "wss"):
            raise HandshakeError(400, "The request target is malformed")
        slash = rest.find("/")
        target = rest[slash:] if slash >= 0 else "/"
    raw_path, _, query = target.partition("?")
    try:
        return unquote(raw_path, errors="strict"), query
    except UnicodeDecodeError:
        raise HandshakeError(400, "The path is not valid UTF-8") from None
