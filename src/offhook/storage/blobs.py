"""Files in a folder."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
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
        path = self._path(name)
        try:
            await asyncio.to_thread(_write, path, data)
        except OSError as error:
            log.exception("blob_not_stored")
            raise Unavailable("The file cannot be stored now") from error

    async def get(self, name: str) -> bytes | None:
        """See ``ports.Blobs``."""
        try:
            path = self._path(name)
        except InvalidInput:
            return None
        try:
            return await asyncio.to_thread(path.read_bytes)
        except FileNotFoundError:
            return None

    async def delete(self, name: str) -> None:
        """See ``ports.Blobs``."""
        await asyncio.to_thread(self._path(name).unlink, missing_ok=True)

    def _path(self, name: str) -> Path:
        if not _NAME.match(name):
            raise InvalidInput("The file's name is not one of ours", "name")
        return self._folder / name[:2] / name


def _write(path: Path, data: bytes) -> None:
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
