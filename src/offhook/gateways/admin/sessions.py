"""Sessions, as operators see and end them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from offhook.codes import EndReason
from offhook.domain.accounts import check_text
from offhook.domain.sessions import Session
from offhook.domain.subscriptions import Subscription
from offhook.domain.values import JsonObject
from offhook.errors import InvalidInput, NotFound
from offhook.gateways.admin.fields import Fields, Query, read_body
from offhook.gateways.admin.views import page_of, session_view, story_view
from offhook.ports import SessionFilter

if TYPE_CHECKING:
    from offhook.gateways.admin.api import AdminCore

MAX_TEXT = 100
"""Characters of an operator's words to a client."""
STATES = {"live": True, "ended": False, "all": None}
"""What ``state`` may be → SessionFilter.live."""


def session_routes(core: AdminCore) -> list[BaseRoute]:
    """``/sessions`` and what is below."""
    handlers = _Handlers(core)
    return [
        Route("/sessions", handlers.list, methods=["GET"]),
        Route("/sessions/end", handlers.end_all, methods=["POST"]),
        Route("/sessions/{session}", handlers.show, methods=["GET"]),
        Route("/sessions/{session}/end", handlers.end, methods=["POST"]),
    ]


class _Handlers:
    def __init__(self, core: AdminCore) -> None:
        self._core = core

    async def list(self, request: Request) -> Response:
        query = Query(request, ("application", "user", "state", "page", "size"))
        state = query.text("state") or "all"
        if state not in STATES:
            raise InvalidInput(f"state must be one of {', '.join(STATES)}", "state")
        where = await self._filter(query.text("application"), query.text("user"), STATES[state])
        page = await self._core.sessions.list(where, query.page())
        names = await self._names()
        subscriptions = await self._subscriptions(page.items)
        return JSONResponse(
            page_of(
                "sessions",
                page,
                lambda s: session_view(s, names.get(s.application_id, ""), subscriptions.get(s.id)),
            )
        )

    async def show(self, request: Request) -> Response:
        return JSONResponse(await self._story(_session_id(request)))

    async def end(self, request: Request) -> Response:
        fields = await read_body(request, optional=True)
        text = _text(fields)
        fields.finish()
        session_id = _session_id(request)
        await self._core.sessions.end(session_id, EndReason.OPERATOR, text)
        return JSONResponse(await self._story(session_id))

    async def end_all(self, request: Request) -> Response:
        fields = await read_body(request)
        application, user, text = fields.required("application"), fields.text("user"), _text(fields)
        fields.finish()
        where = await self._filter(application, user, True)
        if user is not None:
            await self._core.users.by_name(await self._core.applications.get(application), user)
        return JSONResponse({"ended": await self._core.sessions.end_all(where, EndReason.OPERATOR, text)})

    async def _filter(self, application: str | None, user: str | None, live: bool | None) -> SessionFilter:
        application_id = None if application is None else (await self._core.applications.get(application)).id
        return SessionFilter(application_id=application_id, user_name=user, live=live)

    async def _story(self, session_id: int) -> JsonObject:
        story = await self._core.sessions.show(session_id)
        names = await self._names()
        subscriptions = await self._subscriptions([story.session])
        return story_view(story, names.get(story.session.application_id, ""), subscriptions.get(session_id))

    async def _subscriptions(self, sessions: Sequence[Session]) -> dict[int, Subscription]:
        """What those of the sessions that are of subscriptions have beyond that, by their ids."""
        ids = [session.id for session in sessions if session.expires_at is not None]
        if not ids:
            return {}
        found = await self._core.store.query(lambda tx: [tx.subscriptions.get(session_id) for session_id in ids])
        return {subscription.session_id: subscription for subscription in found if subscription is not None}

    async def _names(self) -> dict[int, str]:
        return {application.id: application.name for application in await self._core.applications.list()}


def _session_id(request: Request) -> int:
    text: str = request.path_params["session"]
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise NotFound(f"There is no session {text[:50]}")
    return int(text)


def _text(fields: Fields) -> str:
    text = fields.text("text")
    return "" if text is None else check_text(text, "text", MAX_TEXT)
