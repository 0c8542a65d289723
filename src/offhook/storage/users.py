"""Users and blocks in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    null,
    or_,
    select,
    union_all,
    update,
)

from offhook.domain.accounts import User, UserChanges, UserFilter
from offhook.domain.events import user_topic
from offhook.domain.values import Page, PageRequest
from offhook.errors import Conflict, NotFound
from offhook.storage.journal import Topics
from offhook.storage.statements import Hold, Row, Rows, Statement, UniqueViolation, adding
from offhook.storage.tables import ONLINE, blocks, conversations, users

_FIELDS = (
    "application_id",
    "name",
    "display_name",
    "created_at",
    "picture",
    "guest",
    "enabled",
    "status",
    "online",
    "properties",
)
_LATER_FIELDS = ("closed", "note")
"""Those that come after ``has_password`` in a User."""
_COLUMNS = (
    users.c.id,
    *(users.c[name] for name in _FIELDS),
    users.c.password_hash.is_not(None).label("has_password"),
    *(users.c[name] for name in _LATER_FIELDS),
)
# Not for RETURNING, where SQLite (seen in 3.40) takes IS NOT NULL on a column without a value to be true.
_WIDTH = len(_COLUMNS)
_STORED = (*_FIELDS, *_LATER_FIELDS)
_CHANGEABLE = ("display_name", "picture", "status", "properties", "guest", "enabled", "closed", "note")

_id = users.c.id == bindparam("id")
_application = users.c.application_id == bindparam("application_id")

_ADD = adding(
    users, {name: bindparam(name, type_=users.c[name].type) for name in (*_STORED, "display_key")}, users.c.id
)
_GET = Statement(select(*_COLUMNS).where(_id, _application), hold=Hold.USER)
_BY_NAME = Statement(select(*_COLUMNS).where(_application, users.c.name == bindparam("name")), hold=Hold.USER)
_CHANGE = Statement(
    # None leaves a field as it is: that is coalesce.
    update(users)
    .where(users.c.id == bindparam("key"), users.c.application_id == bindparam("application"))
    .values(
        {
            name: func.coalesce(bindparam(name, type_=users.c[name].type), users.c[name])
            for name in (*_CHANGEABLE, "display_key")
        }
    )
)
_SET_ONLINE = Statement(
    update(users)
    .where(users.c.id == bindparam("key"), users.c.application_id == bindparam("application"))
    .values(online=bindparam("online"))
)
_DELETE = Statement(delete(users).where(_id, _application))
_CONVERSATIONS = Statement(
    select(conversations.c.id)
    .where(or_(conversations.c.one_id == bindparam("id"), conversations.c.other_id == bindparam("id")))
    .order_by(conversations.c.id),
    hold=Hold.ROWS,
)
_ABANDON = Statement(
    # Conversations of a user who is gone with somebody who is gone as well, or with themselves.
    delete(conversations).where(
        or_(
            and_(conversations.c.one_id == bindparam("id"), ~exists().where(users.c.id == conversations.c.other_id)),
            and_(conversations.c.other_id == bindparam("id"), ~exists().where(users.c.id == conversations.c.one_id)),
        )
    )
)
_PASSWORD = Statement(select(users.c.password_hash).where(_id))
_SET_PASSWORD = Statement(
    update(users).where(users.c.id == bindparam("key")).values(password_hash=bindparam("password_hash"))
)

_pair = (blocks.c.blocker_id == bindparam("blocker_id"), blocks.c.blocked_id == bindparam("blocked_id"))
_BLOCK = adding(blocks, {column.name: bindparam(column.name, type_=column.type) for column in blocks.c})
_UNBLOCK = Statement(delete(blocks).where(*_pair))
_BLOCK_COUNT = Statement(select(func.count()).select_from(blocks).where(blocks.c.blocker_id == bindparam("blocker_id")))
_ALL_BLOCKS = Statement(select(blocks.c.blocker_id, blocks.c.blocked_id))
_EITHER_WAY = Statement(
    union_all(
        select(blocks.c.blocked_id).where(blocks.c.blocker_id == bindparam("user_id")),
        select(blocks.c.blocker_id).where(blocks.c.blocked_id == bindparam("user_id")),
    )
)


@cache
def _blocks(descending: bool) -> Statement:
    order = (blocks.c.blocked_at, blocks.c.blocked_id)
    return Statement(
        select(*_COLUMNS, blocks.c.blocked_at)
        .join(blocks, blocks.c.blocked_id == users.c.id)
        .where(blocks.c.blocker_id == bindparam("blocker_id"))
        .order_by(*(order if descending else (column.desc() for column in order)))
        .limit(bindparam("limit"))
        .offset(bindparam("skip"))
    )


def _conditions(filters: frozenset[str], online: bool | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [_application]
    if "name" in filters:
        conditions.append(users.c.name == bindparam("name"))
    if "display_name" in filters:
        conditions.append(users.c.display_key.like(bindparam("pattern"), escape="\\"))
    if online is not None:
        conditions.append(ONLINE if online else users.c.online.is_(false()))
    if "excluding" in filters:
        conditions.append(users.c.id != bindparam("excluding"))
    if "visible_to" in filters:
        viewer = bindparam("visible_to", type_=users.c.id.type)
        hidden = (
            (blocks.c.blocker_id == viewer) & (blocks.c.blocked_id == users.c.id),
            (blocks.c.blocked_id == viewer) & (blocks.c.blocker_id == users.c.id),
        )
        conditions.append(~select(null()).select_from(blocks).where(or_(*hidden)).correlate(users).exists())
    return conditions


@cache
def _listing(filters: frozenset[str], online: bool | None, descending: bool) -> Statement:
    order = (users.c.display_key, users.c.id)
    return Statement(
        select(*_COLUMNS)
        .where(*_conditions(filters, online))
        .order_by(*((column.desc() for column in order) if descending else order))
        .limit(bindparam("limit"))
        .offset(bindparam("skip"))
    )


@cache
def _counting(filters: frozenset[str], online: bool | None) -> Statement:
    return Statement(select(func.count()).select_from(users).where(*_conditions(filters, online)))


class SQLUsers:
    """``ports.Users`` on a connection.

    Args:
        rows: executes its statements.
        topics: the journal, which closes the topic of a deleted user.
    """

    __slots__ = ("_rows", "_topics")

    def __init__(self, rows: Rows, topics: Topics) -> None:
        self._rows = rows
        self._topics = topics

    def add(self, user: User) -> User:
        values = {name: getattr(user, name) for name in _STORED}
        try:
            row = self._rows.first(_ADD, **values, display_key=user.display_name.casefold())
        except UniqueViolation as violation:
            raise Conflict(f"The username {user.name!r} is taken") from violation
        assert row is not None
        return replace(user, id=row[0], has_password=False)

    def get(self, application_id: int, user_id: int) -> User | None:
        return _user(self._rows.first(_GET, application_id=application_id, id=user_id))

    def by_name(self, application_id: int, name: str) -> User | None:
        return _user(self._rows.first(_BY_NAME, application_id=application_id, name=name))

    def list(self, application_id: int, where: UserFilter, page: PageRequest) -> Page[User]:
        filters, values = _narrow(application_id, where)
        rows = self._rows.all(
            _listing(filters, where.online, page.descending), **values, limit=page.size, skip=page.offset
        )
        return Page([User(*row) for row in rows], self.count(application_id, where), page)

    def count(self, application_id: int, where: UserFilter) -> int:
        filters, values = _narrow(application_id, where)
        return _number(self._rows.first(_counting(filters, where.online), **values))

    def change(self, user: User, changes: UserChanges) -> User:
        values = {name: getattr(changes, name) for name in _CHANGEABLE}
        key = None if changes.display_name is None else changes.display_name.casefold()
        found = self._rows.run(_CHANGE, **values, display_key=key, key=user.id, application=user.application_id)
        changed = self.get(user.application_id, user.id) if found else None
        if changed is None:
            raise NotFound("The user does not exist")
        return changed

    def set_online(self, user: User, online: bool) -> User:
        if not self._rows.run(_SET_ONLINE, online=online, key=user.id, application=user.application_id):
            raise NotFound("The user does not exist")
        return replace(user, online=online)

    def delete(self, application_id: int, user_id: int) -> None:
        if self._rows.run(_DELETE, application_id=application_id, id=user_id):
            # If both users of a conversation are being deleted, the second one is to find that the first one is gone.
            self._rows.all(_CONVERSATIONS, id=user_id)
            self._rows.run(_ABANDON, id=user_id)
            self._topics.close(user_topic(user_id))

    def password_hash(self, user_id: int) -> str | None:
        row = self._rows.first(_PASSWORD, id=user_id)
        return None if row is None else row[0]

    def set_password_hash(self, user_id: int, hashed: str | None) -> None:
        if not self._rows.run(_SET_PASSWORD, key=user_id, password_hash=hashed):
            raise NotFound("The user does not exist")

    def block(self, blocker_id: int, blocked_id: int, at: datetime) -> bool:
        try:
            self._rows.run(_BLOCK, blocker_id=blocker_id, blocked_id=blocked_id, blocked_at=at)
        except UniqueViolation:
            return False
        return True

    def unblock(self, blocker_id: int, blocked_id: int) -> bool:
        return self._rows.run(_UNBLOCK, blocker_id=blocker_id, blocked_id=blocked_id) > 0

    def blocks(self, blocker_id: int, page: PageRequest) -> Page[tuple[User, datetime]]:
        rows = self._rows.all(_blocks(page.descending), blocker_id=blocker_id, limit=page.size, skip=page.offset)
        total = _number(self._rows.first(_BLOCK_COUNT, blocker_id=blocker_id))
        return Page([(User(*row[:_WIDTH]), row[_WIDTH]) for row in rows], total, page)

    def blocked_either_way(self, user_id: int) -> frozenset[int]:
        return frozenset(row[0] for row in self._rows.all(_EITHER_WAY, user_id=user_id))

    def all_blocks(self) -> Sequence[tuple[int, int]]:
        return [(row[0], row[1]) for row in self._rows.all(_ALL_BLOCKS)]


def _user(row: Row | None) -> User | None:
    return None if row is None else User(*row)


def _number(row: Row | None) -> int:
    assert row is not None
    return int(row[0])


def _narrow(application_id: int, where: UserFilter) -> tuple[frozenset[str], dict[str, object]]:
    """The names of the filters in use, and the parameters they take."""
    values: dict[str, object] = {"application_id": application_id}
    filters = set()
    for name in ("name", "excluding", "visible_to"):
        if (wanted := getattr(where, name)) is not None:
            filters.add(name)
            values[name] = wanted
    if where.display_name is not None:
        filters.add("display_name")
        values["pattern"] = _pattern(where.display_name)
    return frozenset(filters), values


def _pattern(text: str) -> str:
    """A LIKE pattern for display keys that contain the text."""
    # Beyond the length of any display name nothing can match; a name holds no line end, nor a NUL, at which SQLite
    # would take the pattern to be over.
    folded = text.casefold()[:1024].replace("\0", "\n")
    for special in "\\%_":
        folded = folded.replace(special, f"\\{special}")
    return f"%{folded}%"
