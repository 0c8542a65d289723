"""The journal: what was published, per topic, in the order of the commits.

The single writer keeps the heads of the topics in memory and stores what a batch published in a few bulk statements
just before the commit. Until then all of it can be taken back, as far as any mark.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from sqlalchemy import String, bindparam, delete, func, insert, select, update

from offhook.domain.events import Event, Origin, Position, Topic
from offhook.errors import InvalidInput
from offhook.ports import Clock, Publication
from offhook.storage.event_codec import encode
from offhook.storage.statements import Rows, Statement
from offhook.storage.tables import journal, topics

MAX_HEADS = 100_000
"""Topics whose head is kept in memory."""
PRUNE_LIMIT = 2000
"""Entries deleted for one topic, or for their age, at one time."""

_topic = bindparam("key", type_=String)
HEAD = Statement(select(topics.c.head).where(topics.c.topic == _topic))
_APPEND = Statement(
    insert(journal).values(
        {column.name: bindparam(column.name, type_=column.type) for column in journal.c if column.name != "id"}
    )
)
_NEW_TOPIC = Statement(insert(topics).values(topic=_topic, head=bindparam("new_head")))
_ADVANCE = Statement(update(topics).where(topics.c.topic == _topic).values(head=bindparam("new_head")))
_CLOSE = Statement(update(topics).where(topics.c.topic == _topic).values(closed_at=bindparam("at")))
_DROP_ENTRIES = Statement(delete(journal).where(journal.c.topic == _topic))
_DROP_TOPIC = Statement(delete(topics).where(topics.c.topic == _topic))

_SHORTEN = Statement(
    delete(journal).where(
        journal.c.id.in_(
            select(journal.c.id)
            .where(journal.c.topic == _topic, journal.c.offset <= bindparam("last"))
            .order_by(journal.c.offset)
            .limit(PRUNE_LIMIT)
        )
    )
)
_oldest = select(journal.c.id, journal.c.created_at).order_by(journal.c.id).limit(PRUNE_LIMIT).subquery()
# All up to the last one that is too old, so that a clock that was set back leaves no hole in a history.
_FORGET = Statement(
    delete(journal).where(
        journal.c.id
        <= select(func.max(_oldest.c.id))
        .where(_oldest.c.created_at < bindparam("before", type_=journal.c.created_at.type))
        .scalar_subquery()
    )
)
_CLOSED = Statement(select(topics.c.topic).where(topics.c.closed_at < bindparam("before")).limit(PRUNE_LIMIT))


class Topics(Protocol):
    """What the repositories tell the journal, and a transaction asks of it."""

    def publish(self, topic: Topic, event: Event, origin: Origin | None) -> None: ...
    def head(self, topic: Topic) -> Position: ...
    def drop(self, gone: Iterable[Topic]) -> None:
        """The topics and all their events are to vanish."""

    def close(self, topic: Topic) -> None:
        """Nothing more will be published; the topic vanishes with its last event."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a batch, to which its publishing can be taken back."""

    publications: int
    drops: int
    closed: int
    undo: int


class JournalWriter:
    """The journal's writing side; lives in the writer's thread.

    Args:
        rows: executes its statements.
        epoch: names the journal's history.
        clock: tells when an event was stored.
        size: events to keep of each topic.
        seconds: how long to keep them.
    """

    def __init__(self, rows: Rows, epoch: str, clock: Clock, size: int, seconds: float) -> None:
        self._rows = rows
        self._epoch = epoch
        self._clock = clock
        self._size = size
        self._age = timedelta(seconds=seconds)
        self._prune_every = max(1, min(1000, size // 4))
        self._heads: dict[Topic, int] = {}
        self._grown: dict[Topic, int] = {}
        self._unpruned = 0
        self._begin()

    def _begin(self) -> None:
        self._publications: list[Publication] = []
        self._encoded: list[bytes] = []
        self._pending: dict[Topic, int] = {}
        self._undo: list[tuple[Topic, int | None]] = []
        self._drops: list[tuple[int, frozenset[Topic]]] = []
        self._closed: list[Topic] = []

    # --- within a unit of work

    def publish(self, topic: Topic, event: Event, origin: Origin | None) -> None:
        try:
            encoded = encode(event)
        except UnicodeEncodeError as error:
            raise InvalidInput("A text is not valid Unicode") from error
        position = Position(self._epoch, self._head(topic) + 1)
        self._set_head(topic, position.offset)
        self._publications.append(Publication(topic, position, event, origin))
        self._encoded.append(encoded)

    def head(self, topic: Topic) -> Position:
        return Position(self._epoch, self._head(topic))

    def drop(self, gone: Iterable[Topic]) -> None:
        dropped = frozenset(gone)
        for topic in dropped:
            self._set_head(topic, 0)
        self._drops.append((len(self._publications), dropped))

    def close(self, topic: Topic) -> None:
        self._closed.append(topic)

    def _head(self, topic: Topic) -> int:
        offset = self._pending.get(topic)
        if offset is None:
            offset = self._heads.get(topic)
        if offset is None:
            row = self._rows.first(HEAD, key=topic)
            offset = self._heads[topic] = 0 if row is None else int(row[0])
        return offset

    def newest(self, topic: Topic) -> int | None:
        """The topic's last offset, if it is in memory; it may not be committed yet. For any thread."""
        offset = self._pending.get(topic)
        return self._heads.get(topic) if offset is None else offset

    def _set_head(self, topic: Topic, offset: int) -> None:
        self._undo.append((topic, self._pending.get(topic)))
        self._pending[topic] = offset

    # --- around units of work

    def mark(self) -> Mark:
        """This moment, for ``rewind``."""
        return Mark(len(self._publications), len(self._drops), len(self._closed), len(self._undo))

    def rewind(self, mark: Mark) -> None:
        """Takes back all that was published since the mark."""
        for topic, offset in reversed(self._undo[mark.undo :]):
            if offset is None:
                del self._pending[topic]
            else:
                self._pending[topic] = offset
        del self._undo[mark.undo :]
        del self._publications[mark.publications :]
        del self._encoded[mark.publications :]
        del self._drops[mark.drops :]
        del self._closed[mark.closed :]

    def flush(self) -> None:
        """Stores what was published; the commit comes next."""
        dropped = frozenset[Topic]().union(*(gone for _, gone in self._drops))
        if dropped:
            self._rows.many(_DROP_ENTRIES, [{"key": topic} for topic in dropped])
            self._rows.many(_DROP_TOPIC, [{"key": topic} for topic in dropped])
        if self._publications:
            now = self._clock.now()
            self._rows.many(
                _APPEND,
                [
                    {
                        "topic": publication.topic,
                        "offset": publication.position.offset,
                        "event": encoded,
                        "created_at": now,
                    }
                    for index, (publication, encoded) in enumerate(zip(self._publications, self._encoded, strict=True))
                    if not any(index < before and publication.topic in gone for before, gone in self._drops)
                ],
            )
        new: list[dict[str, object]] = []
        known: list[dict[str, object]] = []
        for topic, offset in self._pending.items():
            if offset:
                values: dict[str, object] = {"key": topic, "new_head": offset}
                (known if topic not in dropped and self._heads.get(topic) else new).append(values)
        if new:
            self._rows.many(_NEW_TOPIC, new)
        if known:
            self._rows.many(_ADVANCE, known)
        if self._closed:
            now = self._clock.now()
            self._rows.many(_CLOSE, [{"key": topic, "at": now} for topic in self._closed])

    def committed(self) -> Sequence[Publication]:
        """What was flushed is durable. Returns what was published, in order."""
        publications = self._publications
        if len(self._heads) > MAX_HEADS:
            self._heads.clear()
        self._heads.update(self._pending)
        self._unpruned += len(publications)
        for topic, offset in self._pending.items():
            if offset > self._size:
                self._grown[topic] = offset
        self._begin()
        return publications

    def rolled_back(self) -> None:
        """Nothing of the batch was stored; what is known of the topics is read anew."""
        self._heads.clear()
        self._begin()

    # --- housekeeping

    @property
    def prunable(self) -> bool:
        """Whether enough was published for pruning to be due."""
        return self._unpruned >= self._prune_every

    def prune(self) -> None:
        """Deletes a bounded number of events that are beyond the size or age to be kept. Call in a transaction."""
        self._unpruned = 0
        grown, self._grown = self._grown, {}
        if grown:
            self._rows.many(_SHORTEN, [{"key": topic, "last": head - self._size} for topic, head in grown.items()])
        before = self._clock.now() - self._age
        if self._rows.run(_FORGET, before=before) == PRUNE_LIMIT:
            self._unpruned = self._prune_every
        closed: list[dict[str, object]] = [{"key": row[0]} for row in self._rows.all(_CLOSED, before=before)]
        if closed:
            self._rows.many(_DROP_ENTRIES, closed)
            self._rows.many(_DROP_TOPIC, closed)
            for values in closed:
                self._heads.pop(Topic(str(values["key"])), None)
