"""Cross-origin requests (ChatKitty protocol notes, section 1.3; Fetch standard, CORS protocol).

A policy belongs to a group of routes: *public* ones are open to pages of every origin and never credentialed,
*credentialed* ones answer to allowed origins by name, since browsers reject the wildcard there. Errors carry
the headers too, else a page could not read them. An application without routes asks a :class:`Cors` itself.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Match, Route

from offhook.server.asgi import ErrorResponses, header
from offhook.server.metrics import Metrics

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

ALLOWED_HEADERS = ("Grant", "Content-Type", "Accept")
EXPOSED_HEADERS = ("Retry-After", "Content-Range")
MAX_AGE = 86_400
"""Seconds for which a browser may remember a preflight."""
MAX_ORIGIN = 512
"""Characters of an origin; a longer one is none that is allowed. Host names have 253 at most."""
REMEMBERED = 1024
"""Origins whose headers each policy remembers."""

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


class Cors:
    """What pages of other origins may do. Cheap to ask: answers are made once for each origin.

    Args:
        allowed: origins that may read answers and send credentials, see ``origin_allowed``; None lets pages of all
            origins read them, but send no credentials.
        methods: what a page may use.
        headers: names of headers that a page may send.
        exposed: names of headers that a page may read.
        max_age: seconds for which a browser may remember a preflight.
    """

    def __init__(
        self,
        allowed: Sequence[str] | None,
        methods: Sequence[str],
        headers: Sequence[str] = ALLOWED_HEADERS,
        exposed: Sequence[str] = EXPOSED_HEADERS,
        max_age: int = MAX_AGE,
    ) -> None:
        self._allowed = None if allowed is None else tuple(allowed)
        self._exposed = (b"access-control-expose-headers", ", ".join(exposed).encode())
        self._preflight: Headers = [
            (b"access-control-allow-methods", ", ".join(methods).encode()),
            (b"access-control-allow-headers", ", ".join(headers).encode()),
            (b"access-control-max-age", str(max_age).encode()),
        ]
        self._others: Headers = [(b"vary", b"Origin")]
        self._everyone: Headers = [(b"access-control-allow-origin", b"*"), self._exposed]
        self._named = functools.lru_cache(maxsize=REMEMBERED)(self._look_up)

    def headers_for(self, origin: bytes | None) -> Headers:
        """The headers that every answer needs, errors included; a new list.

        Args:
            origin: the Origin header; None if there is none.
        """
        return [*self._found(origin)]

    def preflight(self, origin: bytes | None) -> Headers:
        """The headers of the answer (204, no body) to an OPTIONS request; a new list."""
        found = self._found(origin)
        return [*found] if found is self._others else [*found, *self._preflight]

    def _found(self, origin: bytes | None) -> Headers:
        if self._allowed is None:
            return self._everyone
        if origin is None or len(origin) > MAX_ORIGIN:
            return self._others
        return self._named(origin)

    def _look_up(self, origin: bytes) -> Headers:
        if not origin_allowed(origin.decode("latin-1"), self._allowed or ()):
            return self._others
        return [
            *self._others,
            (b"access-control-allow-origin", origin),
            (b"access-control-allow-credentials", b"true"),
            self._exposed,
        ]


def public(metrics: Metrics, *routes: Route) -> list[BaseRoute]:
    """The routes, open to pages of every origin, without credentials."""
    return [_Cors(route, metrics, None) for route in routes]


def credentialed(metrics: Metrics, allowed: Sequence[str], *routes: Route) -> list[BaseRoute]:
    """The routes, open to pages of the allowed origins (see ``origin_allowed``), with credentials."""
    return [_Cors(route, metrics, allowed) for route in routes]


class _Cors(BaseRoute):
    """A route whose responses tell who may read them, and which answers preflights."""

    def __init__(self, route: Route, metrics: Metrics, allowed: Sequence[str] | None) -> None:
        self._route = route
        self._app = ErrorResponses(route.handle, metrics)
        self._cors = Cors(allowed, sorted({*(route.methods or ("GET", "POST")), "OPTIONS"}))
        self._answers_options = route.methods is not None and "OPTIONS" in route.methods

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = self._route.matches(scope)
        if match is Match.PARTIAL and scope["method"] == "OPTIONS":
            match = Match.FULL
        return match, child

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin")
        if scope["method"] == "OPTIONS" and not self._answers_options:
            headers = self._cors.preflight(origin)
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body"})
            return
        headers = self._cors.headers_for(origin)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *headers]
            await send(message)

        await self._app(scope, receive, send_with_headers)
