"""Applications (tenants) and users, and the rules their fields obey."""

from __future__ import annotations

import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from offhook.domain.values import JsonObject, JsonValue, json_size
from offhook.errors import InvalidInput

MAX_NAME = 255
"""Characters in a username, a display name or an application's name."""
MAX_PROPERTIES = 16 * 1024
"""Bytes of a user's properties as JSON."""
MAX_PROPERTIES_DEPTH = 16
"""Levels of nesting in a user's properties."""
MAX_STATUS = 64
"""Characters in a presence status."""
MAX_NOTE = 255
"""Characters in the note to a presence status."""
MAX_URL = 2048
"""Characters in a picture's URL."""


class DuplicatePolicy(StrEnum):
    """What happens when a user who already has the allowed number of sessions starts one more."""

    END_OLDEST = "end-oldest"
    END_NEWEST = "end-newest"
    REJECT_NEW = "reject-new"


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How an application treats its users' sessions. Times are in seconds.

    Attributes:
        max_sessions: sessions one user may have at once.
        duplicates: what happens beyond that.
        leave_grace: how long a user stays online after the last connection broke; hides a page reload.
        resume_window: how long a broken session can be resumed.
        socket_wait: how long a new subscription waits for its notification socket before it ends.
        socket_grace: as ``leave_grace``, for subscriptions, whose clients may take half a minute to notice that their
            socket broke. How long they can be resumed, their own expiry tells.
    """

    max_sessions: int = 50
    duplicates: DuplicatePolicy = DuplicatePolicy.END_OLDEST
    leave_grace: float = 10.0
    resume_window: float = 24 * 3600.0
    socket_wait: float = 60.0
    socket_grace: float = 60.0


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """How bearer tokens (JWT, RFC 7519) of an application are checked.

    Attributes:
        algorithms: accepted signature algorithms, of HS256, RS256 and ES256.
        secret: the shared secret for HS256.
        public_key: a PEM public key for RS256 or ES256.
        jwks: a JWK Set: an ``https:``/``http:`` URL or a file's path.
        issuer: required ``iss``, if set.
        audience: required ``aud``, if set.
        username_claim: the claim that must equal the username.
    """

    algorithms: tuple[str, ...] = ("RS256", "ES256")
    secret: str | None = None
    public_key: str | None = None
    jwks: str | None = None
    issuer: str | None = None
    audience: str | None = None
    username_claim: str = "sub"


@dataclass(frozen=True, slots=True)
class WebhookPolicy:
    """Where an application's authentication webhook is.

    Attributes:
        url: receives a signed POST for every attempt to start a session.
        timeout: seconds until the attempt is denied.
    """

    url: str
    timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class Application:
    """A tenant. Nothing crosses it.

    Attributes:
        id: integer, unique on the server.
        name: unique on the server.
        domain: the Kandy domain, e.g. ``example.com``.
        api_key: identifies the application to ChatKitty clients; not a secret.
        client_id: OAuth2 client id of the application's own back end.
        client_secret_hash: SHA-256 of the client secret, hexadecimal.
        guests: whether an unknown username starts a session as a new guest.
        enabled: a disabled application accepts no session.
        sessions: its session policy.
        tokens: how its JWTs are checked, if it uses them.
        webhook: its authentication webhook, if it has one.
        created_at: when it was made, UTC.
    """

    id: int
    name: str
    domain: str
    api_key: str
    client_id: str
    client_secret_hash: str
    created_at: datetime
    guests: bool = True
    enabled: bool = True
    sessions: SessionPolicy = field(default_factory=SessionPolicy)
    tokens: TokenPolicy | None = None
    webhook: WebhookPolicy | None = None


AVAILABLE = "AVAILABLE"
UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class User:
    """A person in an application.

    Attributes:
        id: integer, unique on the server.
        application_id: the application the user belongs to.
        name: the username of both protocols; unique in the application, case preserved.
        display_name: shown to people; the username unless set.
        picture: URL of the user's own picture, or None for the generated one.
        guest: created by a guest session.
        enabled: a disabled user starts no session.
        status: a presence status the user chose, or None.
        closed: whether the user chose to be shown as not there.
        note: what the user added to the status; empty if nothing.
        online: whether the user has a live session; changes in the same transaction as the sessions do.
        properties: the application's own data.
        has_password: whether a password is stored; then no session starts without it (or a token or function).
        created_at: UTC.
    """

    id: int
    application_id: int
    name: str
    display_name: str
    created_at: datetime
    picture: str | None = None
    guest: bool = False
    enabled: bool = True
    status: str | None = None
    online: bool = False
    properties: Mapping[str, JsonValue] = field(default_factory=dict)
    has_password: bool = False
    closed: bool = False
    note: str = ""

    @property
    def presence_status(self) -> str:
        """The status to show: the chosen one while online and not closed, ``UNAVAILABLE`` otherwise."""
        return (self.status or AVAILABLE) if self.online and not self.closed else UNAVAILABLE


@dataclass(frozen=True, slots=True)
class UserChanges:
    """What to change about a user; None leaves a field as it is."""

    display_name: str | None = None
    picture: str | None = None
    status: str | None = None
    properties: JsonObject | None = None
    guest: bool | None = None
    enabled: bool | None = None
    closed: bool | None = None
    note: str | None = None

    @property
    def empty(self) -> bool:
        return self == UserChanges()


@dataclass(frozen=True, slots=True)
class UserFilter:
    """Which users to list.

    Attributes:
        name: this exact username.
        display_name: text contained in the display name, whatever its case.
        online: only users who are (not) online.
        excluding: leave this user id out.
        visible_to: leave out users who blocked this user id, or whom that user blocked.
    """

    name: str | None = None
    display_name: str | None = None
    online: bool | None = None
    excluding: int | None = None
    visible_to: int | None = None


def check_text(value: object, field_name: str, limit: int = MAX_NAME) -> str:
    """Returns a single line of text, or raises.

    Raises:
        InvalidInput: not a string, blank, too long, or holding control characters or lone surrogates.
    """
    if not isinstance(value, str):
        raise InvalidInput(f"{field_name} must be a string", field_name)
    if not value.strip():
        raise InvalidInput(f"{field_name} must not be empty", field_name)
    if len(value) > limit:
        raise InvalidInput(f"{field_name} must have at most {limit} characters", field_name)
    # Text that is printable holds none of them, and that is quick to tell.
    if not value.isprintable() and any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise InvalidInput(f"{field_name} must not contain control characters", field_name)
    return value


def check_username(value: object, field_name: str = "username") -> str:
    """A username: any line of text up to MAX_NAME characters; colons and at signs are welcome."""
    return check_text(value, field_name)


def check_properties(value: object, field_name: str = "properties") -> JsonObject:
    """Returns the application's own data about a user, or raises InvalidInput if it is no object or too big."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InvalidInput(f"{field_name} must be an object", field_name)
    if json_size(value, MAX_PROPERTIES_DEPTH, field_name) > MAX_PROPERTIES:
        raise InvalidInput(f"{field_name} must be at most {MAX_PROPERTIES} bytes of JSON", field_name)
    return value


def new_key() -> str:
    """A new API key or client id: 128 random bits, hexadecimal."""
    return secrets.token_hex(16)


def new_secret() -> str:
    """A new client secret: 256 random bits, URL-safe."""
    return secrets.token_urlsafe(32)
