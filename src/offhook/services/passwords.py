"""Hashing passwords (Argon2id, RFC 9106) without anybody else's feeling it."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import structlog
from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from offhook.errors import InvalidInput, Unavailable

log = structlog.get_logger(__name__)

MAX_PASSWORD = 1024
"""Bytes of a password in UTF-8."""
MAX_WAITING = 1000
"""Passwords that may wait to be hashed."""
NICENESS = 5
"""How much the hashing threads step back (Linux)."""

T = TypeVar("T")


def default_hasher() -> PasswordHasher:
    """Argon2id with 19 MiB, two passes and one lane: OWASP's first choice for storing passwords."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1, type=Type.ID)


def prepare(password: str) -> str:
    """A password in the form that is hashed: spaces of any kind become U+0020, and the text NFC.

    That is the mapping of PRECIS' OpaqueString (RFC 8265, section 4.2): a password is the same whether a
    keyboard makes its accents precomposed or combining, and whatever encoding a client sent it in.
    """
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaced)


class Passwords:
    """Hashes and verifies passwords in threads of low priority. To be used from one event loop.

    Args:
        workers: threads that hash; each keeps a core busy while passwords wait.
        hasher: the hash function with its costs.
        max_waiting: passwords that may wait at once.
    """

    def __init__(
        self, workers: int = 1, *, hasher: PasswordHasher | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        self._hasher = hasher or default_hasher()
        self._max_waiting = max_waiting
        self._dummy = _unmatchable(self._hasher)
        self._pool = ThreadPoolExecutor(workers, "offhook-passwords", initializer=_step_back)
        self._workers = workers
        self._under_way: set[asyncio.Future[Any]] = set()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Passwords that are being hashed or wait for it."""
        return len(self._under_way)

    async def hash(self, password: str) -> str:
        """Returns a hash of a new password, with its salt and costs, to be stored.

        Raises:
            InvalidInput: the password is empty, longer than MAX_PASSWORD bytes, or holds a lone surrogate.
            Unavailable: too many passwords wait, or the server ends.
        """
        if not password:
            raise InvalidInput("password must not be empty", "password")
        if not _fits(password):
            raise InvalidInput(f"password must have at most {MAX_PASSWORD} bytes of valid text", "password")
        return await self._run(lambda: self._hasher.hash(prepare(password)))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether a password is the one that was hashed.

        Args:
            password: what the client gave.
            hashed: what ``hash`` returned, or None for a user who has no password or does not exist; that takes
                as long.

        Raises:
            Unavailable: as ``hash`` does.
        """
        if not _fits(password):
            return False
        return await self._run(lambda: self._verify(prepare(password), hashed))

    def needs_rehash(self, hashed: str) -> bool:
        """Whether a hash was made with other costs than those of now, and should be made anew."""
        try:
            return self._hasher.check_needs_rehash(hashed)
        except InvalidHashError:
            return True

    def _verify(self, password: str, hashed: str | None) -> bool:
        try:
            self._hasher.verify(self._dummy if hashed is None else hashed, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            log.error("password_hash_unusable", error=type(error).__name__)
            return False
        return hashed is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable("The server is shutting down")
        if len(self._under_way) >= self._max_waiting + self._workers:
            raise Unavailable("Too many passwords are being checked")

        def unless_closed() -> T:
            if self._closed:
                raise Unavailable("The server is shutting down")
            return work()

        future = asyncio.get_running_loop().run_in_executor(self._pool, unless_closed)
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return await future

    async def close(self) -> None:
        """Ends the threads. What waits fails with Unavailable; a hash being made is finished. Idempotent."""
        self._closed = True
        if self._under_way:
            await asyncio.wait(self._under_way)
        self._pool.shutdown()


def _unmatchable(hasher: PasswordHasher) -> str:
    """What is verified in place of a missing hash, so that an unknown user is as slow to refuse as a known one.

    It looks like a hash with the hasher's costs, of a password that nobody knows.
    """
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (hasher.salt_len, hasher.hash_len)
    )
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${salt}${digest}"


def _fits(password: str) -> bool:
    try:
        return len(password) <= MAX_PASSWORD and len(password.encode()) <= MAX_PASSWORD
    except UnicodeEncodeError:
        return False


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere the priority is the whole process's
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
