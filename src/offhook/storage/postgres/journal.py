"""The journal's reading side on PostgreSQL, and the leases: what a broker keeps in the database."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from offhook.domain.events import Topic
from offhook.ports import HistoryLost
from offhook.storage.event_codec import UnknownEvent, decode
from offhook.storage.history import Recorded
from offhook.storage.postgres.performer import Performer
from offhook.storage.postgres.pool import Link
from offhook.storage.postgres.publishing import HEAD
from offhook.storage.statements import Row

T = TypeVar("T")

_HEADS = "SELECT topic, head FROM topics WHERE topic = ANY($1::varchar[])"

# All of one moment, because it is one statement.
_READ = """
SELECT bounds.head, bounds.oldest, found."offset", found.event
FROM (
    SELECT (SELECT head FROM topics WHERE topic = $1::varchar) AS head,
        (SELECT min("offset") FROM journal WHERE topic = $1::varchar) AS oldest
) AS bounds
LEFT JOIN LATERAL (
    SELECT "offset", event FROM journal WHERE topic = $1::varchar AND "offset" > $2::bigint
    ORDER BY "offset" LIMIT $3::bigint
) AS found ON true
ORDER BY found."offset\""""

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_ACQUIRE = f"""
INSERT INTO leases AS held (name, holder, expires_at) VALUES ($1::varchar, $2::varchar, {_NOW} + $3::bigint)
ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
WHERE held.holder = excluded.holder OR held.expires_at <= {_NOW}
RETURNING name"""  # noqa: S608
_RELEASE = "DELETE FROM leases WHERE name = $1::varchar AND holder = $2::varchar"
_HOLDER = f"SELECT holder FROM leases WHERE name = $1::varchar AND expires_at > {_NOW}"  # noqa: S608


class PostgresJournal:
    """What a broker keeps in the store's database; ``broker.journal.Journal``.

    Leases run by the database's clock, so that no node's clock matters.

    Args:
        performer: executes the statements.
        epoch: tells the name of the history as it is now.
    """

    def __init__(self, performer: Performer, epoch: Callable[[], str]) -> None:
        self._performer = performer
        self._epoch = epoch

    @property
    def epoch(self) -> str:
        """Names the history."""
        return self._epoch()

    def newest(self, topic: Topic) -> int | None:
        """Never known without looking: other nodes publish, too."""
        return None

    async def head(self, topic: Topic) -> int:
        """Offset of the topic's last event, 0 if it has none."""
        records = await self._fetch(HEAD, topic)
        return int(records[0][0]) if records else 0

    async def heads(self, topics: Sequence[Topic]) -> Mapping[Topic, int]:
        """Offsets of the last events of many topics; 0 for those that have none."""
        found: dict[Topic, int] = dict.fromkeys(topics, 0)
        found.update((record[0], record[1]) for record in await self._fetch(_HEADS, list(topics)))
        return found

    async def oldest(self, topic: Topic) -> int:
        """Offset of the oldest event that is kept, or one beyond the last."""
        return (await self.read(topic, 0, 0)).oldest

    async def read(self, topic: Topic, after: int, limit: int) -> Recorded:
        """At most ``limit`` events after an offset, and the bounds of what there is."""
        records = await self._fetch(_READ, topic, after, limit)
        head = int(records[0][0] or 0)
        oldest = head + 1 if records[0][1] is None else int(records[0][1])
        try:
            events = tuple((int(record[2]), decode(record[3])) for record in records if record[2] is not None)
        except UnknownEvent as error:
            # Stored by a newer version: what cannot be read cannot be delivered, and must not be passed over.
            raise HistoryLost(str(error)) from error
        return Recorded(head, oldest, events)

    async def acquire_lease(self, name: str, holder: str, ttl: float) -> bool:
        """Takes or renews a lease for ``ttl`` seconds. Returns False, changing nothing, while another holds it."""
        return bool(await self._fetch(_ACQUIRE, name, holder, round(ttl * 1_000_000)))

    async def release_lease(self, name: str, holder: str) -> None:
        """Gives a lease back, if ``holder`` has it."""
        await self._fetch(_RELEASE, name, holder)

    async def lease_holder(self, name: str) -> str | None:
        """Who holds the lease now."""
        records = await self._fetch(_HOLDER, name)
        return str(records[0][0]) if records else None

    async def _fetch(self, sql: str, *parameters: object) -> Sequence[Row]:
        async def fetch(link: Link) -> Sequence[Row]:
            return await link.connection.fetch(sql, *parameters)

        return await self._performer.fetch(fetch)
