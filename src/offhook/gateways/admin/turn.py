"""What the TURN server has to be told, as operators see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from offhook.gateways.admin.fields import Query

if TYPE_CHECKING:
    from offhook.gateways.admin.api import AdminCore


def turn_routes(core: AdminCore) -> list[BaseRoute]:
    """``/turn``."""

    async def show(request: Request) -> Response:
        Query(request, ())
        settings = core.settings
        return JSONResponse(
            {
                "secret": core.turn_secret,
                "derived": settings.turn_secret is None,
                "lifetime": settings.turn_lifetime,
            }
        )

    return [Route("/turn", show, methods=["GET"])]
