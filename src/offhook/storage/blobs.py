"""Files in a folder, and how they may be called wherever they are."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import structlog

from offhook.errors import InvalidInput, Unavailable

_NAME = re.compile(r"[0-9a-f]{32,128}\.[a-z0-9]{1,8}\Z")

log = structlog.get_logger(__name__)


class DiskBlobs:
    """Implements ``ports.Blobs`` with one file a name, spread over sub-folders.

    Args:
        folder: where; made when the first file is stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, data: bytes) -> None:
        """See ``ports.Blobs``."""
        path = path_of(self._folder, name)
        try:
            await asyncio.to_thread(write, path, data)
        except OSError as error:
            log.exception("blob_not_stored")
            raise Unavailable("The file cannot be stored now") from error

    async def get(self, name: str) -> bytes | None:
        """See ``ports.Blobs``."""
        try:
            path = path_of(self._folder, name)
        except InvalidInput:
            return None
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None

    async def delete(self, name: str) -> None:
        """See ``ports.Blobs``."""
        await asyncio.to_thread(path_of(self._folder, name).unlink, missing_ok=True)


def check_name(name: str) -> None:
    """Raises InvalidInput unless this is how files of ours are called."""
    if not _NAME.match(name):
        raise InvalidInput("The file's name is not one of ours", "name")


def path_of(folder: Path, name: str) -> Path:
    """Where the file of this name lies in a folder. Raises InvalidInput as ``check_name`` does."""
    check_name(name)
    return folder / name[:2] / name


def names_in(folder: Path) -> Iterator[str]:
    """The names of all files in a folder, in order. What else may lie there is passed over."""
    for place in sorted(folder.glob("??")):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            if _NAME.match(path.name) and path.name[:2] == place.name and path.is_file():
                yield path.name


def is_stored(folder: Path, name: str) -> bool:
    """Whether there is a file of this name in a folder."""
    return _NAME.match(name) is not None and path_of(folder, name).is_file()


def write(path: Path, data: bytes) -> None:
    """Stores a file durably, unless it is there already.

    Args:
        path: from ``path_of``; the folder is made if need be, but not those that it is in.
        data: what the file is to hold.
    """
    if path.exists():
        return
    path.parent.parent.mkdir(exist_ok=True, mode=0o700)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    # Renamed into place when it is whole and on the disk: a reader or a crash never meets half a file.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
