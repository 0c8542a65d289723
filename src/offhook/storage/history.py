"""The journal's reading side, and the leases: what the in-process broker keeps in the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from sqlalchemy import String, bindparam, delete, func, insert, or_, select, update

from offhook.domain.events import Event, Origin, Position, Topic
from offhook.ports import HistoryLost
from offhook.storage.event_codec import UnknownEvent, decode
from offhook.storage.journal import HEAD
from offhook.storage.statements import Rows, Statement, UniqueViolation
from offhook.storage.tables import journal, leases

_topic = bindparam("key", type_=String)
_READ = Statement(
    select(journal.c.offset, journal.c.event)
    .where(journal.c.topic == _topic, journal.c.offset > bindparam("after"))
    .order_by(journal.c.offset)
    .limit(bindparam("limit"))
)
_OLDEST = Statement(select(func.min(journal.c.offset)).where(journal.c.topic == _topic))

_now = bindparam("now", type_=leases.c.expires_at.type)
_until = bindparam("until", type_=leases.c.expires_at.type)
_holder = bindparam("by", type_=String)
_RENEW = Statement(
    update(leases)
    .where(leases.c.name == _topic, or_(leases.c.holder == _holder, leases.c.expires_at <= _now))
    .values(holder=_holder, expires_at=_until)
)
_TAKE = Statement(insert(leases).values(name=_topic, holder=_holder, expires_at=_until))
_RELEASE = Statement(delete(leases).where(leases.c.name == _topic, leases.c.holder == _holder))
_HOLDER = Statement(select(leases.c.holder).where(leases.c.name == _topic, leases.c.expires_at > _now))


@dataclass(frozen=True, slots=True)
class Recorded:
    """Part of a topic's history, on one snapshot.

    Attributes:
        head: offset of the topic's last event; 0 if it has none.
        oldest: offset of the oldest event that is kept; ``head + 1`` if none is.
        events: offsets and events, oldest first, without gaps.
    """

    head: int
    oldest: int
    events: tuple[tuple[int, Event], ...]


class History:
    """Reads the journal on a connection.

    Args:
        rows: executes its statements.
        epoch: names the journal's history.
    """

    __slots__ = ("_epoch", "_rows")

    def __init__(self, rows: Rows, epoch: str) -> None:
        self._rows = rows
        self._epoch = epoch

    def offset(self, topic: Topic) -> int:
        """The topic's last offset, 0 if it has none."""
        row = self._rows.first(HEAD, key=topic)
        return 0 if row is None else int(row[0])

    def head(self, topic: Topic) -> Position:
        """The topic's last position."""
        return Position(self._epoch, self.offset(topic))

    def oldest(self, topic: Topic) -> int:
        """The offset of the oldest event that is kept, or one beyond the last."""
        row = self._rows.first(_OLDEST, key=topic)
        return self.offset(topic) + 1 if row is None or row[0] is None else int(row[0])

    def read(self, topic: Topic, after: int, limit: int) -> Recorded:
        """At most ``limit`` events after an offset, and the bounds of what there is."""
        rows = self._rows.all(_READ, key=topic, after=after, limit=limit)
        try:
            events = tuple((int(row[0]), decode(row[1])) for row in rows)
        except UnknownEvent as error:
            # Stored by a newer version: what cannot be read cannot be delivered, and must not be passed over.
            raise HistoryLost(str(error)) from error
        return Recorded(self.offset(topic), self.oldest(topic), events)

    def publish(self, topic: Topic, event: Event, origin: Origin | None) -> NoReturn:
        raise RuntimeError("a query must only read")

    def drop(self, gone: object) -> NoReturn:
        raise RuntimeError("a query must only read")

    def close(self, topic: Topic) -> NoReturn:
        raise RuntimeError("a query must only read")


class Leases:
    """Claims with an expiry, on a connection.

    Args:
        rows: executes its statements.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def acquire(self, name: str, holder: str, now: datetime, until: datetime) -> bool:
        """Takes or renews a lease. Returns False, changing nothing, while another holds it."""
        if self._rows.run(_RENEW, key=name, by=holder, now=now, until=until):
            return True
        try:
            self._rows.run(_TAKE, key=name, by=holder, until=until)
        except UniqueViolation:
            return False
        return True

    def release(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""
        self._rows.run(_RELEASE, key=name, by=holder)

    def holder(self, name: str, now: datetime) -> str | None:
        """Who holds the lease now."""
        row = self._rows.first(_HOLDER, key=name, now=now)
        return None if row is None else str(row[0])
