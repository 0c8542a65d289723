"""Pictures go where their database goes: from the disk into a table, and back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.databases import a_database, apart, execute
from tests.unit.storage.filling import COUNTS, ROWS, add_file, file_name, filled_file

from offhook.errors import Conflict, InvalidInput, Unavailable
from offhook.storage.blobs import DiskBlobs, names_in
from offhook.storage.copy import Copied, copy_database
from offhook.storage.places import Place, place_of
from offhook.storage.postgres import PostgresStore

MOMENT = 1_700_000_000_123_456


@pytest.fixture
def target() -> Iterator[Place]:
    """An empty PostgreSQL database."""
    with a_database(empty=True) as url:
        yield place_of(url)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A SQLite database with something in every table and some files, each the picture of a user."""
    (tmp_path / "old").mkdir()
    path = filled_file(tmp_path / "old" / "offhook.db")
    use_pictures(path)
    return path


def use_pictures(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for number in range(1, ROWS + 1):
            connection.execute("UPDATE users SET picture = ? WHERE id = ?", (f"/v1/files/{file_name(number)}", number))


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, whatever it is called."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def of_files(copied: object) -> Copied:
    assert isinstance(copied, list)
    (found,) = [each for each in copied if each.table == "files"]
    assert isinstance(found, Copied)
    return found


async def test_files_become_rows_and_files_again(source: Path, target: Place, tmp_path: Path) -> None:
    large, nobodys = os.urandom(3_000_000), "f" * 64 + ".webp"
    moved = add_file(source, nobodys, large)
    os.utime(moved, ns=(MOMENT * 1000, MOMENT * 1000))
    (source.parent / "files" / "ab").mkdir()
    (source.parent / "files" / "ab" / ".draft").write_bytes(b"half")
    there = of_files(await copy_database(Place(path=source), target))
    assert there.target.rows == ROWS + 1
    before = {
        name: (source.parent / "files" / name[:2] / name).read_bytes() for name in names_in(source.parent / "files")
    }
    stored = await execute("SELECT name, data, size, created_at FROM files", url=target.url or "")
    assert {record["name"]: record["data"] for record in stored} == before
    assert all(record["size"] == len(record["data"]) for record in stored)
    assert {record["name"]: record["created_at"] for record in stored}[nobodys] == MOMENT

    store = await PostgresStore.open(target.url or "", lambda publications: None)
    assert await store.blobs.get(nobodys) == large
    await store.blobs.put(new := "e" * 64 + ".gif", b"new")
    await store.close()

    back = Place(path=tmp_path / "back" / "offhook.db", folder=tmp_path / "elsewhere")
    again = of_files(await copy_database(target, back))
    assert again.source == again.target and again.target.rows == ROWS + 2
    assert contents(tmp_path / "elsewhere") == {
        f"{name[:2]}/{name}": data for name, data in [*before.items(), (new, b"new")]
    }
    assert (tmp_path / "elsewhere" / "ff" / nobodys).stat().st_mtime_ns == MOMENT * 1000
    assert (tmp_path / "elsewhere").stat().st_mode & 0o077 == 0
    assert await DiskBlobs(tmp_path / "elsewhere").get(nobodys) == large


async def test_missing_pictures_are_named_before_anything_is_copied(
    source: Path, target: Place, tmp_path: Path
) -> None:
    lost = source.parent / "files" / "03" / file_name(3)
    data = lost.read_bytes()
    lost.unlink()
    with pytest.raises(InvalidInput) as caught:
        await copy_database(Place(path=source), target)
    assert f"has the picture {file_name(3)}, which is not there. See --files" in caught.value.message
    assert "User 3 (" in caught.value.message and "User 4 (" not in caught.value.message
    assert await execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", url=target.url or "") == []
    # All of them, where the folder is another one.
    with pytest.raises(InvalidInput, match=r"(?s)User 1 .*User 7 "):
        await copy_database(Place(path=source, folder=tmp_path / "nothing"), target)

    copied = of_files(await copy_database(Place(path=source), target, allow_missing=True))
    assert copied.source == copied.target and copied.target.rows == ROWS - 1
    back = Place(path=tmp_path / "back.db")
    with pytest.raises(InvalidInput, match=r"(?s)User 3 .*which is not there"):
        await copy_database(target, back)
    await execute("INSERT INTO files VALUES ($1, $2, $3, 0)", file_name(3), data, len(data), url=target.url or "")
    assert of_files(await copy_database(target, back)).target.rows == ROWS
    assert contents(tmp_path / "files")[f"03/{file_name(3)}"] == data


async def test_a_file_that_is_there_with_another_content_is_noticed_and_kept(
    source: Path, target: Place, tmp_path: Path
) -> None:
    await copy_database(Place(path=source), target)
    back = tmp_path / "back" / "offhook.db"
    back.parent.mkdir()
    add_file(back, file_name(5), b"another")
    add_file(back, file_name(6), (source.parent / "files" / "06" / file_name(6)).read_bytes())
    kept = contents(back.parent / "files")
    with pytest.raises(Conflict, match="The copy of files is not what it was"):
        await copy_database(target, Place(path=back))
    assert contents(back.parent / "files") == kept
    (back.parent / "files" / "05" / file_name(5)).unlink()
    assert of_files(await copy_database(target, Place(path=back))).target.rows == ROWS


async def test_a_copy_beside_its_source_shares_its_files(source: Path, target: Place) -> None:
    await copy_database(Place(path=source), target)
    before = contents(source.parent / "files")
    await copy_database(target, Place(path=source.with_name("back.db")))
    assert contents(source.parent / "files") == before


async def test_a_copy_that_fails_leaves_no_files(source: Path, target: Place, tmp_path: Path) -> None:
    await copy_database(Place(path=source), target)
    back = tmp_path / "back" / "offhook.db"
    seen: list[int] = []

    def end(step: str, table: str) -> None:
        if step == "comparing" and not seen:
            seen.append(len(contents(back.parent / "files")))
            name = (target.url or "").rpartition("/")[2]
            apart(execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name))

    with pytest.raises(Unavailable):
        await copy_database(target, Place(path=back), end)
    assert seen == [ROWS] and not (back.parent / "files").exists()
    assert {each.table: each.target.rows for each in await copy_database(target, Place(path=back))} == COUNTS


async def test_a_file_that_cannot_be_read_is_told(source: Path, target: Place) -> None:
    unreadable = source.parent / "files" / "02" / file_name(2)
    unreadable.unlink()
    unreadable.symlink_to("/proc/self/mem")
    with pytest.raises(Unavailable, match="cannot be used"):
        await copy_database(Place(path=source), target)
    assert await execute("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", url=target.url or "") == []
