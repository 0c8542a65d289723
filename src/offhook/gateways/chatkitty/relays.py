"""Relays: what a client asks for (ChatKitty protocol notes, 3.1, 5.1 and 5.2)."""

from __future__ import annotations

from collections.abc import Callable

from offhook.domain.accounts import UserFilter
from offhook.domain.values import PageRequest
from offhook.errors import InvalidInput, NotFound
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.gateways.chatkitty.resources import (
    Resource,
    blocked_record,
    current_user,
    other_user,
    page_resource,
)
from offhook.protocols.chatkitty.destinations import DestinationError, ListPart, parse_list, split_item
from offhook.protocols.stomp import Frame
from offhook.services.hub import LiveSession
from offhook.services.signing import Grant

Quick = Callable[[Gateway, LiveSession, str], Resource]


def _current_user(gateway: Gateway, live: LiveSession, base_url: str) -> Resource:
    return current_user(live.user, base_url)


def _grant(kind: str) -> Quick:
    def answer(gateway: Gateway, live: LiveSession, base_url: str) -> Resource:
        grant = Grant.issue(kind, live.record.application_id, live.user_id, gateway.clock.now())
        return {"grant": grant.encode(gateway.signer)}

    return answer


QUICK: dict[str, Quick] = {
    "user.relay": _current_user,
    "users/me.relay": _current_user,
    "user.write_file_access_grant.relay": _grant("w"),
    "users/me.write_file_access_grant.relay": _grant("w"),
    "user.read_file_access_grant.relay": _grant("r"),
    "users/me.read_file_access_grant.relay": _grant("r"),
}
"""The relays that need no look-up; among them are all that a session starts with."""


async def answer(gateway: Gateway, live: LiveSession, base_url: str, local: str, frame: Frame) -> object:
    """Answers any other relay.

    Args:
        gateway: the services.
        live: who asks.
        base_url: for URLs in the answer.
        local: the destination without its prefix.
        frame: the SUBSCRIBE; its further headers are the parameters.

    Returns:
        The ``resource`` of the reply.

    Raises:
        InvalidInput: a parameter is wrong.
        NotFound: there is no such relay, or nothing there that the user may see.
    """
    try:
        listed = parse_list(local)
    except DestinationError as error:
        raise InvalidInput(str(error), "destination") from None
    if listed is not None:
        base, part = listed
        if base == "user/contacts":
            return await _contacts(gateway, live, base_url, part, frame)
        if base == "user/blocked_records":
            return await _blocks(gateway, live, base_url, part)
    elif local == "user/contacts.count.relay":
        return {"count": await gateway.users.count(live.application, _contact_filter(live, frame))}
    elif (item := split_item(local, "users")) is not None and item[1] == "relay":
        if item[0] == live.user_id:
            return other_user(live.user, base_url)
        return other_user(await gateway.users.get(live.application, item[0], viewer=live.user_id), base_url)
    raise NotFound(f"There is nothing at {frame.headers['destination']}")


async def _contacts(gateway: Gateway, live: LiveSession, base_url: str, part: ListPart, frame: Frame) -> object:
    name, _, direction = part.sort.partition(",")
    request = PageRequest(part.page, part.size, descending=name == "displayName" and direction == "desc")
    page = await gateway.users.list(live.application, _contact_filter(live, frame), request)
    users = [other_user(user, base_url) for user in page.items]
    return page_resource("users", users, page, "user/contacts", part.sort)


async def _blocks(gateway: Gateway, live: LiveSession, base_url: str, part: ListPart) -> object:
    page = await gateway.users.blocks(live.user_id, PageRequest(part.page, part.size))
    items = [blocked_record(user, since, base_url) for user, since in page.items]
    return page_resource("items", items, page, "user/blocked_records", part.sort)


def _contact_filter(live: LiveSession, frame: Frame) -> UserFilter:
    online = frame.header("online")
    if online not in (None, "", "true", "false"):
        raise InvalidInput("online must be true or false", "online")
    return UserFilter(
        name=frame.header("name") or None,
        display_name=frame.header("displayName") or None,
        online=None if not online else online == "true",
        excluding=live.user_id,
        visible_to=live.user_id,
    )
