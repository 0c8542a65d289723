"""Whether what a database holds is as it should be."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, exists, func, or_, select, text, true

from offhook.domain.sessions import SessionState
from offhook.storage.files import file_faults
from offhook.storage.migrate import REVISION, stored_revision
from offhook.storage.places import Place, at, opened
from offhook.storage.sides import last_given
from offhook.storage.tables import journal, metadata, sessions, topics, users

SHOWN = 20
"""Faults of one kind that are named; of the others only the number is told."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it should be.

    Attributes:
        check: what was looked at.
        text: what was found, in one sentence.
    """

    check: str
    text: str


@dataclass(frozen=True, slots=True)
class Checked:
    """What a look at a database found.

    Attributes:
        revision: of its schema; None if it is empty.
        checks: what was looked at.
        faults: what is not as it should be.
    """

    revision: str | None
    checks: tuple[str, ...]
    faults: tuple[Fault, ...]


async def check_database(place: Place) -> Checked:
    """Looks at all of a database, as it is at one moment. Servers may use it meanwhile.

    Raises:
        Unavailable: it cannot be opened or read.
        IncompatibleDatabase: it belongs to something else.
    """
    return await at(lambda: _check(place))


def _check(place: Place) -> Checked:
    with opened(place) as connection:
        revision = stored_revision(connection)
        if revision != REVISION:
            how = "empty" if revision is None else f"of version {revision}"
            fault = Fault("schema", f"The database is {how}, this program of {REVISION}; see offhook db upgrade")
            return Checked(revision, ("schema",), (fault,))
        looks = {
            "damage": damage,
            "journal": journal_faults,
            "presence": presence_faults,
            "pictures": file_faults,
            "references": orphans,
            "sequences": sequence_faults,
        }
        found = [Fault(name, told) for name, look in looks.items() for told in bounded(look(connection))]
        return Checked(revision, ("schema", *looks), tuple(found))


def bounded(faults: Iterable[str]) -> Iterator[str]:
    """Faults of one kind, as many as are named."""
    more = 0
    for number, fault in enumerate(faults):
        if number < SHOWN:
            yield fault
        else:
            more += 1
    if more:
        yield f"There are {more} more."


def damage(connection: Connection) -> Iterator[str]:
    """Pages that cannot be what SQLite wrote. PostgreSQL notices damage by itself when it reads."""
    if connection.dialect.name == "sqlite":
        for row in connection.execute(text(f"PRAGMA quick_check({SHOWN})")):
            if row[0] != "ok":
                yield f"The file is damaged: {row[0]}."


def journal_faults(connection: Connection) -> Iterator[str]:
    """Topics whose kept events are not all there, from the oldest to the topic's head."""
    lowest, highest, count = func.min(journal.c.offset), func.max(journal.c.offset), func.count()
    kept = (
        select(journal.c.topic, lowest.label("lowest"), highest.label("highest"), count.label("count"))
        .group_by(journal.c.topic)
        .subquery()
    )
    faulty = (
        select(kept.c.topic, kept.c.lowest, kept.c.highest, kept.c.count, topics.c.head)
        .outerjoin(topics, topics.c.topic == kept.c.topic)
        .where(
            or_(
                topics.c.head.is_(None),
                topics.c.head != kept.c.highest,
                kept.c.count != kept.c.highest - kept.c.lowest + 1,
            )
        )
        .order_by(kept.c.topic)
    )
    for topic, first, last, number, head in connection.execute(faulty):
        if number != last - first + 1:
            yield f"Topic {topic} keeps {number} events between the offsets {first} and {last}."
        if head is None:
            yield f"Topic {topic} keeps events up to {last}, and is not known."
        elif head != last:
            yield f"Topic {topic} keeps events up to {last}, and its last one is said to be {head}."


def presence_faults(connection: Connection) -> Iterator[str]:
    """Users whose presence is not what their sessions say."""
    announcing = and_(sessions.c.user_id == users.c.id, sessions.c.announces.is_(true()))
    active = exists().where(announcing, sessions.c.state == SessionState.ACTIVE)
    # Those whose time to leave has come are online until a server has said that they are not.
    staying = exists().where(
        announcing,
        or_(
            sessions.c.state == SessionState.ACTIVE,
            and_(sessions.c.state != SessionState.ENDED, sessions.c.leave_at.is_not(None)),
        ),
    )
    columns = select(users.c.id, users.c.name).order_by(users.c.id)
    for key, name in connection.execute(columns.where(users.c.online.is_(true()), ~staying)):
        yield f"User {key} ({name}) is stored as online, and has no session that says so."
    for key, name in connection.execute(columns.where(users.c.online.is_(False), active)):
        yield f"User {key} ({name}) is stored as offline, and has an active session."


def orphans(connection: Connection) -> Iterator[str]:
    """Rows that refer to what is not there."""
    for table in metadata.sorted_tables:
        for constraint in sorted(table.foreign_key_constraints, key=lambda each: str(each.column_keys)):
            yield from _orphans(connection, table, constraint.column_keys[0], constraint.elements[0].column.table)


def _orphans(connection: Connection, table: Table, name: str, other: Table) -> Iterator[str]:
    (key,) = other.primary_key.columns
    column = table.c[name]
    there = exists(select(1).where(key == column))
    lost = select(column, func.count()).where(column.is_not(None), ~there).group_by(column).order_by(column)
    for value, number in connection.execute(lost):
        yield f"{number} rows of {table.name} refer by {name} to {other.name} {value}, which is not there."


def sequence_faults(connection: Connection) -> Iterator[str]:
    """Tables that would give out an id a second time, as after a restore of rows alone."""
    if connection.dialect.name == "sqlite":
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        highest = connection.execute(select(func.max(column))).scalar() or 0
        given = last_given(connection, table, column)
        if given < highest:
            yield f"Table {table.name} has ids up to {highest}, and its sequence is at {given}."
