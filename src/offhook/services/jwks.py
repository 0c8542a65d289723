"""JWK Sets (RFC 7517): the public keys of whoever issues an application's tokens, from a URL or a file."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import httpx
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

log = structlog.get_logger(__name__)

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey

MAX_AGE = 600.0
"""Seconds after which keys are fetched anew."""
MIN_INTERVAL = 30.0
"""Seconds between two fetches, whatever tokens ask for."""
MAX_STALE = 24 * 3600.0
"""Seconds that keys stay in use while they cannot be fetched."""
FETCH_TIMEOUT = 5.0
"""Seconds a fetch may take."""
MAX_SIZE = 256 * 1024
"""Bytes of a JWK Set."""
MAX_KEYS = 100
MIN_RSA_BITS = 2048
"""RFC 7518, section 3.3."""


@dataclass(frozen=True, slots=True)
class NamedKey:
    """A key of a set.

    Attributes:
        kid: its name, if it has one.
        algorithm: RS256 or ES256.
        key: the public key.
    """

    kid: str | None
    algorithm: str
    key: PublicKey


def key_algorithm(key: object) -> str | None:
    """The algorithm that a public key is for: RS256 (RSA), ES256 (P-256), or None if it is for neither."""
    if isinstance(key, RSAPublicKey) and key.key_size >= MIN_RSA_BITS:
        return "RS256"
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256"
    return None


def parse_jwks(text: bytes) -> list[NamedKey]:
    """Reads a set's keys for RS256 and ES256; other keys are skipped (RFC 7517, section 5).

    Raises:
        ValueError: it is no JWK Set, or has more than MAX_KEYS keys.
    """
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError('not an object with a list "keys"')
    if len(keys) > MAX_KEYS:
        raise ValueError(f"more than {MAX_KEYS} keys")
    return [named for jwk in keys if (named := _parse_key(jwk)) is not None]


def _parse_key(jwk: object) -> NamedKey | None:
    if not isinstance(jwk, dict) or jwk.get("kty") not in ("RSA", "EC") or "d" in jwk:
        return None  # symmetric keys and private ones have no business in a published set
    operations = jwk.get("key_ops")
    if jwk.get("use", "sig") != "sig" or (isinstance(operations, list) and "verify" not in operations):
        return None
    algorithm = "RS256" if jwk["kty"] == "RSA" else "ES256"
    if jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        key = PyJWK(jwk, algorithm).key
    except (PyJWTError, ValueError, TypeError):
        return None
    if key_algorithm(key) != algorithm:
        return None
    kid = jwk.get("kid")
    return NamedKey(kid if isinstance(kid, str) else None, algorithm, key)


class KeySource:
    """The keys at one URL or path, remembered.

    Args:
        location: an ``http:`` or ``https:`` URL, or a path.
        http: gives the HTTP client for URLs.
        now: a clock in seconds that only goes forward.
    """

    def __init__(
        self, location: str, http: Callable[[], httpx.AsyncClient], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._location = location
        self._http = http
        self._now = now
        self._keys: list[NamedKey] = []
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        """The key of a token, fetched where need be; however many ask at once, there is one fetch.

        Args:
            kid: the key's name in the token; None finds the only key of the algorithm, if there is just one.
            algorithm: RS256 or ES256.
        """
        if self._age() > MAX_AGE:
            await self._refresh()
        key = self._find(kid, algorithm)
        if key is None:
            await self._refresh()
            key = self._find(kid, algorithm)
        return key

    @property
    def usable(self) -> bool:
        """Whether there are keys young enough to be trusted."""
        return self._age() <= MAX_STALE

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._now() - self._fetched_at

    def _find(self, kid: str | None, algorithm: str) -> PublicKey | None:
        if not self.usable:
            return None
        fitting = [
            named.key for named in self._keys if named.algorithm == algorithm and (kid is None or named.kid == kid)
        ]
        return fitting[0] if len(fitting) == 1 or (fitting and kid is not None) else None

    async def _refresh(self) -> None:
        if self._fetching is None:
            if self._tried_at is not None and self._now() - self._tried_at < MIN_INTERVAL:
                return
            self._tried_at = self._now()
            self._fetching = asyncio.create_task(self._fetch(), name="offhook-jwks")
        # Not awaited itself: the client that asked first may go away, the others still want the keys.
        await asyncio.wait([self._fetching])

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                self._keys = parse_jwks(await self._read())
            self._fetched_at = self._now()
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            log.warning(
                "jwks_unavailable",
                jwks=self._location,
                error=f"{type(error).__name__}: {error}",
                keys=len(self._keys),
            )
        finally:
            self._fetching = None

    async def _read(self) -> bytes:
        if not self._location.startswith(("http://", "https://")):
            return await asyncio.to_thread(_read_file, self._location)
        received = bytearray()
        async with self._http().stream("GET", self._location) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"HTTP status {response.status_code}")
            async for chunk in response.aiter_raw():
                received += chunk
                if len(received) > MAX_SIZE:
                    raise ValueError(f"more than {MAX_SIZE} bytes")
        return bytes(received)

    async def close(self) -> None:
        """Ends a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])


def _read_file(path: str) -> bytes:
    with Path(path).open("rb") as file:
        text = file.read(MAX_SIZE + 1)
    if len(text) > MAX_SIZE:
        raise ValueError(f"more than {MAX_SIZE} bytes")
    return text
