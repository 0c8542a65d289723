"""Files on the disk: whole or not there, and never outside their folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.contract.test_blobs import NAME, WRONG

from offhook.errors import InvalidInput, Unavailable
from offhook.storage.blobs import DiskBlobs, is_stored, names_in


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_file_lies_in_a_folder_that_is_the_servers_alone(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "files")
    await blobs.put(NAME, b"x")
    assert files(tmp_path / "files") == [f"ab/{NAME}"]
    assert (tmp_path / "files").stat().st_mode & 0o077 == 0
    assert (tmp_path / "files" / "ab").stat().st_mode & 0o077 == 0


async def test_many_at_once_leave_nothing_but_themselves(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    others = [f"{number:032x}.gif" for number in range(10)]
    await asyncio.gather(*(blobs.put(NAME, b"same") for _ in range(10)), *(blobs.put(name, b"x") for name in others))
    assert files(tmp_path) == sorted([f"ab/{NAME}", *(f"00/{name}" for name in others)])


async def test_what_else_lies_in_the_folder_is_no_file(tmp_path: Path) -> None:
    assert list(names_in(tmp_path / "missing")) == []
    blobs = DiskBlobs(tmp_path)
    others = sorted([f"{number:032x}.gif" for number in range(3)])
    for name in (NAME, *others):
        await blobs.put(name, b"x")
    for stray in ("ab/.draft.png.0a", "ab/notes.txt", f"00/{NAME}", "notes.txt", "zz"):
        (tmp_path / stray).write_text("stray")
    (tmp_path / "ab" / ("ab" * 17 + ".png")).mkdir()
    assert list(names_in(tmp_path)) == [*others, NAME]
    assert is_stored(tmp_path, NAME) and not is_stored(tmp_path, "../notes.txt")


@pytest.mark.parametrize("name", WRONG, ids=ascii)
async def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.key").write_text("secret")
    blobs = DiskBlobs(tmp_path / "files")
    await blobs.put(NAME, b"x")
    before = files(tmp_path)
    assert await blobs.get(name) is None
    with pytest.raises(InvalidInput):
        await blobs.put(name, b"evil")
    assert files(tmp_path) == before


async def test_a_folder_that_is_away_is_told(tmp_path: Path) -> None:
    (tmp_path / "files").write_text("not a folder")
    blobs = DiskBlobs(tmp_path / "files")
    with pytest.raises(Unavailable):
        await blobs.put(NAME, b"x")


async def test_a_failed_write_leaves_nothing_behind(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    # Where the file should be there is a folder with something in it, so the last step fails.
    (tmp_path / "ab" / NAME).mkdir(parents=True)
    await blobs.put(NAME, b"x")
    assert files(tmp_path) == []
    (tmp_path / "ab" / NAME).rmdir()
    await blobs.put(NAME, b"x")
    assert await blobs.get(NAME) == b"x"
