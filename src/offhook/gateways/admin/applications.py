"""Applications, as operators make and change them.

A PATCH is a merge patch (RFC 7396): what is absent stays, null removes ``tokens`` or ``webhook`` or one of
their optional members.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from offhook.domain.accounts import MAX_URL, Application, SessionPolicy, TokenPolicy, WebhookPolicy
from offhook.domain.values import JsonObject
from offhook.errors import InvalidInput
from offhook.gateways.admin.fields import Fields, Query, read_body
from offhook.gateways.admin.views import application_view
from offhook.services.applications import ApplicationChanges
from offhook.services.tokens import validate_policy

if TYPE_CHECKING:
    from offhook.gateways.admin.api import AdminCore

MAX_SESSIONS = 100_000
MAX_LEAVE_GRACE = 3600.0
"""Seconds that a user may stay online after the last connection broke."""
MAX_RESUME_WINDOW = 30 * 86400.0
MIN_SOCKET_WAIT, MAX_SOCKET_WAIT = 1.0, 3600.0
"""Seconds that a new subscription may wait for its socket: less would be over before its client has the answer."""
MAX_SOCKET_GRACE = 3600.0
MAX_WEBHOOK_TIMEOUT = 60.0


def application_routes(core: AdminCore) -> list[BaseRoute]:
    """``/applications`` and what is below, but for its users."""
    handlers = _Handlers(core)
    one = "/applications/{application}"
    return [
        Route("/applications", handlers.list, methods=["GET"]),
        Route("/applications", handlers.create, methods=["POST"]),
        Route(one, handlers.show, methods=["GET"]),
        Route(one, handlers.change, methods=["PATCH"]),
        Route(one, handlers.delete, methods=["DELETE"]),
        Route(f"{one}/rotate-key", handlers.rotate_key, methods=["POST"]),
    ]


def application_named(request: Request) -> str:
    """The application's name in the request's path."""
    return unquote(request.path_params["application"])


class _Handlers:
    def __init__(self, core: AdminCore) -> None:
        self._core = core

    async def list(self, request: Request) -> Response:
        Query(request, ())
        return JSONResponse({"applications": [application_view(a) for a in await self._core.applications.list()]})

    async def create(self, request: Request) -> Response:
        fields = await read_body(request)
        name, domain, api_key = fields.required("name"), fields.text("domain"), fields.text("api_key")
        guests = fields.flag("guests")
        changes = _changes(fields, None)
        fields.finish()
        application, secret = await self._core.applications.create(
            name, domain=domain, api_key=api_key, guests=guests is not False, changes=changes
        )
        return JSONResponse({**application_view(application), **self._secrets(application, secret)}, 201)

    async def show(self, request: Request) -> Response:
        secrets = Query(request, ("secrets",)).flag("secrets")
        application = await self._core.applications.get(application_named(request))
        view = application_view(application)
        if secrets:
            view |= self._kept(application)
        return JSONResponse(view)

    async def change(self, request: Request) -> Response:
        name = application_named(request)
        fields = await read_body(request)
        changes = _changes(fields, await self._core.applications.get(name))
        fields.finish()
        return JSONResponse(application_view(await self._core.applications.change(name, changes)))

    async def rotate_key(self, request: Request) -> Response:
        (await read_body(request, optional=True)).finish()
        application, secret = await self._core.applications.rotate_key(application_named(request))
        return JSONResponse({**application_view(application), **self._secrets(application, secret)})

    async def delete(self, request: Request) -> Response:
        name = application_named(request)
        await self._core.applications.delete(name)
        return JSONResponse({"deleted": name})

    def _secrets(self, application: Application, client_secret: str) -> JsonObject:
        return {"client_secret": client_secret, **self._kept(application)}

    def _kept(self, application: Application) -> JsonObject:
        """The secrets that can be shown again."""
        return {
            "webhook_secret": self._core.webhook_secret(application),
            "hmac_key": self._core.hmac_key(application),
        }


def _changes(fields: Fields, application: Application | None) -> ApplicationChanges:
    """Reads what to change about an application, or with None about a new one."""
    without = frozenset(name for name in ("tokens", "webhook") if name in fields and fields.raw(name) is None)
    tokens, webhook, sessions = fields.child("tokens"), fields.child("webhook"), fields.child("sessions")
    return ApplicationChanges(
        guests=fields.flag("guests"),
        enabled=fields.flag("enabled"),
        sessions=None if sessions is None else _sessions(sessions, application.sessions if application else None),
        tokens=None if tokens is None else _tokens(tokens, application.tokens if application else None),
        webhook=None if webhook is None else _webhook(webhook, application.webhook if application else None),
        without=without,
    )


def _sessions(fields: Fields, now: SessionPolicy | None) -> SessionPolicy:
    now = now or SessionPolicy()
    policy = SessionPolicy(
        max_sessions=fields.integer("max_sessions", now.max_sessions, 1, MAX_SESSIONS),
        duplicates=fields.choice("duplicates", now.duplicates),
        leave_grace=fields.number("leave_grace", now.leave_grace, 0, MAX_LEAVE_GRACE),
        resume_window=fields.number("resume_window", now.resume_window, 0, MAX_RESUME_WINDOW),
        socket_wait=fields.number("socket_wait", now.socket_wait, MIN_SOCKET_WAIT, MAX_SOCKET_WAIT),
        socket_grace=fields.number("socket_grace", now.socket_grace, 0, MAX_SOCKET_GRACE),
    )
    fields.finish()
    return policy


def _tokens(fields: Fields, now: TokenPolicy | None) -> TokenPolicy:
    now = now or TokenPolicy()
    policy = TokenPolicy(
        algorithms=fields.texts("algorithms") or now.algorithms,
        secret=_merged(fields, "secret", now.secret),
        public_key=_merged(fields, "public_key", now.public_key),
        jwks=_merged(fields, "jwks", now.jwks),
        issuer=_merged(fields, "issuer", now.issuer),
        audience=_merged(fields, "audience", now.audience),
        username_claim=fields.text("username_claim") or now.username_claim,
    )
    fields.finish()
    validate_policy(policy)
    return policy


def _webhook(fields: Fields, now: WebhookPolicy | None) -> WebhookPolicy:
    url = fields.text("url") or (now.url if now else None)
    if url is None:
        raise InvalidInput("webhook.url is required", "webhook.url")
    _check_url(url)
    timeout = fields.number("timeout", now.timeout if now else WebhookPolicy(url).timeout, 0.1, MAX_WEBHOOK_TIMEOUT)
    fields.finish()
    return WebhookPolicy(url, timeout)


def _merged(fields: Fields, name: str, now: str | None) -> str | None:
    return fields.text(name) if name in fields else now


def _check_url(url: str) -> None:
    wrong = InvalidInput("webhook.url must be an http or https URL", "webhook.url")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise wrong from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or len(url) > MAX_URL:
        raise wrong
    if not url.isascii() or not url.isprintable() or " " in url or parts.fragment:
        raise wrong
