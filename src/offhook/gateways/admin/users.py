"""Users of an application, as operators make and change them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from offhook.domain.accounts import Application, User, UserChanges, UserFilter
from offhook.domain.values import JsonObject
from offhook.errors import InvalidInput
from offhook.gateways.admin.applications import application_named
from offhook.gateways.admin.fields import Fields, Query, read_body
from offhook.gateways.admin.views import page_of, user_view

if TYPE_CHECKING:
    from offhook.gateways.admin.api import AdminCore

FIELDS = {"displayName": "display_name", "displayPictureUrl": "picture", "presence.status": "status"}
"""What clients call a field → what operators call it."""


def user_routes(core: AdminCore) -> list[BaseRoute]:
    """``/applications/{application}/users`` and what is below."""
    handlers = _Handlers(core)
    every = "/applications/{application}/users"
    one = f"{every}/{{user}}"
    return [
        Route(every, handlers.list, methods=["GET"]),
        Route(every, handlers.create, methods=["POST"]),
        Route(one, handlers.show, methods=["GET"]),
        Route(one, handlers.change, methods=["PATCH"]),
        Route(one, handlers.delete, methods=["DELETE"]),
        Route(f"{one}/password", handlers.set_password, methods=["PUT"]),
    ]


class _Handlers:
    def __init__(self, core: AdminCore) -> None:
        self._core = core

    async def list(self, request: Request) -> Response:
        query = Query(request, ("name", "display_name", "online", "page", "size"))
        where = UserFilter(
            name=query.text("name"), display_name=query.text("display_name"), online=query.flag("online")
        )
        page = await self._core.users.list(await self._application(request), where, query.page())
        return JSONResponse(page_of("users", page, user_view))

    async def create(self, request: Request) -> Response:
        fields = await read_body(request)
        name, password, display_name = (
            fields.required("name"),
            fields.text("password"),
            fields.text("display_name"),
        )
        properties, guest = _properties(fields), fields.flag("guest") is True
        fields.finish()
        user = await self._core.users.create(
            await self._application(request),
            name,
            display_name=display_name,
            password=password,
            properties=properties,
            guest=guest,
        )
        return JSONResponse(user_view(user), 201)

    async def show(self, request: Request) -> Response:
        _, user = await self._user(request)
        return JSONResponse(user_view(user))

    async def change(self, request: Request) -> Response:
        fields = await read_body(request)
        changes = UserChanges(
            display_name=fields.text("display_name"),
            picture=fields.text("picture"),
            status=fields.text("status"),
            properties=_properties(fields),
            guest=fields.flag("guest"),
        )
        enabled = fields.flag("enabled")
        fields.finish()
        application, user = await self._user(request)
        if not changes.empty:
            user = await self._change(application, user, changes)
        if enabled is not None:
            user = await self._core.users.set_enabled(application, user.name, enabled)
        return JSONResponse(user_view(user))

    async def set_password(self, request: Request) -> Response:
        fields = await read_body(request)
        # Removing a password must be said in so many words: {"password": null}.
        password = fields.text("password") if "password" in fields else fields.required("password")
        fields.finish()
        application, user = await self._user(request)
        return JSONResponse(user_view(await self._core.users.set_password(application, user.name, password)))

    async def delete(self, request: Request) -> Response:
        application, user = await self._user(request)
        await self._core.users.delete(application, user.id)
        return JSONResponse({"deleted": user.name})

    async def _change(self, application: Application, user: User, changes: UserChanges) -> User:
        try:
            return await self._core.users.change(application, user.id, changes)
        except InvalidInput as error:
            # The service names fields as clients write them.
            field = FIELDS.get(error.field or "", error.field)
            raise InvalidInput(error.message.replace(str(error.field), str(field)), field) from None

    async def _application(self, request: Request) -> Application:
        return await self._core.applications.get(application_named(request))

    async def _user(self, request: Request) -> tuple[Application, User]:
        application = await self._application(request)
        return application, await self._core.users.by_name(application, unquote(request.path_params["user"]))


def _properties(fields: Fields) -> JsonObject | None:
    """The object as it came; its size and depth are the service's to check."""
    value = fields.raw("properties")
    if value is not None and not isinstance(value, dict):
        raise fields.wrong("properties", "an object")
    return cast("JsonObject | None", value)
