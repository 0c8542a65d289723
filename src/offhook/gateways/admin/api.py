"""The admin API's door: who may come in, how paths are read, how errors are told.

Everything lies under ``/admin/v1`` and needs ``Authorization: Bearer <admin token>``. Bodies and answers are
JSON. An error is ``{"error": code, "message", "field"?, "timestamp"}`` with the code of the error tree.
Names in paths are percent-encoded; a name may hold any character, the slash included.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from offhook.domain.accounts import Application
from offhook.domain.limits import Rate, RateLimiter
from offhook.errors import InternalError, InvalidInput, OffhookError, RateLimited
from offhook.gateways.admin.applications import application_routes
from offhook.gateways.admin.sessions import session_routes
from offhook.gateways.admin.turn import turn_routes
from offhook.gateways.admin.users import user_routes
from offhook.gateways.admin.views import timestamp
from offhook.ports import Store
from offhook.server.asgi import error_response
from offhook.services.applications import ApplicationService
from offhook.services.sessions import SessionService
from offhook.services.users import UserService
from offhook.settings import Settings

PREFIX = "/admin/v1"
WRONG_TOKENS = Rate(per_second=1.0, burst=20)
"""Wrong tokens from one address before it has to wait."""

log = structlog.get_logger(__name__)


class AdminCore(Protocol):
    """What the admin API needs of the server."""

    @property
    def applications(self) -> ApplicationService: ...
    @property
    def users(self) -> UserService: ...
    @property
    def sessions(self) -> SessionService: ...
    @property
    def store(self) -> Store: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def turn_secret(self) -> str:
        """The secret that the TURN server must share."""

    def hmac_key(self, application: Application) -> str:
        """The key with which the application's back end makes its users' HMAC tokens."""

    def webhook_secret(self, application: Application) -> str:
        """The secret that signs the application's webhook calls."""


def admin_routes(core: AdminCore, token: str) -> list[BaseRoute]:
    """The admin API's routes.

    Args:
        core: the services it works on.
        token: what requests must carry.
    """
    nouns = Router(
        [*application_routes(core), *user_routes(core), *session_routes(core), *turn_routes(core)],
        redirect_slashes=False,
    )
    return [Mount(PREFIX, app=_Door(nouns, token))]


class _Door:
    """Lets requests with the token in, and turns whatever goes wrong behind it into the API's error form."""

    def __init__(self, inside: ASGIApp, token: str) -> None:
        self._inside = inside
        self._token = token.encode()
        self._wrong_tokens = RateLimiter(WRONG_TOKENS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        refused = self._refuse(request)
        if refused is not None:
            await refused(scope, receive, send)
            return
        # Names keep their slashes apart from the path's own as long as the path stays encoded. Without the
        # handlers of the application around it, every error comes up to here.
        inner = {**scope, "path": scope["raw_path"].decode("latin-1")}
        inner.pop("starlette.exception_handlers", None)
        try:
            await self._inside(inner, receive, send)
        except HTTPException as error:
            code = "method_not_allowed" if error.status_code == 405 else "not_found"
            await _error(error.status_code, code, str(error.detail), error.headers)(scope, receive, send)
        except OffhookError as error:
            await _told(error)(scope, receive, send)
        except Exception:
            log.exception("admin_request_failed", method=request.method)
            await _told(InternalError())(scope, receive, send)

    def _refuse(self, request: Request) -> Response | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode(), self._token):
            return None
        address = request.client.host if request.client else ""
        wait = self._wrong_tokens.take(address, time.monotonic())
        if wait > 0:
            return _told(RateLimited("Too many wrong admin tokens", wait))
        message = "The admin token is missing" if not token else "The admin token is wrong"
        return _error(401, "unauthenticated", message, {"WWW-Authenticate": "Bearer"})


def _told(error: OffhookError) -> Response:
    field = error.field if isinstance(error, InvalidInput) else None
    known = error_response(error)
    headers = {name: value for name, value in known.headers.items() if name == "retry-after"}
    return _error(known.status_code, error.code, error.message, headers, field)


def _error(
    status: int, code: str, message: str, headers: Mapping[str, str] | None = None, field: str | None = None
) -> Response:
    body = {"error": code, "message": message, "timestamp": timestamp(datetime.now(UTC))}
    if field is not None:
        body["field"] = field
    return JSONResponse(body, status, headers)
