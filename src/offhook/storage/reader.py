"""The readers: each a thread with its own connection, which sees a snapshot and cannot write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import structlog

from offhook.storage.history import History
from offhook.storage.sqlite_rows import SQLiteRows
from offhook.storage.transaction import SQLTransaction
from offhook.storage.worker import Batch, Unit, failure

log = structlog.get_logger(__name__)


class Reader:
    """Works on the database for one thread.

    Args:
        connect: opens the connection; called in the reader's thread, and again after the connection broke.
        epoch: names the journal's history.
    """

    most = 32

    def __init__(self, connect: Callable[[], sqlite3.Connection], epoch: str) -> None:
        self._connect = connect
        self._epoch = epoch
        self._open: tuple[sqlite3.Connection, SQLTransaction] | None = None

    def perform(self, units: Sequence[Unit]) -> Batch:
        try:
            connection, tx = self._opened()
            # One snapshot serves all: it is taken after the last of them was handed over.
            connection.execute("BEGIN")
            for unit in units:
                self._perform(unit, tx)
            connection.execute("COMMIT")
        except Exception as error:
            self._give_up()
            told = failure(error)
            for unit in units:
                unit.result, unit.error = None, unit.error or told
        return Batch(units)

    def _perform(self, unit: Unit, tx: SQLTransaction) -> None:
        try:
            unit.result = unit.work(tx)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname == "SQLITE_READONLY":
                unit.error = RuntimeError("a query must only read")
            else:
                unit.error = failure(error)
        except BaseException as error:
            unit.error = failure(error)

    def _opened(self) -> tuple[sqlite3.Connection, SQLTransaction]:
        if self._open is None:
            connection = self._connect()
            rows = SQLiteRows(connection)
            self._open = connection, SQLTransaction(rows, History(rows, self._epoch), self._epoch)
        return self._open

    def _give_up(self) -> None:
        if self._open is not None:
            connection = self._open[0]
            self._open = None
            connection.close()

    def keep_house(self) -> None:
        """There is nothing to do."""

    def close(self) -> None:
        self._give_up()
