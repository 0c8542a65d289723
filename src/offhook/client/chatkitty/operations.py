"""What can be asked and done in a session (ChatKitty protocol notes, 5.1 and 5.2)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from offhook.client.chatkitty.errors import NotOfferedError, as_chatkitty
from offhook.client.chatkitty.pages import Paginator
from offhook.client.chatkitty.pictures import ExternalFile, File, load, refusal
from offhook.client.chatkitty.resources import (
    Count,
    CurrentUser,
    Grant,
    Links,
    User,
    UserBlockedRecord,
    decoded,
    read,
    read_current_user,
    whole,
)
from offhook.client.chatkitty.results import (
    CountedUsers,
    CountUsersResult,
    CurrentUserResult,
    Failed,
    GotCurrentUser,
    GotUser,
    ListBlockedRecordsResult,
    ListedBlockedRecords,
    ListedUsers,
    ListUsersResult,
    UserResult,
)
from offhook.client.chatkitty.session import Stay
from offhook.client.errors import ClientError
from offhook.client.transport import Transport

S = TypeVar("S")

USERS = "/application/v1/users/"
WRITE_GRANT = "/application/v1/user.write_file_access_grant.relay"
DELETED = frozenset({"user.self.deleted"})


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list; None does not matter.

    Attributes:
        name: the username.
        display_name: part of the display name.
        online: whether they are there.
    """

    name: str | None = None
    display_name: str | None = None
    online: bool | None = None

    def parameters(self) -> dict[str, str]:
        """As a relay takes it (ChatKitty protocol notes, 7.3)."""
        online = None if self.online is None else str(self.online).lower()
        given = {"name": self.name, "displayName": self.display_name, "online": online}
        return {name: value for name, value in given.items() if value is not None}


class Operations(ABC):
    """The operations of a client. Each raises NoActiveSessionError, from the call itself, if there is no session.

    Args:
        http: the server's URL without a path, but for a prefix.
        transport: for uploads.
        timeout: seconds that an upload may take.
    """

    def __init__(self, http: str, transport: Transport, timeout: float) -> None:
        self._http = http
        self._transport = transport
        self._timeout = timeout

    @abstractmethod
    def _active(self) -> tuple[Stay, CurrentUser]:
        """The session and its user. Raises NoActiveSessionError."""

    # --- the current user -------------------------------------------------------------------------------------------

    def retrieve_current_user(self) -> Coroutine[object, object, CurrentUserResult]:
        """Asks who the current user is now: ``user``."""
        stay, user = self._active()

        async def work() -> GotCurrentUser:
            found = read_current_user(await stay.ask(_link(user.relays, "self")))
            stay.learn(found, user)
            return GotCurrentUser(found)

        return _result(work)

    def update_current_user(
        self, change: Callable[[CurrentUser], CurrentUser]
    ) -> Coroutine[object, object, CurrentUserResult]:
        """Changes the current user: ``user`` is what they have become.

        ::

            await kitty.update_current_user(lambda user: user.replace(display_name="Jane"))

        Args:
            change: is given the user as last heard, and returns them as they should be; the whole of them is sent.

        Raises:
            TypeError: the properties cannot be written as JSON; raised by the call itself.
        """
        stay, user = self._active()
        changed = change(user)
        members = whole(changed)

        async def work() -> GotCurrentUser:
            found = read_current_user(await stay.act(_link(changed.actions, "update"), members))
            stay.learn(found, user)
            return GotCurrentUser(found)

        return _result(work)

    def update_current_user_display_picture(
        self, file: File | Path | ExternalFile
    ) -> Coroutine[object, object, CurrentUserResult]:
        """Gives the current user another picture: ``user``.

        Args:
            file: one to upload, from memory or by its path; or one that lies elsewhere.

        Raises:
            OSError: the file cannot be read.
        """
        stay, user = self._active()

        async def work() -> GotCurrentUser:
            if isinstance(file, ExternalFile):
                members = file.members()  # noqa: ASYNC240 - it is no path
                resource = await stay.act(_link(user.actions, "updateDisplayPicture"), members)
            else:
                resource = await self._upload(stay, user, await load(file))
            found = read_current_user(resource)
            stay.learn(found, user)
            return GotCurrentUser(found)

        return _result(work)

    async def _upload(self, stay: Stay, user: CurrentUser, file: File) -> object:
        """Sends a file to a stream (3.6)."""
        stream = _link(user.streams, "displayPicture")
        url = self._http + stream if stream.startswith("/") else stream
        grant = read(await stay.ask(user.relays.get("writeFileAccessGrant", WRITE_GRANT)), Grant).grant
        async with stay.deadlines.within(self._timeout):
            answer = await self._transport.request("POST", url, headers={"Grant": grant}, files={"file": file.part})
        if not answer.ok:
            raise refusal(answer)
        return decoded(answer.body)

    def delete_user(self, user: User) -> Coroutine[object, object, UserResult]:
        """Deletes a user: ``user`` is who that was. Servers let users delete only themselves, which ends the session.

        Args:
            user: who, such as ``current_user``.
        """
        stay, _ = self._active()

        async def work() -> GotUser:
            return GotUser(read(await stay.act(_link(user.actions, "delete"), {}, DELETED), User))

        return _result(work)

    # --- others -----------------------------------------------------------------------------------------------------

    def list_users(self, filter: UserFilter | None = None) -> Coroutine[object, object, ListUsersResult]:
        """Lists other users: ``users`` of the first page, and a ``paginator``.

        Args:
            filter: which; all if None.
        """
        stay, user = self._active()
        parameters = (filter or UserFilter()).parameters()

        async def work() -> ListedUsers:
            page = await Paginator.first(stay.ask, _link(user.relays, "contacts"), User, "users", parameters)
            return ListedUsers(page.items, page)

        return _result(work)

    def list_users_count(self, filter: UserFilter | None = None) -> Coroutine[object, object, CountUsersResult]:
        """Counts other users: ``count``.

        Args:
            filter: which; all if None.
        """
        stay, user = self._active()
        parameters = (filter or UserFilter()).parameters()

        async def work() -> CountedUsers:
            return CountedUsers(read(await stay.ask(_link(user.relays, "contactsCount"), parameters), Count).count)

        return _result(work)

    def retrieve_user(self, id: int) -> Coroutine[object, object, UserResult]:
        """Asks for a user: ``user``."""
        stay, _ = self._active()

        async def work() -> GotUser:
            return GotUser(read(await stay.ask(f"{USERS}{id}.relay"), User))

        return _result(work)

    def block_user(self, user: User) -> Coroutine[object, object, UserResult]:
        """Blocks a user, so that neither sees the other: ``user`` is who is blocked."""
        stay, _ = self._active()

        async def work() -> GotUser:
            # Older servers name no such action; its destination was known by heart (1.4).
            return GotUser(read(await stay.act(user.actions.get("block", f"{USERS}{user.id}.block"), {}), User))

        return _result(work)

    def list_user_blocked_records(self) -> Coroutine[object, object, ListBlockedRecordsResult]:
        """Lists whom the current user blocks: ``items`` of the first page, and a ``paginator``."""
        stay, user = self._active()

        async def work() -> ListedBlockedRecords:
            relay = _link(user.relays, "userBlockedRecords", "userBlockListItems")
            page = await Paginator.first(stay.ask, relay, UserBlockedRecord, "items", {})
            return ListedBlockedRecords(page.items, page)

        return _result(work)

    def delete_user_blocked_record(self, record: UserBlockedRecord) -> Coroutine[object, object, UserResult]:
        """Unblocks a user: ``user`` is who that is."""
        stay, _ = self._active()

        async def work() -> GotUser:
            return GotUser(read(await stay.act(_link(record.actions, "delete"), {}), User))

        return _result(work)


async def _result(work: Callable[[], Coroutine[object, object, S]]) -> S | Failed:
    try:
        return await work()
    except ClientError as error:
        return Failed(as_chatkitty(error))


def _link(links: Links, *names: str) -> str:
    """The first of these that the server offers. Raises NotOfferedError."""
    for name in names:
        if name in links:
            return links[name]
    raise NotOfferedError(f"The server does not offer {names[0]}")
