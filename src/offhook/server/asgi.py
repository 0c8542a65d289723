"""The ASGI application around the gateways' routes: errors, limits, health, metrics and the request log.

Every error leaves as ``{"error", "message", "timestamp"}`` (ChatKitty protocol notes,
section 2.6), whoever caused it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Mount, Route, Router

from offhook.errors import OffhookError, RateLimited, TooLarge, Unavailable
from offhook.server.logs import get_logger
from offhook.server.metrics import OTHER, Metrics
from offhook.server.proxies import ForwardedMiddleware, TrustedProxies, peer_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = get_logger(__name__)
_root = logging.getLogger()
"""Has the level DEBUG exactly when our own loggers have, see ``configure_logging``, and is ten times as fast to ask."""

JSON = "application/json"
CHECK_TIMEOUT = 2.0
"""Seconds that each of the readiness checks has."""

STATUSES: Mapping[str, tuple[int, str]] = {
    "invalid_input": (400, "ClientError"),
    "too_large": (413, "ClientError"),
    "access_denied": (403, "AccessDeniedError"),
    "session_limit": (403, "AccessDeniedError"),
    "not_subscribed": (403, "AccessDeniedError"),
    "user_disabled": (403, "AccessDeniedError"),
    "not_found": (404, "ResourceNotFoundError"),
    "conflict": (409, "ClientError"),
    "rate_limited": (429, "RateLimitedError"),
    "unavailable": (503, "ServiceUnavailableError"),
    "internal": (500, "InternalServerError"),
}
"""An error's code → HTTP status and name of the error."""
INTERNAL = STATUSES["internal"]

_NAMES = {
    401: "AccessDeniedError",
    403: "AccessDeniedError",
    404: "ResourceNotFoundError",
    429: "RateLimitedError",
}
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LIMIT_KEY = "offhook.body_limit"


def timestamp() -> str:
    """The time now as errors carry it: UTC, ISO 8601, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def error_body(error: str, message: str, **more: str) -> bytes:
    """The JSON body of an error."""
    return msgspec.json.encode({"error": error, "message": message, "timestamp": timestamp(), **more})


def error_response(error: Exception) -> Response:
    """The response for an error. What is neither ours nor HTTP's tells nothing of itself."""
    if isinstance(error, OffhookError):
        status, name = STATUSES.get(error.code, INTERNAL)
        more, headers = {}, {}
        if isinstance(error, RateLimited | Unavailable):
            seconds = max(1, math.ceil(error.retry_after))
            headers["retry-after"] = str(seconds)
            if isinstance(error, RateLimited):
                more["coolOffDuration"] = f"PT{seconds}S"
        return Response(error_body(name, error.message, **more), status, headers, JSON)
    if isinstance(error, HTTPException):
        status = error.status_code
        name = _NAMES.get(status, "ClientError" if status < 500 else INTERNAL[1])
        return Response(error_body(name, error.detail), status, error.headers, JSON)
    return Response(error_body(INTERNAL[1], "Something went wrong on the server"), INTERNAL[0], None, JSON)


class ErrorResponses:
    """ASGI middleware: turns whatever is raised before the response began into a response."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = False

        async def watch(message: Message) -> None:
            nonlocal began
            began = True
            await send(message)

        try:
            await self.app(scope, receive, watch)
        except Exception as error:
            if began:
                raise
            await self._respond(error, scope, receive, send)

    async def _respond(self, error: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(error, OffhookError):
            self._metrics.errors.add(error.code)
        if not isinstance(error, OffhookError | HTTPException):
            self._metrics.errors.add("internal")
            logger.error("request failed", path=scope["path"], method=scope["method"], exc_info=error)
        await error_response(error)(scope, receive, send)


class BodyLimit:
    """ASGI middleware: TooLarge once a request's body is, or says that it is, larger than allowed.

    Nothing is checked before the body is read, so that a route can allow more, see ``body_limit``. It is raised out
    of the application's own ``receive``, so that the application can answer in its own form.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        scope[_LIMIT_KEY] = limit = [self._limit]
        read = -1

        async def receive_bounded() -> Message:
            nonlocal read
            if read < 0:
                read = 0
                _expect(int(header(scope, b"content-length") or 0), limit[0])
            message = await receive()
            read += len(message.get("body", b""))
            _expect(read, limit[0])
            return message

        await self.app(scope, receive_bounded, send)


class RequestLog:
    """ASGI middleware: one log entry and one count for each request. Query strings are not logged."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self.app(scope, receive, watch)
        except Exception:
            status = status or INTERNAL[0]  # as the HTTP layer will answer
            raise
        finally:
            seconds = time.perf_counter() - began
            method = scope["method"] if scope["method"] in _METHODS else OTHER
            self._metrics.http_requests.add(method, str(status))
            self._metrics.http_time.observe(seconds)
            if _root.isEnabledFor(logging.DEBUG):
                logger.debug(
                    "request",
                    method=method,
                    path=scope["path"],
                    status=status,
                    seconds=round(seconds, 4),
                    client=peer_of(scope).address,
                )


class _Dispatch:
    """Hands requests below the mounts' prefixes to their applications, and all else to the router's."""

    def __init__(self, base_path: str, mounts: Sequence[tuple[str, ASGIApp]], otherwise: ASGIApp) -> None:
        self._base_path = base_path
        self._mounts = tuple((base_path + prefix, app) for prefix, app in mounts)
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            for prefix, app in self._mounts:
                if path.startswith(prefix):
                    scope["root_path"] = self._base_path
                    await app(scope, receive, send)
                    return
        await self._otherwise(scope, receive, send)


class _Wrapped(BaseRoute):
    """A route with something done before or around it."""

    def __init__(self, route: BaseRoute) -> None:
        self.route = route

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return self.route.matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.route.handle(scope, receive, send)


class _Limited(_Wrapped):
    def __init__(self, route: BaseRoute, limit: int) -> None:
        super().__init__(route)
        self._limit = limit

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[_LIMIT_KEY][0] = self._limit
        await self.route.handle(scope, receive, send)


def body_limit(limit: int, *routes: BaseRoute) -> list[BaseRoute]:
    """The routes, with a limit of their own to the bytes of a request's body."""
    return [_Limited(route, limit) for route in routes]


@dataclass(slots=True)
class Health:
    """What ``/readyz`` asks.

    Attributes:
        checks: by name; a check raises if what it looks at is not well.
        started: whether everything is set up.
        draining: whether clients are being sent away.
    """

    checks: Mapping[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    started: bool = False
    draining: bool = False

    async def report(self) -> tuple[bool, dict[str, str]]:
        """Runs all checks at once. Returns whether all is well, and a word on each."""
        words = await asyncio.gather(*(self._word(name, check) for name, check in self.checks.items()))
        report = dict(zip(self.checks, words, strict=True))
        report["started"] = "ok" if self.started else "not yet"
        report["draining"] = "draining" if self.draining else "ok"
        return all(word == "ok" for word in report.values()), report

    async def _word(self, name: str, check: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                await check()
        except TimeoutError:
            return "timed out"
        except Exception:
            logger.exception("readiness check failed", check=name)
            return "failed"
        return "ok"


def build_app(
    routes: Sequence[BaseRoute],
    *,
    health: Health,
    metrics: Metrics,
    proxies: TrustedProxies,
    max_body: int,
    base_path: str = "",
    serve_metrics: bool = True,
    mounts: Sequence[tuple[str, ASGIApp]] = (),
) -> ASGIApp:
    """Makes the application.

    Args:
        routes: the gateways' routes, relative to ``base_path``.
        health: what ``/readyz`` tells.
        metrics: where requests and errors are counted, and what ``/metrics`` shows.
        proxies: whom to believe who the client is.
        max_body: bytes of a request's body, where a route does not say otherwise.
        base_path: path under which everything is served, such as ``/offhook``; empty for the root.
        serve_metrics: whether there is ``/metrics``.
        mounts: applications that own everything below a prefix such as ``/rest/``, relative to ``base_path``. They
            get a request past router and error handling: whatever is wrong with it, even an unknown path or a large
            body (``TooLarge`` out of ``receive``), is theirs to answer. The scope's ``path`` is the whole one,
            its ``root_path`` is ``base_path``.
    """

    async def healthz(request: Request) -> Response:
        return Response(b'{"status":"alive"}', 200, _NO_STORE, JSON)

    async def readyz(request: Request) -> Response:
        ready, checks = await health.report()
        body = msgspec.json.encode({"status": "ready" if ready else "not ready", "checks": checks})
        return Response(body, 200 if ready else 503, _NO_STORE, JSON)

    async def show_metrics(request: Request) -> Response:
        body, content_type = metrics.render()
        return Response(body, 200, {"content-type": content_type, **_NO_STORE})

    own: list[BaseRoute] = [Route("/healthz", healthz), Route("/readyz", readyz)]
    if serve_metrics:
        own.append(Route("/metrics", show_metrics))
    every = [*own, *routes]
    app = Starlette(
        routes=[Mount(base_path, app=Router(every, redirect_slashes=False))] if base_path else every,
        middleware=[Middleware(ErrorResponses, metrics), Middleware(BodyLimit, max_body)],
        exception_handlers={HTTPException: _handle, OffhookError: _Counting(metrics)},
    )
    app.router.redirect_slashes = False
    bounded = [(prefix, BodyLimit(mounted, max_body)) for prefix, mounted in mounts]
    return ForwardedMiddleware(RequestLog(_Dispatch(base_path, bounded, app), metrics), proxies)


_NO_STORE = {"cache-control": "no-store"}


async def _handle(request: Request, error: Exception) -> Response:
    return error_response(error)


class _Counting:
    """Starlette's handler of our errors."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def __call__(self, request: Request, error: Exception) -> Response:
        if isinstance(error, OffhookError):
            self._metrics.errors.add(error.code)
        return error_response(error)


def header(scope: Scope, wanted: bytes) -> bytes | None:
    """The first header of this name, which is in lower case."""
    for name, value in scope["headers"]:
        if name == wanted and isinstance(value, bytes):
            return value
    return None


def _expect(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(f"The body is larger than {limit} bytes", limit)
