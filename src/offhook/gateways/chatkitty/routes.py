"""The HTTP routes that ChatKitty clients use beside their connection (ChatKitty protocol notes, 3.6 and 4.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from offhook.errors import AccessDenied, InvalidInput, NotFound, TooLarge
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.resources import current_user
from offhook.services.pictures import PictureService, generated
from offhook.services.signing import Grant

BaseUrl = Callable[[Request], str]

_FOR_EVER = "public, max-age=31536000, immutable"
# A picture is never a page: not even one that an attacker shaped like one.
_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
}


class Routes:
    """Streams and files.

    Args:
        gateway: the services.
        pictures: the service behind them.
        base_url: tells the URL under which a request's client reaches this server.
    """

    def __init__(self, gateway: Gateway, pictures: PictureService, base_url: BaseUrl) -> None:
        self._gateway = gateway
        self._pictures = pictures
        self._base_url = base_url

    def streams(self) -> Sequence[Route]:
        """Where files are uploaded."""
        return [Route("/v1/streams/users/{user_id:int}/display-picture", self.upload, methods=["POST"])]

    def files(self) -> Sequence[Route]:
        """Where they are fetched."""
        return [
            Route("/v1/files/{name}", self.file, methods=["GET"]),
            Route("/v1/picture/{name:path}", self.picture, methods=["GET"]),
        ]

    async def upload(self, request: Request) -> Response:
        """Takes a user's new picture as the part ``file`` of a form, authorised by the header ``Grant``."""
        grant = Grant.decode(request.headers.get("grant", ""), self._gateway.signer, self._gateway.clock.now())
        user_id = int(request.path_params["user_id"])
        if grant is None or grant.kind != "w" or grant.user_id != user_id:
            raise AccessDenied("The grant does not allow this upload")
        application = await self._gateway.applications.by_id(grant.application_id)
        user = await self._pictures.upload(application, user_id, await self._file_of(request))
        body = msgspec.json.encode(current_user(user, self._base_url(request)))
        return Response(body, media_type="application/json")

    async def _file_of(self, request: Request) -> bytes:
        limit = self._pictures.max_bytes
        try:
            async with request.form(max_files=1, max_fields=10, max_part_size=64 * 1024) as form:
                file = form.get("file")
                if not isinstance(file, UploadFile):
                    raise InvalidInput("The form has no file", "file")
                data = await file.read(limit + 1)
        except MultiPartException as error:
            raise InvalidInput(f"The form cannot be read: {error.message}", "file") from None
        if len(data) > limit:
            raise TooLarge("The picture is too large", limit)
        return data

    async def file(self, request: Request) -> Response:
        """Serves an uploaded picture. Pictures are public: pages show them by URL alone."""
        found = await self._pictures.stored(request.path_params["name"])
        if found is None:
            raise NotFound("There is no such file")
        data, content_type = found
        return Response(data, media_type=content_type, headers={"Cache-Control": _FOR_EVER, **_SAFE})

    async def picture(self, request: Request) -> Response:
        """Serves the picture made of a display name."""
        svg = generated(request.path_params["name"][:255])
        return Response(svg, media_type="image/svg+xml", headers={"Cache-Control": "public, max-age=86400", **_SAFE})
