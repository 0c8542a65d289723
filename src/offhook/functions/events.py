"""What an authentication function is given: the event, and a context to look things up in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from offhook.domain.values import JsonValue


@dataclass(frozen=True, slots=True)
class StartSessionAttempted:
    """Somebody wants to start a session (ChatKitty protocol notes, section 8.3).

    Attributes:
        username: who the client says it is; nothing has been checked yet.
        auth_params: what the client sent to prove it; empty if nothing. Read-only, and left out of ``repr``.
        protocol: ``chatkitty`` or ``kandy``.
        address: the client's IP address.
    """

    username: str
    auth_params: Mapping[str, JsonValue] = field(repr=False)
    protocol: str
    address: str


class Users(Protocol):
    """The application's users, for ``async def`` functions."""

    async def exists(self, name: str) -> bool:
        """Whether the application has a user with exactly this username."""


class BlockingUsers(Protocol):
    """The application's users, for plain ``def`` functions."""

    def exists(self, name: str) -> bool:
        """Whether the application has a user with exactly this username."""


@dataclass(frozen=True, slots=True)
class Context:
    """Where an ``async def`` function runs.

    Attributes:
        application: the application's name.
        users: its users: ``await context.users.exists(name)``.
    """

    application: str
    users: Users


@dataclass(frozen=True, slots=True)
class BlockingContext:
    """Where a plain ``def`` function runs.

    Attributes:
        application: the application's name.
        users: its users: ``context.users.exists(name)``.
    """

    application: str
    users: BlockingUsers
