"""Users' pictures: uploaded ones, and those made of a name for everybody else."""

from __future__ import annotations

import colorsys
import hashlib
import secrets
import time
from html import escape

from offhook.domain.accounts import Application, User
from offhook.domain.limits import Rate, RateLimiter
from offhook.errors import AccessDenied, InvalidInput, OffhookError, RateLimited, TooLarge
from offhook.ports import Blobs
from offhook.services.users import UserService

UPLOADS = Rate(per_second=0.1, burst=10)
"""How often a user may upload a picture."""

_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)
CONTENT_TYPES = {"png": "image/png", "jpg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}


class PictureService:
    """Use cases around pictures.

    Args:
        max_bytes: of an uploaded picture.
    """

    def __init__(self, blobs: Blobs, users: UserService, max_bytes: int) -> None:
        self._blobs = blobs
        self._users = users
        self._uploads = RateLimiter(UPLOADS)
        self.max_bytes = max_bytes

    async def upload(self, application: Application, user_id: int, data: bytes) -> User:
        """Stores a picture and makes it the user's.

        What it is, is told by its content alone: browsers must never be made to run what somebody uploaded.

        Raises:
            InvalidInput: it is no PNG, JPEG, GIF or WebP.
            TooLarge: it has too many bytes.
            AccessDenied: the user is disabled.
            NotFound: there is no such user.
            RateLimited: too many pictures of this user.
        """
        if len(data) > self.max_bytes:
            raise TooLarge("The picture is too large", self.max_bytes)
        kind = picture_kind(data)
        if kind is None:
            raise InvalidInput("The file must be a PNG, JPEG, GIF or WebP picture", "file")
        user = await self._users.get(application, user_id)
        if not user.enabled:
            raise AccessDenied("The user is disabled")
        wait = self._uploads.take(user_id, time.monotonic())
        if wait > 0:
            raise RateLimited("Too many pictures", wait)
        name = f"{secrets.token_hex(32)}.{kind}"
        await self._blobs.put(name, data)
        try:
            return await self._users.set_hosted_picture(application, user_id, name)
        except OffhookError:
            await self._blobs.delete(name)
            raise

    async def stored(self, name: str) -> tuple[bytes, str] | None:
        """An uploaded picture and its content type, or None."""
        data = await self._blobs.get(name)
        return None if data is None else (data, CONTENT_TYPES[name.rpartition(".")[2]])


def picture_kind(data: bytes) -> str | None:
    """What kind of picture it is by its first bytes, or None."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def generated(name: str) -> str:
    """An SVG picture of a name: its initials on a colour of its own, the same every time."""
    words = [word for word in name.replace("@", " ").replace(".", " ").split() if word[0].isalnum()]
    initials = "".join(word[0] for word in (words[:1] + words[1:][-1:])).upper() or "?"
    hue = hashlib.sha256(name.encode("utf-8", "replace")).digest()[0] / 256
    red, green, blue = (round(part * 255) for part in colorsys.hls_to_rgb(hue, 0.42, 0.5))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128" width="128" height="128">'
        f'<rect width="128" height="128" fill="#{red:02x}{green:02x}{blue:02x}"/>'
        '<text x="64" y="64" dy=".35em" text-anchor="middle" fill="#fff" font-family="sans-serif" font-size="52">'
        f"{escape(initials)}</text></svg>"
    )
