"""What the published JavaScript SDKs show their users, as Python values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import msgspec

Place = Literal["node", "chromium"]

Heard: TypeAlias = "list[tuple[str, str, str | bool]]"
"""What observers told of other users: (``presence``, username, online) or (``contact``, username, display name)."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """An SDK package in a place where it runs.

    Attributes:
        place: Node or Chromium.
        sdk: the npm alias of the package and its version.
    """

    place: Place
    sdk: str

    def __str__(self) -> str:
        return f"{self.place}-{self.sdk}"

    @property
    def generation(self) -> int:
        """The protocol generation the package speaks (ChatKitty protocol notes, introduction)."""
        return {"core-2.106.2": 3, "core-1.11.0": 2, "chatkitty-1.58.2": 2}.get(self.sdk, 1)


RUNTIMES = (
    Runtime("node", "core-1.11.0"),
    Runtime("node", "core-2.106.2"),
    Runtime("node", "chatkitty-1.58.2"),
    Runtime("chromium", "core-1.11.0"),
    Runtime("chromium", "core-2.106.2"),
)
"""Every SDK in every place where all scenarios must pass."""

NEWEST = RUNTIMES[1]
"""The runtime of bystanders, whose SDK tells most of what it hears."""


class Presence(msgspec.Struct, frozen=True):
    status: str
    online: bool


class User(msgspec.Struct, frozen=True, rename="camel"):
    """A user, or the current user, as an SDK hands it to its application."""

    id: int
    name: str
    display_name: str
    display_picture_url: str
    is_guest: bool
    presence: Presence
    properties: dict[str, object]


class Failure(msgspec.Struct, frozen=True):
    """An error object of a failed result, or what a method threw.

    Attributes:
        code: the protocol's error name, if it is an error of the protocol.
        name: the class of the JavaScript object.
        status: HTTP status, if it is an error of an upload.
    """

    message: str
    name: str | None = None
    code: str | None = None
    timestamp: str | None = None
    status: int | None = None
    body: object = None


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """A result object; which fields are set depends on the method."""

    succeeded: bool
    failed: bool
    error: Failure | None = None
    user: User | None = None
    users: list[User] | None = None
    count: int | None = None
    has_next_page: bool | None = None
    has_prev_page: bool | None = None


class Fetched(msgspec.Struct, frozen=True):
    """What a plain HTTP request of the application answered."""

    status: int
    type: str | None
    size: int


class SocketChange(msgspec.Struct, frozen=True):
    """What became of a WebSocket of the SDK."""

    state: Literal["connecting", "open", "closed"]
    code: int | None = None
    reason: str | None = None


class Thrown(Exception):
    """A method of the SDK threw, or rejected its promise, instead of giving a result."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.code or failure.name}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Event:
    """What an SDK reported by itself.

    Attributes:
        kind: ``socket``, or an observer: ``self``, ``online``, ``offline``, ``presence``, ``contact``,
            ``blocked``, ``unblocked``, ``watched``.
        value: its argument.
    """

    kind: str
    value: object

    def __repr__(self) -> str:
        """Short: what a test's failure needs of a user, not all of the user's affordances."""
        if isinstance(self.value, dict) and "displayName" in self.value:
            user = msgspec.convert(self.value, User)
            return f"{self.kind}({user.name} {user.display_name!r} online={user.presence.online})"
        return self.kind if self.value is None else f"{self.kind}({self.value})"
