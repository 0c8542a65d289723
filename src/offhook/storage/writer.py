"""The writer: one thread, one connection, and one commit for all the work that has gathered (group commit)."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

import structlog

from offhook.domain.events import Topic
from offhook.ports import Clock
from offhook.storage.journal import JournalWriter
from offhook.storage.sqlite_rows import SQLiteRows
from offhook.storage.transaction import SQLTransaction
from offhook.storage.worker import HOUSEKEEPING_EVERY, Batch, Unit, failure

log = structlog.get_logger(__name__)


class Writer:
    """Works on the database for one thread.

    Each unit of work runs in a savepoint of the batch's transaction, so that a unit that fails takes back its own
    changes and no other's. A unit's outcome is told only after the commit.

    Args:
        connect: opens the connection; called in the writer's thread, and again after the connection broke.
        epoch: names the journal's history.
        clock: tells when an event was stored.
        history_size: events to keep of each topic.
        history_seconds: how long to keep them.
    """

    most = 512

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        epoch: str,
        clock: Clock,
        history_size: int,
        history_seconds: float,
    ) -> None:
        self._connect = connect
        self._journal_settings = (epoch, clock, history_size, history_seconds)
        self._epoch = epoch
        self._open: tuple[sqlite3.Connection, JournalWriter, SQLTransaction] | None = None
        self._pruned = time.monotonic()

    def newest(self, topic: Topic) -> int | None:
        """The last offset of a topic, if it is in memory. Of all methods this one may be called in any thread."""
        opened = self._open
        return None if opened is None else opened[1].newest(topic)

    def perform(self, units: Sequence[Unit]) -> Batch:
        try:
            connection, journal, tx = self._opened()
            connection.execute("BEGIN IMMEDIATE")
            for unit in units:
                self._perform(unit, connection, journal, tx)
            journal.flush()
            began = time.perf_counter()
            connection.execute("COMMIT")
            return Batch(units, journal.committed(), time.perf_counter() - began)
        except Exception as error:
            self._recover()
            told = failure(error)
            log.error("commit_failed", units=len(units), error=str(error))
            for unit in units:
                unit.result, unit.error = None, unit.error or told
            return Batch(units)

    def _perform(self, unit: Unit, connection: sqlite3.Connection, journal: JournalWriter, tx: SQLTransaction) -> None:
        mark = journal.mark()
        connection.execute("SAVEPOINT unit")
        try:
            unit.result = unit.work(tx)
        except BaseException as error:
            if not connection.in_transaction:  # The failure was grave enough for SQLite to end the transaction.
                raise sqlite3.OperationalError(f"the transaction was lost: {error}") from error
            connection.execute("ROLLBACK TO unit")
            journal.rewind(mark)
            unit.error = failure(error)
        connection.execute("RELEASE unit")

    def _opened(self) -> tuple[sqlite3.Connection, JournalWriter, SQLTransaction]:
        if self._open is None:
            connection = self._connect()
            rows = SQLiteRows(connection)
            epoch, clock, size, seconds = self._journal_settings
            journal = JournalWriter(rows, epoch, clock, size, seconds)
            self._open = connection, journal, SQLTransaction(rows, journal, self._epoch)
        return self._open

    def _recover(self) -> None:
        """Takes the batch back; a connection that cannot even do that is given up."""
        if self._open is None:
            return
        connection, journal, _ = self._open
        journal.rolled_back()
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            connection.execute("SELECT 1 FROM meta LIMIT 1")
        except sqlite3.Error:
            log.exception("connection_given_up")
            self._open = None
            connection.close()

    def keep_house(self) -> None:
        """Prunes the journal when enough was published or time has passed."""
        if self._open is None:
            return
        connection, journal, _ = self._open
        if not journal.prunable and time.monotonic() - self._pruned < HOUSEKEEPING_EVERY:
            return
        self._pruned = time.monotonic()
        try:
            connection.execute("BEGIN IMMEDIATE")
            journal.prune()
            connection.execute("COMMIT")
        except Exception:
            log.exception("prune_failed")
            self._recover()

    def close(self) -> None:
        if self._open is None:
            return
        connection = self._open[0]
        self._open = None
        try:
            connection.execute("PRAGMA optimize")
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            log.exception("close_failed")
        finally:
            connection.close()
