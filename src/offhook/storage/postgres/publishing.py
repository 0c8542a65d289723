"""The journal's writing side on PostgreSQL: what a unit of work publishes gets its offsets right before the commit.

To give an event its offset is to hold the topic's row until the commit, and an application's topic is every node's. So
events are kept until the work is done and then stored by one statement, topics in an order that is everybody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from offhook.domain.events import Event, Origin, Position, Topic
from offhook.errors import InvalidInput
from offhook.ports import Clock, Publication
from offhook.storage.event_codec import encode
from offhook.storage.postgres.rows import PostgresRows
from offhook.storage.types import microseconds

HEAD = "SELECT head FROM topics WHERE topic = $1::varchar"
_APPEND_ONE = """
WITH advanced AS (
    INSERT INTO topics AS t (topic, head) VALUES ($1::varchar, 1)
    ON CONFLICT (topic) DO UPDATE SET head = t.head + 1
    RETURNING head
)
INSERT INTO journal (topic, "offset", event, created_at) SELECT $1::varchar, head, $2::bytea, $3::bigint FROM advanced
RETURNING topic, "offset", pg_current_xact_id()::text"""
_APPEND = """
WITH given AS (
    SELECT * FROM unnest($1::varchar[], $2::bytea[]) WITH ORDINALITY AS g (topic, event, place)
), advanced AS (
    INSERT INTO topics AS t (topic, head) SELECT topic, count(*) FROM given GROUP BY topic ORDER BY topic
    ON CONFLICT (topic) DO UPDATE SET head = t.head + excluded.head
    RETURNING topic, head
), stored AS (
    INSERT INTO journal (topic, "offset", event, created_at)
    SELECT topic,
        head - count(*) OVER (PARTITION BY topic) + row_number() OVER (PARTITION BY topic ORDER BY place),
        event, $3::bigint
    FROM given JOIN advanced USING (topic) ORDER BY place
)
SELECT topic, head, pg_current_xact_id()::text FROM advanced"""
_CLOSE = """
INSERT INTO topics AS t (topic, head, closed_at) SELECT unnest($1::varchar[]), 0, $2::bigint
ON CONFLICT (topic) DO UPDATE SET closed_at = excluded.closed_at WHERE t.head > 0"""
DROP_ENTRIES = "DELETE FROM journal WHERE topic = ANY($1::varchar[])"
_DROP_TOPICS = "DELETE FROM topics WHERE topic = ANY($1::varchar[])"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What nobody but one unit of work can have stored.

    Attributes:
        topic: of one of its events.
        offset: the event's.
        encoded: the event.
        stored_at: when it was stored, in microseconds since 1970.
    """

    topic: Topic
    offset: int
    encoded: bytes
    stored_at: int


@dataclass(slots=True)
class _Entry:
    """An event on its way.

    Attributes:
        topic: where it goes.
        event: what it is.
        origin: the request that caused it.
        encoded: how it is stored.
        offset: its place; 0 until it has one.
    """

    topic: Topic
    event: Event
    origin: Origin | None
    encoded: bytes
    offset: int = 0


class Publisher:
    """What one unit of work after another publishes on a connection.

    Args:
        rows: the connection.
        epoch: names the journal's history.
        clock: tells when an event was stored.
    """

    __slots__ = ("_clock", "_closed", "_entries", "_epoch", "_rows", "receipt")

    def __init__(self, rows: PostgresRows, epoch: str, clock: Clock) -> None:
        self._rows = rows
        self._epoch = epoch
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forgets what was published before."""
        self._entries: list[_Entry] = []
        self._closed: list[Topic] = []
        self.receipt: Receipt | None = None

    def publish(self, topic: Topic, event: Event, origin: Origin | None) -> None:
        try:
            encoded = encode(event)
        except UnicodeEncodeError as error:
            raise InvalidInput("A text is not valid Unicode") from error
        self._entries.append(_Entry(topic, event, origin, encoded))

    def head(self, topic: Topic) -> Position:
        own = [entry for entry in self._entries if entry.topic == topic and not entry.offset]
        if own and not topic.startswith("application."):
            self._store(own)
        records = self._rows.fetch(HEAD, topic)
        return Position(self._epoch, records[0][0] if records else 0)

    def drop(self, gone: Iterable[Topic]) -> None:
        topics = frozenset(gone)
        self._entries = [entry for entry in self._entries if entry.topic not in topics]
        ordered = sorted(topics)
        self._rows.fetch(DROP_ENTRIES, ordered, writes=True)
        self._rows.fetch(_DROP_TOPICS, ordered, writes=True)

    def close(self, topic: Topic) -> None:
        self._closed.append(topic)

    def flush(self) -> None:
        """Stores what was published; the commit comes next."""
        waiting = [entry for entry in self._entries if not entry.offset]
        if waiting:
            self._store(waiting)
        if self._closed:
            self._rows.fetch(_CLOSE, sorted(set(self._closed)), microseconds(self._clock.now()), writes=True)

    @property
    def topics(self) -> frozenset[Topic]:
        """Where was published."""
        return frozenset([entry.topic for entry in self._entries])

    def publications(self) -> Sequence[Publication]:
        """What was stored, in the order in which it was published."""
        epoch = self._epoch
        return [
            Publication(entry.topic, Position(epoch, entry.offset), entry.event, entry.origin)
            for entry in self._entries
        ]

    def _store(self, entries: Sequence[_Entry]) -> None:
        now = microseconds(self._clock.now())
        if len(entries) == 1:
            sql, parameters = _APPEND_ONE, (entries[0].topic, entries[0].encoded, now)
            records = self._rows.fetch(sql, *parameters, writes=True)
        else:
            topics, events = [entry.topic for entry in entries], [entry.encoded for entry in entries]
            records = self._rows.fetch(_APPEND, topics, events, now, writes=True)
        heads = {record[0]: record[1] for record in records}
        self._rows.xid = records[0][2]
        for entry in reversed(entries):
            entry.offset = heads[entry.topic]
            heads[entry.topic] -= 1
        last = entries[-1]
        self.receipt = Receipt(last.topic, last.offset, last.encoded, now)
