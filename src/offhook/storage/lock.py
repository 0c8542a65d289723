"""One process at a time serves a data folder, or one supervisor with its workers."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from pathlib import Path


def note(pid: int, urls: Sequence[str], nodes: Sequence[str]) -> bytes:
    """What the holder of a lock says of itself.

    Args:
        pid: its process id.
        urls: where it serves.
        nodes: names of the nodes that serve there.
    """
    return json.dumps({"pid": pid, "urls": list(urls), "nodes": list(nodes)}).encode()


class DataLock:
    """The lock on a data folder, with a note from whoever holds it.

    The kernel frees it when the process dies, however it dies; the file stays, and so may the note. A supervisor's
    workers serve under its lock and take none themselves.

    Args:
        data_dir: the folder; made if need be.
    """

    FILE = "server.lock"

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / self.FILE
        self._file: int | None = None

    def acquire(self) -> bool:
        """Takes the lock. Returns False if another process, or another DataLock, has it. Idempotent."""
        if self._file is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            return False
        except BaseException:
            os.close(file)
            raise
        os.ftruncate(file, 0)
        self._file = file
        return True

    def write(self, info: bytes) -> None:
        """Leaves a note for those who find the folder locked, see ``note``.

        Raises:
            RuntimeError: the lock is not held.
        """
        if self._file is None:
            raise RuntimeError("the lock is not held")
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, info, 0)

    def read(self) -> bytes:
        """The note of the holder, or of the last one if it was killed; empty if there is none (yet)."""
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def release(self) -> None:
        """Gives the lock back. Idempotent."""
        if self._file is None:
            return
        os.ftruncate(self._file, 0)
        os.close(self._file)
        self._file = None
