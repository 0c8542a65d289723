"""The REST side of Kandy: an ASGI application that answers whatever comes below its prefixes.

No answer leaves without a JSON body and without the headers that let a page of another origin read it: a client that
gets anything else hangs (Kandy protocol notes, 0, 1.4 and 10.2).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from offhook.errors import Unavailable
from offhook.gateways.kandy import anonymous, errors, messages, presence, profile, subscription, uc, unoffered
from offhook.gateways.kandy.admission import Admission
from offhook.gateways.kandy.errors import Answer
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.request import ClientGone, Request, headers_of
from offhook.protocols.kandy.paths import Address, Resource, methods, parse_path
from offhook.server.cors import Cors

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

PREFIXES = ("/rest/", "/v2.0/")
"""Where the application is to be mounted."""
RESTART_SECONDS = 5.0
"""After how long to come back to a server that is going away."""

_HANDLERS: Mapping[tuple[Resource, str], Callable[[Gateway, Request], Awaitable[bytes]]] = {
    (Resource.SUBSCRIPTION, "POST"): subscription.create,
    (Resource.SUBSCRIPTION, "PUT"): subscription.renew,
    (Resource.SUBSCRIPTION, "DELETE"): subscription.end,
    (Resource.ANONYMOUS_SUBSCRIPTION, "POST"): anonymous.create,
    (Resource.ANONYMOUS_SUBSCRIPTION, "PUT"): anonymous.renew,
    (Resource.ANONYMOUS_SUBSCRIPTION, "DELETE"): anonymous.end,
    (Resource.PRESENCE, "POST"): presence.choose,
    (Resource.PRESENCE_WATCHER, "POST"): presence.watch,
    (Resource.INSTANT_MESSAGE, "POST"): messages.send,
    (Resource.USER_PROFILE, "GET"): profile.show,
    (Resource.LOCALIZATION, "GET"): profile.localization,
    (Resource.UC_MAKE_TOKEN, "GET"): uc.make_token,
    (Resource.UC_REFRESH_TOKEN, "GET"): uc.refresh_token,
    (Resource.UC_REVOKE_TOKEN, "GET"): uc.revoke_token,
    (Resource.UC_SEND, "GET"): uc.send,
    (Resource.UC_THREADS, "GET"): uc.threads,
    (Resource.UC_THREAD, "GET"): uc.thread,
    (Resource.UC_DELETE, "GET"): uc.delete,
}
"""What there is. Everything else that has a path is not offered."""

_JSON = (b"content-type", b"application/json")
_NO_STORE = (b"cache-control", b"no-store")

log = structlog.get_logger(__name__)


def cors(allowed: Sequence[str]) -> Cors:
    """What pages of other origins may do here (1.4).

    Args:
        allowed: their origins, see ``origin_allowed``.
    """
    return Cors(
        allowed,
        methods=("GET", "POST", "PUT", "DELETE", "OPTIONS"),
        headers=(
            "authorization",
            "content-type",
            "accept",
            "x-cpaas-agent",
            "x-token",
            "x-session",
            "x-requested-with",
        ),
        exposed=("Retry-After",),
        max_age=600,
    )


class KandyRest:
    """The application.

    Args:
        gateway: the services.
        cors: see the function of this name.
        base_path: the path under which everything is served; empty for the root.
    """

    def __init__(self, gateway: Gateway, cors: Cors, base_path: str = "") -> None:
        self._gateway = gateway
        self._cors = cors
        self._base_path = base_path
        self._admission = Admission(gateway.limits.requests, gateway.limits.guesses)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI's."""
        sent = headers_of(scope)
        origin = sent.get(b"origin")
        if scope["method"] == "OPTIONS":
            await send({"type": "http.response.start", "status": 204, "headers": self._cors.preflight(origin)})
            await send({"type": "http.response.body"})
            return
        try:
            answer = await self._answer(scope, receive, sent)
        except ClientGone:
            return
        body = answer.body
        headers = [
            _JSON,
            _NO_STORE,
            (b"content-length", b"%d" % len(body)),
            *answer.headers,
            *self._cors.headers_for(origin),
        ]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive, headers: Mapping[bytes, bytes]) -> Answer:
        path = self._path(scope)
        address = parse_path(path)
        if address is None:
            self._gateway.metrics.errors.add("no_such_path")
            return errors.unknown_path(path)
        if address.resource is Resource.ANONYMOUS_SUBSCRIPTION and address.names:
            # What ends the path is as good as a password. The request log shows the path as it is left here.
            scope["path"] = scope["path"].rstrip("/").rpartition("/")[0] + "/…"
        method: str = scope["method"]
        if method not in (known := methods(address)):
            self._gateway.metrics.errors.add("no_such_method")
            return errors.unknown_method(address.resource, method, known)
        try:
            handler = _HANDLERS.get((address.resource, method), unoffered.refuse)
            request = Request(scope, receive, headers, address, path, self._gateway.limits.max_body, self._admission)
            self._admit(request)
            return Answer(200, await handler(self._gateway, request))
        except ClientGone:
            raise
        except Exception as error:
            return self._failed(error, address, method)

    def _path(self, scope: Scope) -> str:
        """The path below the base path, as it came; empty if it is no text."""
        try:
            path: str = scope["raw_path"].decode()
        except UnicodeDecodeError:
            return ""
        base_path = self._base_path
        if not base_path:
            return path
        return path[len(base_path) :] if path.startswith(f"{base_path}/") else ""

    def _admit(self, request: Request) -> None:
        """Refuses who sends too much, and while the server goes away, what can wait.

        Raises:
            RateLimited: too many requests with these credentials for this user from this address, or too many from it.
            Unavailable: the server is going away. Whoever wants to go first, may.
        """
        if request.method != "DELETE" and self._gateway.draining():
            raise Unavailable("The server is restarting", RESTART_SECONDS)
        self._admission.enter(request.client_address, request.shown)

    def _failed(self, error: Exception, address: Address, method: str) -> Answer:
        failure = errors.failure_of(error)
        self._gateway.metrics.errors.add(failure.name)
        if failure.name == "internal":
            log.error("request_failed", resource=address.resource.value, method=method, exc_info=error)
        return errors.render(failure, address.resource, method)
