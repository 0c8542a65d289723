"""Files on the disk: whole or not there, and never outside their folder."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from offhook.errors import InvalidInput, Unavailable
from offhook.storage.blobs import DiskBlobs

NAME = "ab" * 16 + ".png"
WRONG = [
    "",
    ".",
    "..",
    "../secret.key",
    "..%2fsecret.key",
    "/etc/passwd",
    f"../{NAME}",
    f"{NAME}/../../secret.key",
    f"{NAME}\0.png",
    f"{NAME}\n",
    NAME.upper(),
    NAME[1:],
    "ab" * 65 + ".png",
    "ab" * 16,
    "ab" * 16 + ".",
    "ab" * 16 + ".p/g",
    "ab" * 16 + ".toolong12",
    "ａb" * 16 + ".png",
]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_what_was_stored_is_read(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path / "files")
    assert await blobs.get(NAME) is None
    data = os.urandom(300_000)
    await blobs.put(NAME, data)
    assert await blobs.get(NAME) == data
    assert await DiskBlobs(tmp_path / "files").get(NAME) == data
    assert files(tmp_path / "files") == [f"ab/{NAME}"]
    assert (tmp_path / "files" / "ab").stat().st_mode & 0o077 == 0


async def test_what_is_stored_under_a_name_never_changes(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    await blobs.put(NAME, b"first")
    await blobs.put(NAME, b"second")
    assert await blobs.get(NAME) == b"first"


async def test_what_was_deleted_is_gone_and_may_be_deleted_again(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    await blobs.put(NAME, b"x")
    for _ in range(2):
        await blobs.delete(NAME)
        assert await blobs.get(NAME) is None
    with pytest.raises(InvalidInput):
        await blobs.delete("../secret.key")


async def test_many_at_once(tmp_path: Path) -> None:
    blobs = DiskBlobs(tmp_path)
    others = [f"{number:032x}.gif" for number in range(10)]
    await asyncio.gather(*(blobs.put(NAME, b"same") for _ in range(10)), *(blobs.put(name, b"x") for name in others))
    assert await blobs.get(NAME) == b"same"
    assert files(tmp_path) == sorted([f"ab/{NAME}", *(f"00/{name}" for name in others)])


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
