"""One REST request, read once: who sent it, from where, and with what (Kandy protocol notes, 1.5 and 2)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from offhook.domain.accounts import Application, User
from offhook.domain.sessions import Client
from offhook.errors import AccessDenied, InvalidInput, TooLarge
from offhook.gateways.kandy.admission import Admission
from offhook.gateways.kandy.errors import proving
from offhook.gateways.kandy.gateway import Gateway
from offhook.protocols.kandy import credentials
from offhook.protocols.kandy.credentials import Basic, Bearer, Credential, CredentialError, HmacSession, HmacToken
from offhook.protocols.kandy.paths import Address
from offhook.server.proxies import peer_of
from offhook.services.credentials import (
    AccessProof,
    BearerProof,
    HmacProof,
    HmacSessionProof,
    Identity,
    PasswordProof,
    Proof,
)

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

MAX_AGENT = 200
"""Characters that are kept of what a client calls itself."""
MAX_PARAMETERS = 50
"""Parameters in a query."""

_WANTED = frozenset(
    {
        b"authorization",
        b"x-token",
        b"x-session",
        b"x-cpaas-agent",
        b"user-agent",
        b"origin",
        b"accept-language",
        b"content-length",
    }
)
_MAX_DIGITS = 18
_UC_AGENT, _LINK_AGENT = "uc-", "link-"


class ClientGone(Exception):
    """The client went away before its request was read."""


def headers_of(scope: Scope) -> dict[bytes, bytes]:
    """The headers that matter, the first of each name."""
    headers: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        if name in _WANTED:
            headers.setdefault(name, value)
    return headers


class Request:
    """A request for a resource.

    Args:
        scope: ASGI's.
        receive: ASGI's.
        headers: see ``headers_of``.
        address: what its path names.
        path: its path as it came, still encoded.
        max_body: bytes that are read of its body at most.
        admission: see the attribute.

    Attributes:
        method: of HTTP.
        address: what its path names.
        path: its path as it came, still encoded.
        client_address: the IP address it came from.
        admission: the limits, for what is known of it only later.
    """

    __slots__ = (
        "_headers",
        "_max_body",
        "_query",
        "_receive",
        "_scope",
        "address",
        "admission",
        "client_address",
        "method",
        "path",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        address: Address,
        path: str,
        max_body: int,
        admission: Admission,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._max_body = max_body
        self._query: dict[str, list[str]] | None = None
        self._headers = headers
        self.admission = admission
        self.method: str = scope["method"]
        self.address = address
        self.path = path
        self.client_address = peer_of(scope).address

    # --- what was sent ------------------------------------------------------------------------------------------------

    def header(self, name: bytes) -> str | None:
        """The first header of this name, of those that are read at all."""
        value = self._headers.get(name)
        return None if value is None else value.decode("latin-1")

    def values(self, name: str) -> Sequence[str]:
        """All parameters of this name in the query.

        Raises:
            InvalidInput: the query cannot be read.
        """
        if self._query is None:
            raw: bytes = self._scope["query_string"]
            try:
                self._query = (
                    parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS)
                    if raw
                    else {}
                )
            except ValueError:
                raise InvalidInput("The query cannot be read") from None
        return self._query.get(name, ())

    def value(self, name: str) -> str | None:
        """The first parameter of this name. Raises as ``values`` does."""
        values = self.values(name)
        return values[0] if values else None

    async def body(self) -> bytes:
        """The whole body.

        Raises:
            TooLarge: it is larger than allowed.
            ClientGone: it does not come to its end.
        """
        too_large = TooLarge(f"The body is larger than {self._max_body} bytes", self._max_body)
        announced = self._headers.get(b"content-length", b"")
        # What is no number is the HTTP server's to refuse; it may also be one with too many digits for int().
        if announced.isdigit() and (len(announced) > _MAX_DIGITS or int(announced) > self._max_body):
            raise too_large
        parts: list[bytes] = []
        left = self._max_body
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            part: bytes = message.get("body", b"")
            left -= len(part)
            if left < 0:
                raise too_large
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    # --- who sent it --------------------------------------------------------------------------------------------------

    @property
    def user(self) -> str:
        """The user, or anonymous account, in the path; empty if it names none."""
        return self.address.user or ""

    @property
    def uc(self) -> bool:
        """Whether a client of UC sent it: those show their token in the query, or say who they are."""
        agent = self.header(b"x-cpaas-agent") or ""
        return agent.startswith(_UC_AGENT) or (not agent.startswith(_LINK_AGENT) and bool(self.value("token")))

    @property
    def client(self) -> Client:
        """What is known of the client."""
        agent = (self.header(b"x-cpaas-agent") or self.header(b"user-agent") or "")[:MAX_AGENT]
        if not agent.isprintable():
            agent = "".join(character for character in agent if character.isprintable())
        return Client("kandy", agent, self.client_address, peer_of(self._scope).secure)

    @property
    def device(self) -> str:
        """Tells a user's clients apart as well as that can be: the requests of one do not name its subscription."""
        parts = (self._headers.get(b"user-agent", b""), self._headers.get(b"origin", b""))
        text = b"\0".join((self.client_address.encode(), *parts))
        return hashlib.blake2b(text, digest_size=8).hexdigest()

    @property
    def shown(self) -> bytes:
        """A digest of the credentials and the user in the path, good or not. Raises as ``values`` does."""
        digest = hashlib.blake2b(digest_size=16)
        headers = (self._headers.get(name, b"") for name in (b"authorization", b"x-token", b"x-session"))
        query = (self.value(name) or "" for name in ("token", "access_token"))
        for part in (*headers, *(text.encode(errors="surrogatepass") for text in (*query, self.user))):
            digest.update(b"%d:" % len(part) + part)
        return digest.digest()

    def proofs(self) -> list[Proof]:
        """The credentials, in the order in which to try them.

        Raises:
            AccessDenied: they are malformed.
            InvalidInput: the query cannot be read.
        """
        try:
            found = credentials.parse_credentials(
                self.header(b"authorization"),
                self.header(b"x-token"),
                self.header(b"x-session"),
                self.value("token"),
                self.value("access_token"),
            )
        except CredentialError as error:
            raise AccessDenied(error.message) from None
        return [_proof(credential) for credential in found]


def _proof(credential: Credential) -> Proof:
    match credential:
        case Basic(authname, password):
            return PasswordProof(authname, password)
        case Bearer(token):
            return BearerProof(token)
        case HmacToken(token):
            return HmacProof(token)
        case HmacSession(session_id):
            return HmacSessionProof(session_id)
        case _:
            return AccessProof(credential.token)


async def identify(gateway: Gateway, request: Request, cost: float = 1.0) -> tuple[Application, Identity]:
    """The user in the path, whose request it must be.

    Args:
        gateway: the services.
        request: the request.
        cost: how many of the user's requests it counts as.

    Raises:
        Refusal: the credentials are refused, or too many were.
        RateLimited: too many requests of this user.
        Unavailable: too many passwords wait to be checked, or the store is away.
    """
    with proving():
        application = await gateway.applications.by_username(request.user)
        identity = await gateway.credentials.identify(
            application, request.user, request.proofs(), request.client_address
        )
    request.admission.user(identity.user, cost)
    return application, identity


async def identify_user(gateway: Gateway, request: Request) -> User:
    """As ``identify``, where the user alone matters."""
    return (await identify(gateway, request))[1].user
