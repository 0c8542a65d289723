"""Which resource a path names, and what may be done with it (Kandy protocol notes, 1.3 and 8.11).

Clients put names into paths as they are, so a path is split before it is decoded: an encoded slash belongs to a name,
and only an anonymous account may hold plain ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote, unquote_to_bytes

UC_VERSION = "v2.0"
"""The first segment of the paths of UC's tokens and messages."""


class Resource(StrEnum):
    """What paths name. The value is for logs and metrics."""

    SUBSCRIPTION = "subscription"
    PRESENCE = "presence"
    PRESENCE_WATCHER = "presenceWatcher"
    INSTANT_MESSAGE = "instantmessage"
    DIRECTORY = "directory"
    USER_PROFILE = "userProfileData"
    LOCALIZATION = "localization"
    ADDRESS_BOOK = "addressbook"
    CONTACTS = "addressbook/contacts"
    CALL_CONTROL = "callControl"
    CALL_DISPOSITION = "calldisposition"
    IMRN = "imrn"
    LOG_HISTORY = "logHistory"
    LOG_RECORD = "logRecord"
    VOICEMAIL = "voicemail"
    EVENT_SUBSCRIPTION = "eventSubscription"
    CLICK_TO_CALL = "clicktocall"
    PUSH_APPLE = "push/apple"
    PUSH_GOOGLE = "push/google"
    ANONYMOUS_SUBSCRIPTION = "anonymous/subscription"
    ANONYMOUS_CALL = "anonymous/callMe"
    UC_MAKE_TOKEN = "auth/mk_token"  # noqa: S105 - a path
    UC_REFRESH_TOKEN = "auth/refresh_token"  # noqa: S105 - a path
    UC_REVOKE_TOKEN = "auth/revoke_token"  # noqa: S105 - a path
    UC_SEND = "rm/send"
    UC_THREADS = "rm/threads"
    UC_THREAD = "rm/thread"
    UC_DELETE = "rm/delete"
    UC_UPLOAD = "rm/upload"
    UC_FILE = "rm/file"


@dataclass(frozen=True, slots=True)
class Address:
    """What a path names.

    Attributes:
        resource: which.
        user: the user or anonymous account whose it is, decoded; None where the path names none.
        names: what tells it from others of its kind, decoded: no name for a collection, else an id.
        correlator: the name is the client's own correlator rather than an id.
    """

    resource: Resource
    user: str | None
    names: tuple[str, ...]
    correlator: bool = False


@dataclass(frozen=True, slots=True)
class _Pattern:
    resource: Resource
    literals: tuple[str | None, ...]
    methods: tuple[str, ...]
    correlator: bool

    def match(self, user: str | None, segments: list[str]) -> Address | None:
        names: list[str] = []
        for literal, segment in zip(self.literals, segments, strict=True):
            if literal is None:
                if not (name := _decode(segment)):
                    return None
                names.append(name)
            elif literal != segment:
                return None
        return Address(self.resource, user, tuple(names), self.correlator)


_USER = {
    "subscription": (Resource.SUBSCRIPTION, "POST"),
    "subscription/{}": (Resource.SUBSCRIPTION, "PUT DELETE"),
    "subscription/clientCorrelator/{}": (Resource.SUBSCRIPTION, "PUT DELETE"),
    "presence": (Resource.PRESENCE, "POST"),
    "presenceWatcher": (Resource.PRESENCE_WATCHER, "POST"),
    "instantmessage": (Resource.INSTANT_MESSAGE, "POST"),
    "directory": (Resource.DIRECTORY, "GET"),
    "userProfileData": (Resource.USER_PROFILE, "GET"),
    "addressbook": (Resource.ADDRESS_BOOK, "GET"),
    "addressbook/contacts": (Resource.CONTACTS, "POST"),
    "addressbook/contacts/{}": (Resource.CONTACTS, "GET PUT DELETE"),
    "callControl": (Resource.CALL_CONTROL, "POST"),
    "callControl/callSessions/{}": (Resource.CALL_CONTROL, "GET PUT DELETE"),
    "calldisposition": (Resource.CALL_DISPOSITION, "POST"),
    "imrn": (Resource.IMRN, "POST"),
    "logHistory": (Resource.LOG_HISTORY, "GET DELETE"),
    "logRecord/{}": (Resource.LOG_RECORD, "DELETE"),
    "voicemail": (Resource.VOICEMAIL, "GET"),
    "eventSubscription": (Resource.EVENT_SUBSCRIPTION, "POST"),
    "eventSubscription/{}": (Resource.EVENT_SUBSCRIPTION, "PUT DELETE"),
    "clicktocall": (Resource.CLICK_TO_CALL, "POST"),
    "push/apple/devices": (Resource.PUSH_APPLE, "POST"),
    "push/apple/devices/{}": (Resource.PUSH_APPLE, "DELETE"),
    "push/google/devices": (Resource.PUSH_GOOGLE, "POST"),
    "push/google/devices/{}": (Resource.PUSH_GOOGLE, "DELETE"),
}
_ANONYMOUS = {
    "subscription": (Resource.ANONYMOUS_SUBSCRIPTION, "POST"),
    "subscription/{}": (Resource.ANONYMOUS_SUBSCRIPTION, "PUT DELETE"),
    "subscription/clientCorrelator/{}": (Resource.ANONYMOUS_SUBSCRIPTION, "PUT DELETE"),
    "callMe": (Resource.ANONYMOUS_CALL, "POST"),
    "callMe/callSessions/{}": (Resource.ANONYMOUS_CALL, "GET PUT DELETE"),
}
_UC = {
    "auth/mk_token": (Resource.UC_MAKE_TOKEN, "GET"),
    "auth/refresh_token": (Resource.UC_REFRESH_TOKEN, "GET"),
    "auth/revoke_token": (Resource.UC_REVOKE_TOKEN, "GET"),
    "rm/send": (Resource.UC_SEND, "GET"),
    "rm/threads": (Resource.UC_THREADS, "GET"),
    "rm/thread": (Resource.UC_THREAD, "GET"),
    "rm/thread/{}": (Resource.UC_THREAD, "GET"),
    "rm/delete/{}": (Resource.UC_DELETE, "GET"),
    "rm/delete/{}/{}": (Resource.UC_DELETE, "GET"),
    "rm/upload": (Resource.UC_UPLOAD, "POST"),
    "rm/file/{}": (Resource.UC_FILE, "GET"),
}
_SHARED = {"localization": (Resource.LOCALIZATION, "GET")}

_Index = dict[tuple[str, int], tuple[_Pattern, ...]]


def _index(table: dict[str, tuple[Resource, str]]) -> _Index:
    """Patterns by their first segment and their length: seldom more than one is left to compare."""
    index: _Index = {}
    for text, (resource, methods) in table.items():
        literals = tuple(None if part == "{}" else part for part in text.split("/"))
        pattern = _Pattern(resource, literals, tuple(methods.split()), "clientCorrelator" in literals)
        key = (text.partition("/")[0], len(literals))
        index[key] = (*index.get(key, ()), pattern)
    return index


_USER_INDEX, _ANONYMOUS_INDEX, _UC_INDEX, _SHARED_INDEX = map(_index, (_USER, _ANONYMOUS, _UC, _SHARED))
_METHODS = {
    (pattern.resource, len([literal for literal in pattern.literals if literal is None])): pattern.methods
    for index in (_USER_INDEX, _ANONYMOUS_INDEX, _UC_INDEX, _SHARED_INDEX)
    for patterns in index.values()
    for pattern in patterns
}
_ANONYMOUS_PATH = re.compile(r"(.+)/((?:subscription|callMe)(?:/[^/]+){0,2})", re.DOTALL)
_CHANNEL = "/websocket/"
_UNESCAPED = re.compile(r"[A-Za-z0-9._~@:+=,!$&'()*;-]+")
_SAFE = "@:+=,!$&'()*;"


def parse_path(raw: str) -> Address | None:
    """What the path names, or None if nothing.

    Args:
        raw: the path as it came, still percent-encoded, without query. A slash at its end makes no difference. Plain
            characters outside ASCII are taken as they are.
    """
    if raw.endswith("/"):
        raw = raw[:-1]
    head, *rest = raw.split("/")
    if head or len(rest) < 2:
        return None
    if rest[0] == UC_VERSION:
        return _find(_UC_INDEX, None, rest[1:])
    if rest[0] != "rest" or rest[1] != "version" or len(rest) < 4 or not rest[2]:
        return None
    scope = rest[3]
    if scope == "user":
        user = _decode(rest[4]) if len(rest) > 5 else None
        return _find(_USER_INDEX, user, rest[5:]) if user else None
    if scope == "anonymous":
        return _anonymous("/".join(rest[4:]))
    return _find(_SHARED_INDEX, None, rest[3:])


def methods(address: Address) -> tuple[str, ...]:
    """The HTTP methods that the address knows, but for OPTIONS."""
    return _METHODS[address.resource, len(address.names)]


def subscription_path(user: str, subscription_id: str, *, version: str = "1", anonymous: bool = False) -> str:
    """The path by which a client is to renew and end its subscription; :func:`parse_path` undoes it.

    Args:
        user: the user or anonymous account.
        subscription_id: unguessable.
        version: of the API, as the client wrote it.
        anonymous: the first is an account.
    """
    scope = "anonymous" if anonymous else "user"
    return f"/rest/version/{version}/{scope}/{quote(user, safe=_SAFE)}/subscription/{quote(subscription_id, safe='')}"


def user_path(user: str, resource: Resource, *names: str, version: str = "1") -> str:
    """The path of a resource of a user, as a client writes it; :func:`parse_path` undoes it.

    Args:
        user: whose.
        resource: one that belongs to a user.
        names: what tells it from others of its kind.
        version: of the API.
    """
    rest = "".join("/" + quote(name, safe=_SAFE) for name in names)
    return f"/rest/version/{version}/user/{quote(user, safe=_SAFE)}/{resource.value}{rest}"


def uc_path(resource: Resource, *names: str, version: str = UC_VERSION) -> str:
    """The path of one of UC's resources, as a client writes it; :func:`parse_path` undoes it.

    Args:
        resource: of UC.
        names: what tells it from others of its kind.
        version: of the API.
    """
    return f"/{version}/{resource.value}" + "".join("/" + quote(name, safe=_SAFE) for name in names)


def channel_path(channel_id: str) -> str:
    """The path of a notification socket. Some clients cut the id out behind ``/websocket/`` (3.1)."""
    return _CHANNEL + quote(channel_id, safe="")


def parse_channel(raw: str) -> str | None:
    """The channel that the raw path of a WebSocket names, or None."""
    if not raw.startswith(_CHANNEL):
        return None
    segment = raw[len(_CHANNEL) :].removesuffix("/")
    return None if "/" in segment else _decode(segment) or None


def fits_path(text: str) -> bool:
    """Whether clients, which escape nothing, can put the text into a path and have it arrive as it was.

    A client correlator that does not fit must be left out of the answer: the client then renews by the path.
    """
    return _UNESCAPED.fullmatch(text) is not None and text not in (".", "..")


def _anonymous(rest: str) -> Address | None:
    match = _ANONYMOUS_PATH.fullmatch(rest)
    if match is None or not (account := _decode(match[1])):
        return None
    return _find(_ANONYMOUS_INDEX, account, match[2].split("/"))


def _find(index: _Index, user: str | None, segments: list[str]) -> Address | None:
    for pattern in index.get((segments[0], len(segments)), ()):
        if (address := pattern.match(user, segments)) is not None:
            return address
    return None


def _decode(segment: str) -> str | None:
    if "%" not in segment and segment.isascii():
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeError:
        return None
