"""Actions: what a client does (ChatKitty protocol notes, 3.5, 5.1 and 5.2).

An action's answer is the event that it causes: the services publish it with the action's origin, and the connection
marks it for the client when it comes by.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import cast

import msgspec

from offhook.domain.accounts import User, UserChanges, check_text
from offhook.domain.events import Origin
from offhook.domain.values import JsonObject
from offhook.errors import AccessDenied, InvalidInput, NotFound
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.resources import GENERATED_PICTURES, picture_url
from offhook.protocols.chatkitty.destinations import local_part, split_item
from offhook.services.hub import LiveSession
from offhook.services.users import HOSTED_PICTURES

Action = Callable[[Gateway, LiveSession, str, JsonObject, Origin | None], Awaitable[object]]


async def perform(
    gateway: Gateway, live: LiveSession, base_url: str, destination: str, body: bytes, origin: Origin | None
) -> None:
    """Performs the action that a SEND asks for.

    Args:
        gateway: the services.
        live: who acts.
        base_url: the URL under which the client reaches the server.
        destination: of the SEND.
        body: its JSON; empty is ``{}``.
        origin: what the event that answers it is to be marked with.

    Raises:
        OffhookError: it cannot be done; the message says why, and the field is named where there is one.
    """
    local = local_part(destination) or ""
    action = _ACTIONS.get(local)
    if action is not None:
        await action(gateway, live, base_url, _object(body), origin)
    elif (item := split_item(local, "users")) is not None and item[1] in ("delete", "block"):
        if item[1] == "block":
            await gateway.users.block(live.application, live.user_id, item[0], origin)
        elif item[0] == live.user_id:
            await gateway.users.delete(live.application, live.user_id, origin)
        else:
            raise AccessDenied("Users can delete only themselves")
    elif (item := split_item(local, "user/blocked_records")) is not None and item[1] == "delete":
        await gateway.users.unblock(live.application, live.user_id, item[0], origin)
    else:
        raise NotFound(f"There is nothing to do at {destination}")


async def _update(gateway: Gateway, live: LiveSession, base_url: str, body: JsonObject, origin: Origin | None) -> None:
    """Clients send the whole user as they know it, so what equals what they were shown is no wish to change it."""
    user = live.user
    display_name = body.get("displayName")
    picture = body.get("displayPictureUrl")
    presence = body.get("presence", {})
    if not isinstance(presence, dict):
        raise InvalidInput("presence must be an object", "presence")
    status = presence.get("status")
    properties = body.get("properties")
    if "properties" in body and not isinstance(properties, dict):
        raise InvalidInput("properties must be an object", "properties")
    changes = UserChanges(
        display_name=check_text(display_name, "displayName") if "displayName" in body else None,
        picture=None if _shown_picture(picture, live.user, base_url) else _text(picture, "displayPictureUrl"),
        status=_text(status, "presence.status") if status not in (None, user.presence_status) else None,
        properties=cast(JsonObject, properties) if "properties" in body else None,
    )
    await gateway.users.change(live.application, live.user_id, changes, origin)


async def _update_display_picture(
    gateway: Gateway, live: LiveSession, base_url: str, body: JsonObject, origin: Origin | None
) -> None:
    """Takes the properties of a file that lies elsewhere; a file of one's own is uploaded to the stream instead."""
    url = body.get("url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise InvalidInput("url must be the http or https URL of a picture; upload a file through the stream", "url")
    await gateway.users.change(live.application, live.user_id, UserChanges(picture=url), origin)


_ACTIONS: dict[str, Action] = {
    "user.update": _update,
    "users/me.update": _update,
    "user.update_display_picture": _update_display_picture,
}


def _shown_picture(picture: object, user: User, base_url: str) -> bool:
    """Whether it is what the client was shown, now or earlier, and so no wish of the user: pictures of ours all are."""
    if picture is None or picture == picture_url(user, base_url):
        return True
    ours = (f"{base_url}{GENERATED_PICTURES}", f"{base_url}{HOSTED_PICTURES}")
    return isinstance(picture, str) and picture.startswith(ours)


def _object(body: bytes) -> JsonObject:
    if not body:
        return {}
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("The body is not JSON", "body") from None
    if not isinstance(value, dict):
        raise InvalidInput("The body must be a JSON object", "body")
    return value


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise InvalidInput(f"{field} must be a string", field)
    return value
