"""SQLite connections, set up for a server."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Literal

Durability = Literal["full", "normal"]
"""What survives what.

full: the log is flushed to the disk with every commit; what was acknowledged survives a power cut.
normal: it is flushed at checkpoints only; what was acknowledged survives the process's death, however it dies, but the
last of it may be lost when the machine dies. The database stays whole either way.
"""

BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process, e.g. the ``sqlite3`` shell, to end its write."""
CHECKPOINT_PAGES = 2000
"""Pages of 4 KB in the write-ahead log that start a checkpoint."""
MAX_IDLE_LOG = 64 * 1024 * 1024
"""Bytes to which the write-ahead log is cut after a checkpoint, should a long reader have made it grow."""


def make_private(path: Path) -> None:
    """Sees to it that a database that is yet to be made is its owner's alone, and so what SQLite puts beside it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def connect_writer(path: Path, durability: Durability) -> sqlite3.Connection:
    """The connection of the one writer, without transaction control of its own.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """
    return _connect(
        path,
        "PRAGMA journal_mode = WAL",
        f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"PRAGMA journal_size_limit = {MAX_IDLE_LOG}",
        "PRAGMA cache_size = -16384",
    )


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that refuses to write. Raises as ``connect_writer`` does."""
    return _connect(path, "PRAGMA query_only = ON", "PRAGMA cache_size = -4096")


def _connect(path: Path, *pragmas: str) -> sqlite3.Connection:
    # No memory mapping: with it an I/O error would kill the process instead of failing a statement.
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, cached_statements=256)
    try:
        connection.execute("PRAGMA temp_store = MEMORY")
        for pragma in pragmas:
            connection.execute(pragma)
    except BaseException:
        connection.close()
        raise
    return connection
