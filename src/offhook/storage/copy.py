"""Copies a database into an empty one, of the other engine or the same, and proves that the copy is what it was.

::

    read all of it: does every value fit? ──► schema, rows, counters ──► read all of both: the same? ──► commit
                    (nothing is written yet)       (one transaction in the target, which ends with it)

Whatever happens before the commit, the death of the process included, leaves the target as empty as it was. Files go
with the database, as rows of the table ``files`` or on the disk, as the engines have them; of those on the disk some
remain if the process dies, under names that nothing refers to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from sqlalchemy import Connection, Table, select, text
from sqlalchemy.util import await_only

from offhook.errors import Conflict, InvalidInput
from offhook.storage.check import bounded, orphans
from offhook.storage.epoch import facts_of_copy
from offhook.storage.files import Shelf, compared, file_names, file_rows, lost_pictures
from offhook.storage.migrate import REVISION, bring_up, stored_revision
from offhook.storage.places import Place, at, driver, opened
from offhook.storage.sides import Raw, append, batches, continue_after, is_empty, key_of, last_id, unfit
from offhook.storage.tables import files, meta, metadata

SHOWN = 20
"""Values that cannot be stored which are named; of the others only the number is told."""


class Unfit(InvalidInput):
    """The database holds what the other engine cannot store.

    Args:
        reasons: one a value, with table, row and column.
        more: how many more there are.
    """

    def __init__(self, reasons: Sequence[str], more: int) -> None:
        rest = f"; and {more} more" if more else ""
        super().__init__(f"Nothing was copied: {'; '.join(reasons)}{rest}")
        self.reasons = tuple(reasons)
        self.more = more


@dataclass(frozen=True, slots=True)
class Content:
    """What a table holds, whatever the order of its rows.

    Attributes:
        rows: how many.
        checksum: of all of them.
    """

    rows: int
    checksum: str


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of a table.

    Attributes:
        table: its name.
        source: what it holds in the database that was copied.
        target: what it holds in the copy.
    """

    table: str
    source: Content
    target: Content


class Sum:
    """Adds rows up to what a table holds."""

    def __init__(self) -> None:
        self._rows = 0
        self._sum = 0

    def add(self, rows: Iterable[Raw]) -> None:
        """Adds rows; in which order does not matter."""
        for row in rows:
            digest = hashlib.blake2b(_ENCODER.encode(row), digest_size=16).digest()
            self._sum = (self._sum + int.from_bytes(digest)) % 2**128
            self._rows += 1

    @property
    def content(self) -> Content:
        """What was added until now."""
        return Content(self._rows, f"{self._sum:032x}")


_ENCODER = msgspec.msgpack.Encoder()
_READING, _COPYING, _COMPARING = "reading", "copying", "comparing"


async def copy_database(
    source: Place,
    target: Place,
    tell: Callable[[str, str], None] = lambda step, table: None,
    *,
    allow_missing: bool = False,
) -> Sequence[Copied]:
    """Copies a database, of this version's schema, that nobody uses.

    Args:
        source: what is copied. It is not changed.
        target: an empty database, or for SQLite a file that need not exist.
        tell: called with what begins now, and for which table.
        allow_missing: copy also if pictures are missing.

    Raises:
        Unfit: the target's engine cannot store a value. Nothing was written.
        Conflict: the source is in use or not of this version, or the target is in use or not empty, or the copy was
            not the same. Nothing remains in the target.
        IncompatibleDatabase: one of them belongs to something else.
        InvalidInput: one of them cannot be used at all, or the source holds rows or pictures that refer to nothing.
        Unavailable: one of them is away or broke.
    """
    return await at(lambda: _copy(source, target, tell, allow_missing))


def _copy(source: Place, target: Place, tell: Callable[[str, str], None], allow_missing: bool) -> Sequence[Copied]:
    with opened(source, alone=True) as old:
        revision = stored_revision(old)
        if revision != REVISION:
            how = "empty" if revision is None else f"of version {revision}, this program of {REVISION}"
            raise Conflict(f"{source} is {how}; bring it up to date first: offhook db upgrade")
        facts = facts_of_copy(dict(_facts(old)), _server(old))
        _refuse_what_is_lost(old, allow_missing)
        contents = _survey(old, target, facts, tell)
        with Shelf() as shelf, opened(target, alone=True, reading=False) as new:
            _prepare(new, target)
            for table in metadata.sorted_tables:
                tell(_COPYING, table.name)
                for rows in _rows(old, table, facts):
                    if table is files:
                        shelf.put(new, rows)
                    else:
                        append(new, table, rows)
                continue_after(new, table, last_id(old, table))
            copied = []
            for table in metadata.sorted_tables:
                tell(_COMPARING, table.name)
                stored = shelf.rows(new, file_names(old)) if table is files else batches(new, table)
                copied.append(Copied(table.name, contents[table.name], _content(table, stored)))
            wrong = [each.table for each in copied if each.source != each.target]
            if wrong:
                raise Conflict(f"The copy of {', '.join(wrong)} is not what it was; nothing was kept of it")
            _adopt(new)
    return copied


def _refuse_what_is_lost(old: Connection, allow_missing: bool) -> None:
    lost = list(bounded(orphans(old)))
    pictures = [] if allow_missing else list(bounded(lost_pictures(old)))
    hint = ["See --files and --allow-missing."] if pictures else []
    if lost or pictures:
        raise InvalidInput(" ".join(["Nothing was copied:", *lost, *pictures, *hint]))


def _survey(
    old: Connection, target: Place, facts: Mapping[str, str], tell: Callable[[str, str], None]
) -> Mapping[str, Content]:
    """Reads everything. Returns what each table holds; raises unless all of it can be stored."""
    reasons: list[str] = []
    more = 0
    contents: dict[str, Content] = {}
    for table in metadata.sorted_tables:
        tell(_READING, table.name)
        total = Sum()
        for rows in _rows(old, table, facts):
            for row in rows if target.url is not None else ():
                for column, reason in unfit(table, row):
                    more += len(reasons) == SHOWN
                    if len(reasons) < SHOWN:
                        reasons.append(f"table {table.name}, row with {key_of(table, row)}: column {column} {reason}")
            total.add(compared(rows) if table is files else rows)
        contents[table.name] = total.content
    if reasons:
        raise Unfit(reasons, more)
    return contents


def _rows(old: Connection, table: Table, facts: Mapping[str, str]) -> Iterable[Sequence[Raw]]:
    """The rows that the copy of a table is to have."""
    if table is files:
        return file_rows(old)
    return [list(facts.items())] if table is meta else batches(old, table)


def _content(table: Table, rows: Iterable[Sequence[Raw]]) -> Content:
    total = Sum()
    for some in rows:
        total.add(compared(some) if table is files else some)
    return total.content


def _facts(connection: Connection) -> Iterable[tuple[str, str]]:
    for key, value in connection.execute(select(meta.c.key, meta.c.value)):
        yield str(key), str(value)


def _prepare(new: Connection, target: Place) -> None:
    """Makes the schema in an empty database, and lets nobody else in before the commit."""
    if new.dialect.name != "sqlite":
        from offhook.storage.postgres.schema import LOCK

        new.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    bring_up(new)
    if new.dialect.name != "sqlite":
        # A server that starts now finds the tables only after the commit, also if they were there before.
        names = ", ".join(table.name for table in metadata.sorted_tables)
        new.execute(text(f"LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE"))
    for table in metadata.sorted_tables:
        if not is_empty(new, table):
            raise Conflict(f"{target} is not empty: its table {table.name} has rows")


def _adopt(new: Connection) -> None:
    """Has the copied history count as the target's own."""
    server = _server(new)
    if server is not None:
        new.execute(meta.insert().values(key="history", value=server))


def _server(connection: Connection) -> str | None:
    """Which PostgreSQL server a database is on, and on which timeline; None if it is a file."""
    if connection.dialect.name == "sqlite":
        return None
    from offhook.storage.postgres.epoch import server_of

    return str(await_only(server_of(driver(connection))))
