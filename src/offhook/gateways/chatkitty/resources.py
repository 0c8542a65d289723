"""Users as ChatKitty clients read them (ChatKitty protocol notes, 4.1, 4.2, 4.11 and 7.1).

The affordance maps differ between users by nothing but an id, so each is one text with a hole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar
from urllib.parse import quote

import msgspec

from offhook.domain.accounts import User
from offhook.domain.values import Page
from offhook.gateways.chatkitty.errors import timestamp
from offhook.protocols.chatkitty.destinations import PREFIX, USER_TOPICS, list_relay, user_topic

Resource = dict[str, object]
T = TypeVar("T")

GENERATED_PICTURES = "/v1/picture/"

_HOLE = 9007199254740991
_encode = msgspec.json.encode


def _holed(value: object) -> tuple[bytes, ...]:
    return tuple(_encode(value).split(str(_HOLE).encode()))


_BLOCKS = list_relay("user/blocked_records")
_RELAYS = msgspec.Raw(
    _encode(
        {
            "self": f"{PREFIX}user.relay",
            "readFileAccessGrant": f"{PREFIX}user.read_file_access_grant.relay",
            "writeFileAccessGrant": f"{PREFIX}user.write_file_access_grant.relay",
            "channels": list_relay("user/channels"),
            "joinableChannels": list_relay("user/joinable_channels"),
            "unreadChannels": list_relay("user/unread_channels"),
            "channelsCount": f"{PREFIX}user/channels.count.relay",
            "unreadChannelsCount": f"{PREFIX}user/unread_channels.count.relay",
            "messages": list_relay("user/messages"),
            "unreadMessagesCount": f"{PREFIX}user/messages.count.relay",
            "contacts": list_relay("user/contacts"),
            "contactsCount": f"{PREFIX}user/contacts.count.relay",
            "userBlockedRecords": _BLOCKS,
            "userBlockListItems": _BLOCKS,
        }
    )
)
_TOPICS = _holed({key: user_topic(_HOLE, key) for key in USER_TOPICS})
_ACTIONS = _holed(
    {
        "update": f"{PREFIX}user.update",
        "createChannel": f"{PREFIX}user.create_channel",
        "updateDisplayPicture": f"{PREFIX}user.update_display_picture",
        "delete": f"{PREFIX}users/{_HOLE}.delete",
    }
)
_OTHER_RELAYS = _holed(
    {"self": f"{PREFIX}users/{_HOLE}.relay", "channelMember": f"{PREFIX}users/{_HOLE}.channel_member.relay"}
)
_OTHER_ACTIONS = _holed({"block": f"{PREFIX}users/{_HOLE}.block", "delete": f"{PREFIX}users/{_HOLE}.delete"})


def _filled(parts: tuple[bytes, ...], number: int) -> msgspec.Raw:
    return msgspec.Raw(str(number).encode().join(parts))


def picture_url(user: User, base_url: str) -> str:
    """Where the user's picture is: their own, or the one made of their display name."""
    if user.picture is None:
        return f"{base_url}{GENERATED_PICTURES}{quote(user.display_name, safe='')}"
    return base_url + user.picture if user.picture.startswith("/") else user.picture


def current_user(user: User, base_url: str) -> Resource:
    """The user as they see themselves."""
    resource = _profile(user, base_url)
    resource["_relays"] = _RELAYS
    resource["_topics"] = _filled(_TOPICS, user.id)
    resource["_actions"] = _filled(_ACTIONS, user.id)
    resource["_streams"] = {"displayPicture": f"{base_url}/v1/streams/users/{user.id}/display-picture"}
    return resource


def other_user(user: User, base_url: str) -> Resource:
    """The user as everybody else sees them."""
    resource = _profile(user, base_url)
    resource["_relays"] = _filled(_OTHER_RELAYS, user.id)
    resource["_actions"] = _filled(_OTHER_ACTIONS, user.id)
    return resource


def _profile(user: User, base_url: str) -> Resource:
    return {
        "id": user.id,
        "type": "PERSON",
        "name": user.name,
        "displayName": user.display_name,
        "displayPictureUrl": picture_url(user, base_url),
        "isGuest": user.guest,
        "presence": {"status": user.presence_status, "online": user.online},
        "properties": user.properties,
    }


def blocked_record(user: User, since: datetime, base_url: str) -> Resource:
    """A block, as the blocking user sees it."""
    return {
        "user": other_user(user, base_url),
        "createdTime": timestamp(since),
        "_actions": {"delete": f"{PREFIX}user/blocked_records/{user.id}.delete"},
    }


def page_resource(
    name: str, resources: Sequence[Resource], page: Page[T], base: str, sort: str
) -> Mapping[str, object]:
    """A page of a list.

    Args:
        name: what the items are called.
        resources: the rendered items.
        page: the page they are of.
        base: the list's destination, without prefix and page.
        sort: the order asked for, carried on to the other pages.
    """
    number, size = page.request.number, page.request.size
    last = max(page.pages - 1, 0)
    relays = {"self": number, "first": 0, "last": last}
    if page.has_previous:
        relays["prev"] = min(number - 1, last)
    if page.has_next:
        relays["next"] = number + 1
    return {
        "_embedded": {name: resources},
        "page": {
            "size": size,
            "totalElements": page.total,
            "totalElement": page.total,
            "totalPages": page.pages,
            "number": number,
        },
        "_relays": {key: list_relay(base, value, size, sort) for key, value in relays.items()},
    }


def relay_body(resource: object) -> bytes:
    """The body of a relay's reply."""
    return _encode({"type": "relay", "version": "v1", "resource": resource})


def event_body(kind: str, resource: object) -> bytes:
    """The body of an event."""
    return _encode({"type": kind, "version": "v1", "resource": resource})
