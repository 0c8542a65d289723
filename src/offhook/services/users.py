"""Users: made, listed, changed, blocked, deleted."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import replace
from datetime import datetime

import structlog

from offhook.codes import EndReason
from offhook.domain.accounts import (
    MAX_NOTE,
    MAX_STATUS,
    MAX_URL,
    Application,
    User,
    UserChanges,
    UserFilter,
    check_properties,
    check_text,
    check_username,
)
from offhook.domain.events import (
    Origin,
    PresenceChanged,
    UserBlocked,
    UserDeleted,
    UserUnblocked,
    UserUpdated,
    application_topic,
    user_topic,
)
from offhook.domain.sessions import Session
from offhook.domain.values import JsonObject, Page, PageRequest
from offhook.errors import InvalidInput, NotFound, OffhookError
from offhook.ports import EVERY_NODE, Blobs, BlocksChanged, Broker, Clock, Store, Transaction
from offhook.services.passwords import Passwords
from offhook.services.sessions import SessionService

log = structlog.get_logger(__name__)

HOSTED_PICTURES = "/v1/files/"
"""What the path of a picture that was uploaded here begins with."""


class UserService:
    """Use cases around users. Everything is about the users of one application; ids of others are unknown here."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        clock: Clock,
        passwords: Passwords,
        sessions: SessionService,
        blobs: Blobs,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._broker = broker
        self._clock = clock
        self._passwords = passwords
        self._sessions = sessions

    async def create(
        self,
        application: Application,
        name: str,
        *,
        display_name: str | None = None,
        password: str | None = None,
        properties: JsonObject | None = None,
        guest: bool = False,
    ) -> User:
        """Makes a user.

        Raises:
            InvalidInput: a value is not of its form.
            Conflict: the name is taken.
        """
        check_username(name, "name")
        if display_name is not None:
            check_text(display_name, "display_name")
        hashed = None if password is None else await self._passwords.hash(password)
        user = User(
            id=0,
            application_id=application.id,
            name=name,
            display_name=display_name or name,
            created_at=self._clock.now(),
            guest=guest,
            properties={} if properties is None else check_properties(properties),
        )

        def work(tx: Transaction) -> User:
            added = tx.users.add(user)
            if hashed is not None:
                tx.users.set_password_hash(added.id, hashed)
            return replace(added, has_password=hashed is not None)

        return await self._store.transact(work)

    async def get(self, application: Application, user_id: int, *, viewer: int | None = None) -> User:
        """A user by id, unless a block stands between them and the viewer. Raises NotFound."""

        def work(tx: Transaction) -> User:
            user = _get(tx, application, user_id)
            if viewer is not None and user_id in tx.users.blocked_either_way(viewer):
                raise NotFound(f"There is no user {user_id}")
            return user

        return await self._store.query(work)

    async def by_name(self, application: Application, name: str) -> User:
        """A user by username. Raises NotFound."""
        return await self._store.query(lambda tx: _by_name(tx, application, name))

    async def list(self, application: Application, where: UserFilter, page: PageRequest) -> Page[User]:
        """Users, ordered by display name."""
        return await self._store.query(lambda tx: tx.users.list(application.id, where, page))

    async def count(self, application: Application, where: UserFilter) -> int:
        """How many users a filter finds."""
        return await self._store.query(lambda tx: tx.users.count(application.id, where))

    async def change(
        self, application: Application, user_id: int, changes: UserChanges, origin: Origin | None = None
    ) -> User:
        """Changes a user, and tells the user and everybody who may see them.

        A picture is named by an http or https URL; for one of ours see ``set_hosted_picture``.

        Args:
            application: the user's.
            user_id: whom.
            changes: what; None leaves a field as it is.
            origin: the client's request, if one asked for it: it is answered by the event, even if nothing changed.

        Raises:
            InvalidInput: a value is not of its form.
            NotFound: there is no such user.
        """
        _check(changes)
        if changes.status is not None:
            # A status is chosen as a whole: what was said with the one before does not belong to it.
            changes = replace(changes, closed=bool(changes.closed), note=changes.note or "")
        return await self._change(application, user_id, changes, origin)

    async def set_hosted_picture(self, application: Application, user_id: int, name: str) -> User:
        """Makes a file of ours, which is nobody else's, the user's picture. Raises NotFound."""
        return await self._change(application, user_id, UserChanges(picture=HOSTED_PICTURES + name), None)

    async def _change(
        self, application: Application, user_id: int, changes: UserChanges, origin: Origin | None
    ) -> User:
        def work(tx: Transaction) -> tuple[User, User]:
            before = _get(tx, application, user_id)
            after = tx.users.change(before, changes)
            if after != before or origin is not None:
                tx.publish(user_topic(user_id), UserUpdated(after), origin)
            everybody = application_topic(application.id)
            if (after.status, after.closed, after.note) != (before.status, before.closed, before.note):
                tx.publish(everybody, PresenceChanged(after))
            if replace(after, status=before.status, closed=before.closed, note=before.note) != before:
                tx.publish(everybody, UserUpdated(after))
            return before, after

        before, after = await self._store.transact(work)
        if before.picture != after.picture:
            await self._drop_picture(before)
        return after

    async def _drop_picture(self, user: User) -> None:
        """Deletes the picture that the user had uploaded and has no more. What fails is only logged: it is done."""
        if user.picture is not None and user.picture.startswith(HOSTED_PICTURES):
            try:
                await self._blobs.delete(user.picture.removeprefix(HOSTED_PICTURES))
            except (OffhookError, OSError):
                log.exception("picture_not_deleted", user=user.id)

    async def set_enabled(self, application: Application, name: str, enabled: bool) -> User:
        """Lets a user start sessions, or ends all they have and lets them start no more. Raises NotFound."""

        def work(tx: Transaction) -> tuple[User, Sequence[Session]]:
            user = tx.users.change(_by_name(tx, application, name), UserChanges(enabled=enabled))
            ended = () if enabled else self._sessions.end_of_user(tx, user, EndReason.USER_DISABLED)
            return user, ended

        user, ended = await self._store.transact(work)
        await self._sessions.tell_ended(ended, EndReason.USER_DISABLED)
        return user

    async def set_password(self, application: Application, name: str, password: str | None) -> User:
        """Sets a user's password, or removes it with None; all sessions of the user end.

        Raises:
            InvalidInput: the password is empty or too long.
            NotFound: there is no such user.
        """
        await self.by_name(application, name)
        hashed = None if password is None else await self._passwords.hash(password)

        def work(tx: Transaction) -> tuple[User, Sequence[Session]]:
            user = _by_name(tx, application, name)
            tx.users.set_password_hash(user.id, hashed)
            ended = self._sessions.end_of_user(tx, user, EndReason.CREDENTIALS_CHANGED)
            return _by_name(tx, application, name), ended

        user, ended = await self._store.transact(work)
        await self._sessions.tell_ended(ended, EndReason.CREDENTIALS_CHANGED)
        return user

    async def delete(self, application: Application, user_id: int, origin: Origin | None = None) -> User:
        """Tells the user and everybody that the user is gone, ends their sessions and deletes them.

        Raises:
            NotFound: there is no such user.
        """

        def work(tx: Transaction) -> tuple[User, Sequence[Session], BlocksChanged]:
            user = _get(tx, application, user_id)
            tx.publish(user_topic(user_id), UserDeleted(user), origin)
            ended = self._sessions.end_of_user(tx, user, EndReason.USER_DELETED)
            tx.publish(application_topic(application.id), UserDeleted(replace(user, online=False)))
            others = tx.users.blocked_either_way(user_id)
            tx.users.delete(application.id, user_id)
            return user, ended, _blocks_of(tx, {user_id, *others})

        user, ended, blocks = await self._store.transact(work)
        await self._sessions.tell_ended(ended, EndReason.USER_DELETED)
        await self._broker.send(EVERY_NODE, blocks)
        await self._drop_picture(user)
        return user

    # --- blocks -----------------------------------------------------------------------------------------------------

    async def block(
        self, application: Application, blocker_id: int, blocked_id: int, origin: Origin | None = None
    ) -> User:
        """Makes two users invisible to each other. Blocking twice changes nothing.

        Args:
            application: of both.
            blocker_id: who blocks.
            blocked_id: whom.
            origin: the client's request, answered by the event.

        Raises:
            InvalidInput: a user blocks themselves.
            NotFound: there is no such user.
        """
        if blocker_id == blocked_id:
            raise InvalidInput("A user cannot block themselves", "user")

        def work(tx: Transaction) -> User:
            blocked = _get(tx, application, blocked_id)
            now = self._clock.now()
            tx.users.block(blocker_id, blocked_id, now)
            tx.publish(user_topic(blocker_id), UserBlocked(blocked, now.isoformat()), origin)
            self._show_each_other(tx, _get(tx, application, blocker_id), blocked, hidden=True)
            return blocked

        return await self._with_blocks(blocker_id, blocked_id, work)

    async def unblock(
        self, application: Application, blocker_id: int, blocked_id: int, origin: Origin | None = None
    ) -> User:
        """Takes a block back. Raises NotFound if there is none."""

        def work(tx: Transaction) -> User:
            blocked = _get(tx, application, blocked_id)
            if not tx.users.unblock(blocker_id, blocked_id):
                raise NotFound("This user is not blocked")
            tx.publish(user_topic(blocker_id), UserUnblocked(blocked), origin)
            hidden = blocked_id in tx.users.blocked_either_way(blocker_id)
            self._show_each_other(tx, _get(tx, application, blocker_id), blocked, hidden=hidden)
            return blocked

        return await self._with_blocks(blocker_id, blocked_id, work)

    @staticmethod
    def _show_each_other(tx: Transaction, one: User, other: User, *, hidden: bool) -> None:
        """Tells two users how the other one is for them from now on: offline, if a block stands between them."""
        for viewer, shown in ((one, other), (other, one)):
            tx.publish(user_topic(viewer.id), PresenceChanged(replace(shown, online=shown.online and not hidden)))

    async def blocks(self, blocker_id: int, page: PageRequest) -> Page[tuple[User, datetime]]:
        """Whom a user blocks and since when, newest first."""
        return await self._store.query(lambda tx: tx.users.blocks(blocker_id, page))

    async def _with_blocks(self, one: int, other: int, work: Callable[[Transaction], User]) -> User:
        def both(tx: Transaction) -> tuple[User, BlocksChanged]:
            return work(tx), _blocks_of(tx, {one, other})

        user, changed = await self._store.transact(both)
        await self._broker.send(EVERY_NODE, changed)
        return user


def _get(tx: Transaction, application: Application, user_id: int) -> User:
    user = tx.users.get(application.id, user_id)
    if user is None:
        raise NotFound(f"There is no user {user_id}")
    return user


def _blocks_of(tx: Transaction, user_ids: Set[int]) -> BlocksChanged:
    return BlocksChanged(tuple((user_id, tx.users.blocked_either_way(user_id)) for user_id in user_ids))


def _by_name(tx: Transaction, application: Application, name: str) -> User:
    user = tx.users.by_name(application.id, name)
    if user is None:
        raise NotFound(f"There is no user named {name!r}")
    return user


def _check(changes: UserChanges) -> None:
    if changes.display_name is not None:
        check_text(changes.display_name, "displayName")
    if changes.picture is not None:
        check_text(changes.picture, "displayPictureUrl", MAX_URL)
        if not changes.picture.startswith(("https://", "http://")):
            raise InvalidInput("displayPictureUrl must be an http or https URL", "displayPictureUrl")
    if changes.status is not None:
        check_text(changes.status, "presence.status", MAX_STATUS)
    if changes.note:
        check_text(changes.note, "note", MAX_NOTE)
    if changes.properties is not None:
        check_properties(changes.properties)
