"""The PostgreSQL store under contract."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.contract.systems import ManualClock, OnCommit, StoreEngine
from tests.databases import apart, execute, make_database, remove_database

from offhook.storage.postgres import PostgresStore


class StoredClock(ManualClock):
    """A clock that takes with it what runs by the database's own: leases run out the sooner.

    Args:
        url: the database.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def advance(self, seconds: float) -> None:
        super().advance(seconds)
        sql = "UPDATE leases SET expires_at = expires_at - $1::bigint"
        apart(execute(sql, round(seconds * 1_000_000), url=self._url))


class PostgresEngine(StoreEngine):
    """The PostgreSQL store and the in-process broker.

    Args:
        url: the database; a new one unless given.
    """

    def __init__(self, url: str | None = None) -> None:
        self.url = url or make_database()
        self.clock: ManualClock = StoredClock(self.url)

    async def store(self, on_commit: OnCommit, history_size: int, history_seconds: float) -> PostgresStore:
        return await PostgresStore.open(
            self.url, on_commit, history_size=history_size, history_seconds=history_seconds, clock=self.clock
        )

    def child(self) -> Sequence[str]:
        return [sys.executable, str(Path(__file__).with_name("child.py")), "postgresql", self.url]

    def remove(self) -> None:
        remove_database(self.url)
