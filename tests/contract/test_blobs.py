"""Files: what every implementation does, and two of one kind on the same state do together."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.databases import a_database

from offhook.errors import InvalidInput
from offhook.ports import Blobs
from offhook.storage.blobs import DiskBlobs
from offhook.storage.postgres import PostgresStore

NAME = "ab" * 16 + ".png"
LARGE = 5 * 1024 * 1024
"""Bytes of the largest picture that a server takes unless it is told otherwise."""
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
    "\ud800" * 32 + ".png",
    "' OR '1'='1",
]


@pytest.fixture(params=["disk", "database"])
async def pair(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Blobs, Blobs]]:
    """The same files twice, as two nodes have them."""
    if request.param == "disk":
        yield DiskBlobs(tmp_path / "files"), DiskBlobs(tmp_path / "files")
        return
    with a_database() as url:
        async with contextlib.AsyncExitStack() as stack:
            stores = [await PostgresStore.open(url, lambda publications: None) for _ in range(2)]
            for store in stores:
                stack.push_async_callback(store.close)
            yield stores[0].blobs, stores[1].blobs


@pytest.mark.parametrize("data", [b"", bytes(range(256)), b"\0" * 1000, b"\\x41", os.urandom(LARGE)], ids=len)
async def test_what_one_stored_the_other_has(pair: tuple[Blobs, Blobs], data: bytes) -> None:
    one, other = pair
    assert await one.get(NAME) is await other.get(NAME) is None
    await one.put(NAME, data)
    assert await one.get(NAME) == await other.get(NAME) == data
    assert type(await other.get(NAME)) is bytes


async def test_what_is_stored_under_a_name_never_changes(pair: tuple[Blobs, Blobs]) -> None:
    one, other = pair
    await one.put(NAME, b"first")
    for blobs in pair:
        await blobs.put(NAME, b"second")
    assert await one.get(NAME) == await other.get(NAME) == b"first"


async def test_what_one_deleted_nobody_has_and_may_be_deleted_again(pair: tuple[Blobs, Blobs]) -> None:
    one, other = pair
    await one.put(NAME, b"x")
    assert await other.get(NAME) == b"x"
    for blobs in (other, one, other):
        await blobs.delete(NAME)
        assert await one.get(NAME) is await other.get(NAME) is None
    await one.put(NAME, b"another")
    assert await other.get(NAME) == b"another"


async def test_many_at_once_from_both(pair: tuple[Blobs, Blobs]) -> None:
    names = [f"{number:032x}.gif" for number in range(10)]
    same = [pair[number % 2].put(NAME, b"same") for number in range(10)]
    await asyncio.gather(*same, *(pair[number % 2].put(name, name.encode()) for number, name in enumerate(names)))
    for blobs in pair:
        assert await asyncio.gather(*map(blobs.get, names)) == [name.encode() for name in names]
        assert await blobs.get(NAME) == b"same"
    await asyncio.gather(*(blobs.delete(name) for name in names for blobs in pair))
    assert set(await asyncio.gather(*map(pair[0].get, names))) == {None}
    assert await pair[1].get(NAME) == b"same"


@pytest.mark.parametrize("name", WRONG, ids=ascii)
async def test_names_that_are_none_are_refused(pair: tuple[Blobs, Blobs], name: str) -> None:
    blobs, _ = pair
    await blobs.put(NAME, b"x")
    assert await blobs.get(name) is None
    with pytest.raises(InvalidInput):
        await blobs.put(name, b"evil")
    with pytest.raises(InvalidInput):
        await blobs.delete(name)
    assert await blobs.get(NAME) == b"x"
