"""Sessions and their stories in the database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, bindparam, delete, func, insert, or_, select, union_all, update

from offhook.domain.events import Topic
from offhook.domain.sessions import Client, Session, StoryEntry
from offhook.domain.values import Page, PageRequest
from offhook.errors import NotFound
from offhook.ports import SessionFilter
from offhook.storage.statements import Hold, Row, Rows, Statement
from offhook.storage.tables import ACTIVE, ENDED, LIVE, RENEWED, STARTING, SUSPENDED, sessions, stories, users

_COLUMNS = tuple(sessions.c)
_VALUES = {column.name: bindparam(column.name, type_=column.type) for column in _COLUMNS if column.name != "id"}

_ADD = Statement(insert(sessions).values(_VALUES).returning(sessions.c.id))
_get = select(*_COLUMNS).where(sessions.c.id == bindparam("id"))
_GET = Statement(
    _get,
    hold=Hold.SESSION,
    # In this order, which is everybody's: the user, then what belongs to the user.
    locking=_get.select_from(users.join(sessions, sessions.c.user_id == users.c.id)),
    of=(users, sessions),
)
_SAVE = Statement(update(sessions).where(sessions.c.id == bindparam("key")).values(_VALUES))
_SAVE_POSITIONS = Statement(
    update(sessions)
    .where(sessions.c.id == bindparam("key"), ACTIVE, sessions.c.generation == bindparam("of_generation"))
    .values(positions=_VALUES["positions"])
)
_TELL = Statement(
    insert(stories).values(
        {column.name: bindparam(column.name, type_=column.type) for column in stories.c if column.name != "id"}
    )
)
_STORY = Statement(
    select(stories.c.at, stories.c.kind, stories.c.reason, stories.c.detail)
    .where(stories.c.session_id == bindparam("session_id"))
    .order_by(stories.c.id)
)
_LIVE_OF = Statement(
    select(*_COLUMNS).where(sessions.c.user_id == bindparam("user_id"), LIVE).order_by(sessions.c.id), hold=Hold.ROWS
)

_now = bindparam("now", type_=sessions.c.leave_at.type)
_stays = or_(sessions.c.leave_at.is_(None), sessions.c.leave_at > _now)


def _overdue(time: Column[datetime], *conditions: ColumnElement[bool]) -> Select[Any]:
    return select(*_COLUMNS, time.label("due")).where(time <= _now, *conditions)


# Each part is read off an index of its own in the order of the whole, so that no more is read than is asked for.
_DUE = Statement(
    union_all(
        _overdue(sessions.c.leave_at, SUSPENDED),
        _overdue(sessions.c.resumable_until, SUSPENDED, _stays),
        _overdue(sessions.c.resumable_until, STARTING),
        _overdue(sessions.c.expires_at, RENEWED),
    )
    .order_by("due", "id")
    .limit(bindparam("limit")),
    hold=Hold.SOME_SESSIONS,
)
_ACTIVE_NODES = Statement(select(sessions.c.node).where(ACTIVE).distinct().order_by(sessions.c.node))
_ACTIVE_ON = Statement(
    select(*_COLUMNS)
    .where(sessions.c.node == bindparam("node"), ACTIVE)
    .order_by(sessions.c.id)
    .limit(bindparam("limit")),
    hold=Hold.SOME_SESSIONS,
)
_IDS_ON = Statement(select(sessions.c.id).where(sessions.c.node == bindparam("node"), ACTIVE))
_FORGET = Statement(
    delete(sessions).where(
        sessions.c.id.in_(
            select(sessions.c.id)
            .where(ENDED, sessions.c.ended_at < bindparam("before"))
            .order_by(sessions.c.ended_at)
            .limit(bindparam("limit"))
        )
    )
)


def _conditions(filters: frozenset[str], live: bool | None) -> list[ColumnElement[bool]]:
    conditions = [sessions.c[name] == bindparam(name, type_=sessions.c[name].type) for name in sorted(filters)]
    if live is not None:
        conditions.append(LIVE if live else ENDED)
    return conditions


@cache
def _listing(filters: frozenset[str], live: bool | None, descending: bool) -> Statement:
    return Statement(
        select(*_COLUMNS)
        .where(*_conditions(filters, live))
        .order_by(sessions.c.id if descending else sessions.c.id.desc())
        .limit(bindparam("limit"))
        .offset(bindparam("skip"))
    )


@cache
def _counting(filters: frozenset[str], live: bool | None) -> Statement:
    return Statement(select(func.count()).select_from(sessions).where(*_conditions(filters, live)))


class SQLSessions:
    """``ports.Sessions`` on a connection.

    Args:
        rows: executes its statements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, session: Session) -> Session:
        row = self._rows.first(_ADD, **_values(session))
        assert row is not None
        return replace(session, id=row[0])

    def get(self, session_id: int) -> Session | None:
        row = self._rows.first(_GET, id=session_id)
        return None if row is None else _session(row)

    def save(self, session: Session, story: StoryEntry | None = None) -> None:
        if not self._rows.run(_SAVE, key=session.id, **_values(session)):
            raise NotFound("The session does not exist")
        if story is not None:
            self._rows.run(
                _TELL,
                session_id=session.id,
                at=story.at,
                kind=story.kind,
                reason=story.reason,
                detail=story.detail,
            )

    def save_positions(self, positions: Sequence[tuple[int, int, Mapping[Topic, int]]]) -> None:
        # In the order of their ids, so that two nodes that save at once do not wait for each other.
        self._rows.many(
            _SAVE_POSITIONS,
            [
                {"key": key, "of_generation": generation, "positions": dict(seen)}
                for key, generation, seen in sorted(positions, key=lambda row: row[0])
            ],
        )

    def story(self, session_id: int) -> Sequence[StoryEntry]:
        return [StoryEntry(*row) for row in self._rows.all(_STORY, session_id=session_id)]

    def live_of(self, user_id: int) -> Sequence[Session]:
        return [_session(row) for row in self._rows.all(_LIVE_OF, user_id=user_id)]

    def list(self, where: SessionFilter, page: PageRequest) -> Page[Session]:
        values = {
            name: wanted
            for name, wanted in (
                ("application_id", where.application_id),
                ("user_name", where.user_name),
                ("state", where.state),
            )
            if wanted is not None
        }
        filters = frozenset(values)
        rows = self._rows.all(
            _listing(filters, where.live, page.descending), **values, limit=page.size, skip=page.offset
        )
        total = self._rows.first(_counting(filters, where.live), **values)
        assert total is not None
        return Page([_session(row) for row in rows], total[0], page)

    def due(self, now: datetime, limit: int) -> Sequence[Session]:
        return [_session(row[:-1]) for row in self._rows.all(_DUE, now=now, limit=limit)]

    def active_nodes(self) -> Sequence[str]:
        return [row[0] for row in self._rows.all(_ACTIVE_NODES)]

    def active_on(self, node: str, limit: int) -> Sequence[Session]:
        return [_session(row) for row in self._rows.all(_ACTIVE_ON, node=node, limit=limit)]

    def active_ids_on(self, node: str) -> Sequence[int]:
        return [row[0] for row in self._rows.all(_IDS_ON, node=node)]

    def forget(self, before: datetime, limit: int) -> int:
        return self._rows.run(_FORGET, before=before, limit=limit)


def _session(row: Row) -> Session:
    key, application_id, user_id, user_name, protocol, agent, address, secure, *rest = row
    return Session(key, application_id, user_id, user_name, Client(protocol, agent, address, secure), *rest)


def _values(session: Session) -> dict[str, object]:
    client = session.client
    return {
        "application_id": session.application_id,
        "user_id": session.user_id,
        "user_name": session.user_name,
        "protocol": client.protocol,
        "agent": client.agent,
        "address": client.address,
        "secure": client.secure,
        "authentication": session.authentication,
        "state": session.state,
        "generation": session.generation,
        "node": session.node,
        "started_at": session.started_at,
        "connected_at": session.connected_at,
        "suspended_at": session.suspended_at,
        "leave_at": session.leave_at,
        "resumable_until": session.resumable_until,
        "ended_at": session.ended_at,
        "end_reason": session.end_reason,
        "resumes": session.resumes,
        "positions": dict(session.positions),
        "epoch": session.epoch,
        "expires_at": session.expires_at,
        "announces": session.announces,
    }
