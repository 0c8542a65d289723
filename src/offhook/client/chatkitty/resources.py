"""Users as a ChatKitty server shows them (ChatKitty protocol notes, 4.1, 4.2, 4.11, 4.13 and 7.1).

Every resource carries the strings by which to ask for what belongs to it: ``relays``, ``topics``, ``actions`` and
``streams``. They are the server's to choose, and are sent back as they came.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec import field

from offhook.client.chatkitty.errors import ChatKittyBadAnswer

T = TypeVar("T")

Links = Mapping[str, str]
_UNKNOWN = "(unknown)"


class Presence(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Whether a user is there.

    Attributes:
        status: what they say of themselves, such as ``AVAILABLE``; free text.
        online: whether they have a session.
    """

    status: str = "UNAVAILABLE"
    online: bool = False


class User(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A user as others see them.

    Attributes:
        id: never changes.
        name: the username; unique in the application.
        display_name: for people.
        display_picture_url: of a picture that anybody may fetch.
        is_guest: whether the user came without credentials.
        presence: whether they are there.
        properties: what the application keeps with them.
        type: ``PERSON`` or ``BOT``, where the server tells.
        call_status: ``AVAILABLE`` or ``IN_CALL``, where the server tells.
    """

    id: int
    name: str
    display_name: str = ""
    display_picture_url: str | None = None
    is_guest: bool = False
    presence: Presence = field(default_factory=Presence)
    properties: Mapping[str, object] = field(default_factory=dict)
    type: str | None = None
    call_status: str | None = None
    relays: Links = field(default_factory=dict, name="_relays")
    actions: Links = field(default_factory=dict, name="_actions")


class CurrentUser(User, frozen=True, rename="camel", kw_only=True):
    """The user whose session it is.

    To change one, for ``update_current_user``, use :meth:`replace`.
    """

    topics: Links = field(default_factory=dict, name="_topics")
    streams: Links = field(default_factory=dict, name="_streams")
    unknown: Mapping[str, object] = field(default_factory=dict, name=_UNKNOWN)
    """What the server sent besides; it gets it back when the user is updated."""

    def replace(
        self,
        *,
        display_name: str | None = None,
        display_picture_url: str | None = None,
        properties: Mapping[str, object] | None = None,
        status: str | None = None,
    ) -> CurrentUser:
        """The same user with some members changed; None leaves one as it is.

        Args:
            display_name: for people.
            display_picture_url: of a picture that lies elsewhere.
            properties: all of them.
            status: of the presence.
        """
        changes: dict[str, object] = {
            "display_name": display_name,
            "display_picture_url": display_picture_url,
            "properties": properties,
            "presence": None if status is None else Presence(status=status, online=self.presence.online),
        }
        return msgspec.structs.replace(self, **{name: value for name, value in changes.items() if value is not None})


class UserBlockedRecord(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A user whom the current user blocked.

    Attributes:
        user: who is blocked.
        created_time: since when.
    """

    user: User
    created_time: datetime | None = None
    relays: Links = field(default_factory=dict, name="_relays")
    actions: Links = field(default_factory=dict, name="_actions")


class PageNumbers(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Where a page is in its list.

    Attributes:
        size: how many items a page has at most.
        total_elements: how many there are in all pages.
        total_pages: how many pages there are.
        number: of this page, from 0.
    """

    size: int | None = None
    total_elements: int | None = None
    total_pages: int | None = None
    number: int | None = None


class PageResource(msgspec.Struct, frozen=True, kw_only=True):
    """A page as it comes: the items under a name, the numbers, and the relays of the pages beside it."""

    embedded: Mapping[str, list[object]] = field(default_factory=dict, name="_embedded")
    page: PageNumbers = field(default_factory=PageNumbers)
    relays: Links = field(default_factory=dict, name="_relays")


class Count(msgspec.Struct, frozen=True):
    """A number of things."""

    count: int


class Grant(msgspec.Struct, frozen=True):
    """What allows its bearer to upload a file."""

    grant: str


def read(resource: object, shape: type[T]) -> T:
    """Makes a typed resource of decoded JSON.

    Args:
        resource: as decoded.
        shape: one of the types above.

    Raises:
        ChatKittyBadAnswer: it has another shape.
    """
    try:
        return msgspec.convert(resource, shape)
    except msgspec.ValidationError as error:
        raise ChatKittyBadAnswer(f"The server sent no {shape.__name__}: {error}") from None


def decoded(body: bytes) -> object:
    """JSON as it came.

    Raises:
        ChatKittyBadAnswer: it is none.
    """
    try:
        value: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ChatKittyBadAnswer("The server's answer is not JSON") from None
    return value


_KNOWN = frozenset(known.encode_name for known in msgspec.structs.fields(CurrentUser))


def read_current_user(resource: object) -> CurrentUser:
    """Makes the current user of decoded JSON, and keeps what is not known of it.

    Raises:
        ChatKittyBadAnswer: it is none.
    """
    if not isinstance(resource, dict):
        raise ChatKittyBadAnswer("The server sent no CurrentUser: it is no object")
    unknown = {name: value for name, value in resource.items() if name not in _KNOWN}
    return read({**resource, _UNKNOWN: unknown}, CurrentUser)


def whole(user: CurrentUser) -> dict[str, object]:
    """The entire object that stands for the user, as ``update_current_user`` sends it (5.1)."""
    members: dict[str, object] = msgspec.to_builtins(user)
    del members[_UNKNOWN]
    return {**user.unknown, **{name: value for name, value in members.items() if value is not None}}
