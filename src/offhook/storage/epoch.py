"""The journal's epoch, which names its history.

It stays as long as the database's past does. With durability "normal" a machine that dies may lose the last of what
was acknowledged; offsets that clients have seen would then be given out again, for other events. So a database that
was in use in that way when the machine died gets a new epoch, and clients are told to start over.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from offhook.storage.connection import Durability

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_EPOCH = "epoch"
_AT_RISK = "at_risk_in_boot"
_HISTORY = "history"
"""What PostgreSQL's databases have in its stead."""


def open_epoch(connection: sqlite3.Connection, durability: Durability) -> str:
    """The epoch to use from now on.

    Args:
        connection: a connection that commits durably.
        durability: how durable the coming commits will be.
    """
    boot = _boot()
    connection.execute("BEGIN IMMEDIATE")
    facts: dict[str, str] = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    epoch = facts.get(_EPOCH)
    if epoch is None or facts.get(_AT_RISK, boot) != boot:
        epoch = secrets.token_hex(8)
    _store(connection, _EPOCH, epoch)
    if durability == "full":
        connection.execute("DELETE FROM meta WHERE key = ?", (_AT_RISK,))
    else:
        _store(connection, _AT_RISK, boot)
    connection.execute("COMMIT")
    return epoch


def closed_cleanly(connection: sqlite3.Connection) -> None:
    """Everything is on the disk.

    Args:
        connection: a connection that commits durably, and with that all that was committed before.
    """
    connection.execute("DELETE FROM meta WHERE key = ?", (_AT_RISK,))


def facts_of_copy(facts: Mapping[str, str], server: str | None = None) -> dict[str, str]:
    """The facts of a database, as they are true of a copy of it.

    The epoch is the same, for the history is, unless the last of that may be lost: by a machine that died, or because
    the database was restored where it is. What is said of the machine or the server on which a history is kept is not
    for another.

    Args:
        facts: everything in ``meta``.
        server: where the database is, if on PostgreSQL: which server, and on which timeline.
    """
    kept = {key: value for key, value in facts.items() if key not in (_AT_RISK, _HISTORY)}
    restored = server is not None and facts.get(_HISTORY) != server
    if restored or facts.get(_AT_RISK, boot := _boot()) != boot:
        kept[_EPOCH] = secrets.token_hex(8)
    return kept


def _store(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value))


def _boot() -> str:
    """Names the time since the machine started; another name each time where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return secrets.token_hex(8)
