"""What operations give: either what was asked for, or :class:`Failed`.

Each result is a union of two classes, told apart by ``succeeded`` (and ``failed``), which type checkers understand::

    result = await kitty.retrieve_user(7)
    if result.succeeded:
        print(result.user.display_name)
    else:
        print(result.error.error, result.error.message)

Who would rather have exceptions says ``(await kitty.retrieve_user(7)).unwrap().user``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, Literal, NoReturn, Self, TypeVar

from offhook.client.chatkitty.errors import ChatKittyError
from offhook.client.chatkitty.resources import CurrentUser, User, UserBlockedRecord

if TYPE_CHECKING:
    from offhook.client.chatkitty.pages import Paginator

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """An active session.

    Attributes:
        user: whose it is, as last heard.
    """

    user: CurrentUser


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation that failed.

    Attributes:
        error: why; see :mod:`offhook.client.chatkitty.errors`.
    """

    error: ChatKittyError
    succeeded: ClassVar[Literal[False]] = False
    failed: ClassVar[Literal[True]] = True

    def unwrap(self) -> NoReturn:
        """Raises the error."""
        raise self.error


class _Succeeded:
    """What all other results have in common."""

    __slots__ = ()
    succeeded: ClassVar[Literal[True]] = True
    failed: ClassVar[Literal[False]] = False

    def unwrap(self) -> Self:
        """The result itself."""
        return self


@dataclass(frozen=True, slots=True)
class StartedSession(_Succeeded):
    """A session has begun: ``session``."""

    session: Session


@dataclass(frozen=True, slots=True)
class GotCurrentUser(_Succeeded):
    """The current user as they are now, be it after a change: ``user``."""

    user: CurrentUser


@dataclass(frozen=True, slots=True)
class GotUser(_Succeeded):
    """The user it was about: ``user``."""

    user: User


@dataclass(frozen=True, slots=True)
class CountedUsers(_Succeeded):
    """How many users there are: ``count``."""

    count: int


@dataclass(frozen=True, slots=True)
class ListedUsers(_Succeeded):
    """The first page of users: ``users``; ``paginator`` leads to the others."""

    users: tuple[User, ...]
    paginator: Paginator[User]


@dataclass(frozen=True, slots=True)
class ListedBlockedRecords(_Succeeded):
    """The first page of blocks: ``items``; ``paginator`` leads to the others."""

    items: tuple[UserBlockedRecord, ...]
    paginator: Paginator[UserBlockedRecord]


@dataclass(frozen=True, slots=True)
class TurnedPage(_Succeeded, Generic[T]):
    """Another page: ``items``; ``paginator`` leads on from it."""

    items: tuple[T, ...]
    paginator: Paginator[T]


StartSessionResult = StartedSession | Failed
CurrentUserResult = GotCurrentUser | Failed
UserResult = GotUser | Failed
CountUsersResult = CountedUsers | Failed
ListUsersResult = ListedUsers | Failed
ListBlockedRecordsResult = ListedBlockedRecords | Failed
