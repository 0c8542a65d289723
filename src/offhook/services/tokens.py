"""Bearer tokens (JWT, RFC 7519) as proof of who a user is."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

import httpx
import jwt
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.types import Options

from offhook.domain.accounts import MAX_URL, TokenPolicy, check_text
from offhook.errors import AccessDenied, InvalidInput
from offhook.services.jwks import KeySource, PublicKey, key_algorithm

log = structlog.get_logger(__name__)

ALGORITHMS = ("HS256", "RS256", "ES256")
LEEWAY = 30.0
"""Seconds that clocks may differ."""
MAX_TOKEN = 16 * 1024
"""Bytes of a token."""
MIN_SECRET = 32
"""Bytes of a shared secret (RFC 7518, section 3.2)."""
MAX_SOURCES = 256
"""JWK Sets remembered."""

_MALFORMED = "The token is malformed"
_UNUSABLE = "Tokens cannot be checked now"


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a valid token says.

    Attributes:
        username: whom it is for.
        display_name: its ``name`` claim, if it is a usable display name.
    """

    username: str
    display_name: str | None


class TokenVerifier:
    """Checks tokens against applications' policies. To be used from one event loop.

    Args:
        now: a clock in seconds that only goes forward, for the age of JWK Sets.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._sources: OrderedDict[str, KeySource] = OrderedDict()
        self._http: httpx.AsyncClient | None = None
        self._closed = False

    async def verify(self, policy: TokenPolicy, token: str, username: str) -> VerifiedToken:
        """Checks a token: form, algorithm, signature, times, issuer, audience and user.

        Args:
            policy: the application's policy.
            token: the compact form, ``header.payload.signature``.
            username: who the client says it is.

        Raises:
            AccessDenied: the token does not prove it; the message says why, and nothing of the claims.
        """
        # The cheap checks come first: what is malformed never causes a fetch.
        algorithm, kid = _read_header(policy, token)
        key = await self._key(policy, algorithm, kid)
        claims = _decode(policy, token, key, algorithm)
        named = claims.get(policy.username_claim)
        if not isinstance(named, str):
            raise AccessDenied("The token names no user")
        if named != username:
            raise AccessDenied("The token is for another user")
        return VerifiedToken(username, _display_name(claims.get("name")))

    async def _key(self, policy: TokenPolicy, algorithm: str, kid: str | None) -> PublicKey | bytes:
        # The algorithm chooses the kind of key: a public key cannot become an HMAC secret.
        if algorithm == "HS256":
            return _shared_secret(policy)
        if policy.public_key is not None:
            key = _pem(policy.public_key)
            if key_algorithm(key) == algorithm and key is not None:
                return key
        if policy.jwks is None:
            raise AccessDenied("The token's algorithm is not accepted")
        source = self._source(policy.jwks)
        found = await source.find(kid, algorithm)
        if found is None:
            raise AccessDenied("The token's key is unknown" if source.usable else _UNUSABLE)
        return found

    def _source(self, location: str) -> KeySource:
        if self._closed:
            raise AccessDenied(_UNUSABLE)
        source = self._sources.get(location)
        if source is None:
            source = self._sources[location] = KeySource(location, self._client, self._now)
            if len(self._sources) > MAX_SOURCES:
                self._sources.popitem(last=False)
        self._sources.move_to_end(location)
        return source

    def _client(self) -> httpx.AsyncClient:
        if self._http is None:
            self._http = httpx.AsyncClient(
                headers={
                    "User-Agent": "Offhook",
                    "Accept": "application/json",
                    "Accept-Encoding": "identity",
                },
                timeout=None,  # noqa: S113 - the fetch as a whole has one
                follow_redirects=False,
                trust_env=False,
            )
        return self._http

    async def close(self) -> None:
        """Ends fetches under way and closes connections. Idempotent."""
        self._closed = True
        for source in self._sources.values():
            await source.close()
        if self._http is not None:
            await self._http.aclose()


def validate_policy(policy: TokenPolicy) -> None:
    """Checks a policy that an administrator gave.

    Raises:
        InvalidInput: naming the field: unknown or no algorithms, a weak secret, an unusable public key, a bad
            location of the JWK Set, blank names, or an algorithm set that no key is for.
    """
    if not policy.algorithms:
        raise InvalidInput("algorithms must not be empty", "algorithms")
    for algorithm in policy.algorithms:
        if algorithm not in ALGORITHMS:
            raise InvalidInput(f"algorithms may hold {', '.join(ALGORITHMS)}", "algorithms")
    for field, text in (
        ("issuer", policy.issuer),
        ("audience", policy.audience),
        ("username_claim", policy.username_claim),
    ):
        if text is not None:
            check_text(text, field)
    asymmetric = {"RS256", "ES256"} & set(policy.algorithms)
    if asymmetric and policy.public_key is None and policy.jwks is None:
        raise InvalidInput("RS256 and ES256 need public_key or jwks", "public_key")
    _check_secret(policy)
    if policy.public_key is not None:
        _check_public_key(policy.public_key, asymmetric)
    if policy.jwks is not None:
        if not asymmetric:
            raise InvalidInput("jwks is given, but algorithms holds neither RS256 nor ES256", "jwks")
        _check_location(policy.jwks)


def _check_secret(policy: TokenPolicy) -> None:
    if "HS256" not in policy.algorithms:
        if policy.secret is not None:
            raise InvalidInput("secret is given, but algorithms does not hold HS256", "secret")
    elif policy.secret is None or len(policy.secret.encode(errors="replace")) < MIN_SECRET:
        raise InvalidInput(f"secret must have at least {MIN_SECRET} bytes for HS256", "secret")
    elif "-----BEGIN" in policy.secret:
        raise InvalidInput("secret must be a shared secret, not a key in PEM form", "secret")


def _check_public_key(text: str, asymmetric: set[str]) -> None:
    algorithm = key_algorithm(_pem(text))
    if algorithm is None:
        raise InvalidInput("public_key must be a public key in PEM form: RSA of 2048 bits, or P-256", "public_key")
    if algorithm not in asymmetric:
        raise InvalidInput(f"public_key is for {algorithm}, which algorithms does not hold", "public_key")


def _check_location(location: str) -> None:
    check_text(location, "jwks", MAX_URL)
    if location.startswith(("http://", "https://")):
        try:
            host = urlsplit(location).hostname
        except ValueError:
            host = None
        if not host:
            raise InvalidInput("jwks must be a URL with a host", "jwks")
    elif "://" in location:
        raise InvalidInput("jwks must be an http: or https: URL or a file's path", "jwks")


@lru_cache(maxsize=256)
def _pem(text: str) -> PublicKey | None:
    """The public key of a PEM text, or None if it is none of ours. Remembered, as parsing is slow."""
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, PublicKey) and key_algorithm(key) is not None else None


def _shared_secret(policy: TokenPolicy) -> bytes:
    secret = (policy.secret or "").encode()
    if len(secret) < MIN_SECRET:
        log.error("token_secret_unusable")
        raise AccessDenied(_UNUSABLE)
    return secret


def _read_header(policy: TokenPolicy, token: str) -> tuple[str, str | None]:
    """The algorithm and the key's name that a token asks for."""
    if len(token) > MAX_TOKEN:
        raise AccessDenied("The token is too large")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise AccessDenied(_MALFORMED) from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if algorithm not in policy.algorithms or algorithm not in ALGORITHMS:
        raise AccessDenied("The token's algorithm is not accepted")
    if "crit" in header:  # RFC 7515, section 4.1.11: we understand no extension
        raise AccessDenied(_MALFORMED)
    return algorithm, kid if isinstance(kid, str) else None


def _decode(policy: TokenPolicy, token: str, key: PublicKey | bytes, algorithm: str) -> dict[str, object]:
    options: Options = {
        "require": ["exp", *(["iss"] if policy.issuer is not None else [])],
        "verify_aud": policy.audience is not None,
        "verify_sub": False,
        "verify_jti": False,
    }
    try:
        return jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            options=options,
            audience=policy.audience,
            issuer=policy.issuer,
            leeway=LEEWAY,
        )
    except jwt.ExpiredSignatureError:
        reason = "The token has expired"
    except jwt.ImmatureSignatureError:
        reason = "The token is not valid yet"
    except jwt.InvalidSignatureError:
        reason = "The token's signature is wrong"
    except jwt.InvalidAudienceError:
        reason = "The token is for another audience"
    except jwt.InvalidIssuerError:
        reason = "The token is from another issuer"
    except jwt.MissingRequiredClaimError as error:
        reason = f"The token lacks {error.claim}"
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        reason = _MALFORMED
    raise AccessDenied(reason)


def _display_name(name: object) -> str | None:
    try:
        return check_text(name, "name")
    except InvalidInput:
        return None
