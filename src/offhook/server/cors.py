"""Cross-origin requests (ChatKitty protocol notes, section 1.3; Fetch standard, CORS protocol).

A policy belongs to a group of routes: *public* ones are open to pages of every origin and never credentialed,
*credentialed* ones answer to allowed origins by name, since browsers reject the wildcard there. Errors carry
the headers too, else a page could not read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route

from offhook.server.asgi import ErrorResponses
from offhook.server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

ALLOWED_HEADERS = "Grant, Content-Type, Accept"
EXPOSED_HEADERS = "Retry-After, Content-Range"
MAX_AGE = 86_400
"""Seconds for which a browser may remember a preflight."""

Headers = list[tuple[bytes, bytes]]


def origin_allowed(origin: str | None, allowed: Sequence[str]) -> bool:
    """Whether a page of this origin may connect.

    Args:
        origin: the Origin header; None if there is none, as from clients that are no browsers.
        allowed: origins such as ``https://app.example.com``, ``https://*.example.com`` for every host
            below, or ``*``.
    """
    if origin is None or "*" in allowed:
        return True
    origin = origin.casefold()
    for pattern in allowed:
        scheme, star, domain = pattern.casefold().partition("://*.")
        if star:
            start, end = f"{scheme}://", f".{domain}"
            host = origin[len(start) : -len(end)]
            if origin.startswith(start) and origin.endswith(end) and host and not set(host) & set("/@:"):
                return True
        elif origin == scheme:
            return True
    return False


def public(metrics: Metrics, *routes: Route) -> list[BaseRoute]:
    """The routes, open to pages of every origin, without credentials."""
    return [_Cors(route, metrics, None) for route in routes]


def credentialed(metrics: Metrics, allowed: Sequence[str], *routes: Route) -> list[BaseRoute]:
    """The routes, open to pages of the allowed origins (see ``origin_allowed``), with credentials."""
    return [_Cors(route, metrics, tuple(allowed)) for route in routes]


class _Cors(BaseRoute):
    """A route whose responses tell who may read them, and which answers preflights."""

    def __init__(self, route: Route, metrics: Metrics, allowed: tuple[str, ...] | None) -> None:
        self._route = route
        self._allowed = allowed
        self._app = ErrorResponses(route.handle, metrics)
        methods = sorted({*(route.methods or ("GET", "POST")), "OPTIONS"})
        self._answers_options = route.methods is not None and "OPTIONS" in route.methods
        self._preflight: Headers = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", ALLOWED_HEADERS.encode()),
            (b"access-control-max-age", str(MAX_AGE).encode()),
        ]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = self._route.matches(scope)
        if match is Match.PARTIAL and scope["method"] == "OPTIONS":
            match = Match.FULL
        return match, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = self._headers(scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        if scope["method"] == "OPTIONS" and not self._answers_options:
            if len(headers) > 1:
                headers += self._preflight
            await Response(status_code=204)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _headers(self, scope: Scope) -> Headers:
        exposed = (b"access-control-expose-headers", EXPOSED_HEADERS.encode())
        if self._allowed is None:
            return [(b"access-control-allow-origin", b"*"), exposed]
        headers: Headers = [(b"vary", b"Origin")]
        origin = next((value for name, value in scope["headers"] if name == b"origin"), None)
        if isinstance(origin, bytes) and origin_allowed(origin.decode("latin-1"), self._allowed):
            headers += [
                (b"access-control-allow-origin", origin),
                (b"access-control-allow-credentials", b"true"),
                exposed,
            ]
        return headers
