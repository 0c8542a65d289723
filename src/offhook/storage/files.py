"""The files that go with a database which is checked or copied: on the disk with SQLite, in a table with PostgreSQL.

Wherever they are, they come and go as rows of the table ``files``.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, cast, extract, func, literal, select, type_coerce

from offhook.services.users import HOSTED_PICTURES
from offhook.storage.blobs import is_stored, names_in, path_of, write
from offhook.storage.places import opened, place_at, telling
from offhook.storage.sides import Raw, append, batches
from offhook.storage.tables import files, users

UNDER_WAY = 3600.0
"""Seconds for which a file may be there without being anybody's: it is stored first, and only then the user's."""
_MICROSECONDS = 1_000_000
_BEGINNING = len(HOSTED_PICTURES)


def file_rows(connection: Connection) -> Iterator[Sequence[Raw]]:
    """All files of a database, one at a time: each may have many bytes."""
    folder = place_at(connection).files
    return batches(connection, files) if folder is None else _rows_in(connection, folder, names_in(folder))


def file_names(connection: Connection) -> Iterator[str]:
    """The names of all of them."""
    folder = place_at(connection).files
    if folder is not None:
        yield from names_in(folder)
        return
    for row in connection.execute(select(files.c.name)):
        yield str(row[0])


class Shelf:
    """Where the copies of files go, with the copy of their database.

    It is a context around the transaction in which they are copied. Files on the disk are not the transaction's; what
    was stored there is removed again if that fails. Only the death of the process leaves them, under names that nothing
    refers to.
    """

    def __init__(self) -> None:
        self._made: list[Path] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            return
        for path in self._made:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        folders = {path.parent for path in self._made}
        for folder in [*folders, *{folder.parent for folder in folders}]:
            # Those stay that hold something else.
            with contextlib.suppress(OSError):
                folder.rmdir()

    def put(self, connection: Connection, rows: Iterable[Raw]) -> None:
        """Stores files as ``file_rows`` gives them. One that is there already stays what it is."""
        folder = place_at(connection).files
        if folder is None:
            append(connection, files, rows)
            return
        with telling(connection):
            for row in rows:
                name, data, created = str(row[0]), row[1], row[3]
                assert isinstance(data, bytes) and isinstance(created, int)
                path = path_of(folder, name)
                if not path.exists():
                    self._made.append(path)
                    write(path, data)
                    os.utime(path, ns=(created * 1000, created * 1000))

    def rows(self, connection: Connection, names: Iterable[str]) -> Iterator[Sequence[Raw]]:
        """What was stored, one file at a time.

        Args:
            connection: to the copy.
            names: of the files that were copied; a folder may have had others before.
        """
        folder = place_at(connection).files
        return batches(connection, files) if folder is None else _rows_in(connection, folder, names)


def compared(rows: Iterable[Raw]) -> Iterator[Raw]:
    """What of the rows is the same wherever the files are: not the time at which they were stored."""
    for name, data, size, _ in rows:
        yield name, data, size


# --- pictures


def lost_pictures(connection: Connection) -> Iterator[str]:
    """Users with a picture that is not there."""
    folder = place_at(connection).files
    name = func.substr(users.c.picture, _BEGINNING + 1)
    query = _with_pictures(users.c.id, users.c.name, name).order_by(users.c.id)
    if folder is None:
        there = select(1).where(files.c.name == name.collate("C")).exists()
        query = query.where(~there)
    for key, user, file in connection.execute(query):
        if folder is None or not is_stored(folder, file):
            yield f"User {key} ({user}) has the picture {file}, which is not there."


def file_faults(connection: Connection) -> Iterator[str]:
    """Pictures that are not there, and files that are nobody's, or not as they were stored.

    Servers may store and delete some at this moment, first the one thing and then the other. So only what is found
    twice counts.
    """
    found = list(_file_faults(connection))
    if found:
        with opened(place_at(connection)) as later:
            still = set(_file_faults(later))
        yield from (fault for fault in found if fault in still)


def _file_faults(connection: Connection) -> Iterator[str]:
    yield from lost_pictures(connection)
    folder = place_at(connection).files
    for name in _nobodys(connection) if folder is None else _nobodys_in(connection, folder):
        yield f"File {name} is nobody's picture."
    if folder is None:
        length = func.octet_length(files.c.data)
        for name, size, stored in connection.execute(
            select(files.c.name, files.c.size, length).where(length != files.c.size).order_by(files.c.name)
        ):
            yield f"File {name} had {size} bytes, and has {stored}."


def _nobodys(connection: Connection) -> Iterator[str]:
    before = (extract("epoch", func.clock_timestamp()) - UNDER_WAY) * _MICROSECONDS
    whose = select(1).where(users.c.picture == (literal(HOSTED_PICTURES) + files.c.name).collate("C")).exists()
    old = (
        select(files.c.name)
        .where(type_coerce(files.c.created_at, BigInteger) < cast(before, BigInteger), ~whose)
        .order_by(files.c.name)
    )
    for (name,) in connection.execute(old):
        yield str(name)


def _nobodys_in(connection: Connection, folder: Path) -> Iterator[str]:
    used = {str(row[0]) for row in connection.execute(_with_pictures(func.substr(users.c.picture, _BEGINNING + 1)))}
    before = time.time() - UNDER_WAY
    for name in names_in(folder):
        with contextlib.suppress(FileNotFoundError):
            if name not in used and path_of(folder, name).stat().st_mtime < before:
                yield name


def _with_pictures(*columns: ColumnElement[Any]) -> Select[Any]:
    """Users with a picture that was uploaded."""
    return select(*columns).where(func.substr(users.c.picture, 1, _BEGINNING) == HOSTED_PICTURES)


def _rows_in(connection: Connection, folder: Path, names: Iterable[str]) -> Iterator[Sequence[Raw]]:
    with telling(connection):
        for name in names:
            path = path_of(folder, name)
            data = path.read_bytes()
            yield [(name, data, len(data), path.stat().st_mtime_ns // 1000)]
