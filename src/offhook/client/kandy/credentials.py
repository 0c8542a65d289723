"""How a client proves who it is (Kandy protocol notes, 2)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from urllib.parse import urlencode

from offhook.client.kandy.errors import INVALID_CREDENTIALS, KandyError
from offhook.client.kandy.section import Section


class Mode(Enum):
    """What is shown to the server."""

    HMAC = auto()
    """``x-token`` once, then ``x-session``."""
    TOKEN = auto()
    """``?token=``, with requests and on the socket's URL."""
    BASIC = auto()
    """``Authorization: Basic``."""
    BEARER = auto()
    """``Authorization: Bearer``, and ``?access_token=`` on the socket's URL."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is shown with every request.

    Attributes:
        username: whose paths are asked for.
        mode: how it is shown.
        secret: the password or token.
        authname: the name that goes with the password.
        session_id: of an HMAC exchange that was made; empty before.
    """

    username: str
    mode: Mode
    secret: str = field(repr=False)
    authname: str = ""
    session_id: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of requests."""
        match self.mode:
            case Mode.HMAC:
                return {"x-session": self.session_id} if self.session_id else {"x-token": self.secret}
            case Mode.BASIC:
                return {"Authorization": "Basic " + basic(self.authname, self.secret)}
            case Mode.BEARER:
                return {"Authorization": f"Bearer {self.secret}"}
            case Mode.TOKEN:
                return {}

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        """Parameters of requests."""
        return (("token", self.secret),) if self.mode is Mode.TOKEN else ()

    def socket_query(self, token_on_socket: bool = True) -> str:
        """The query of the socket's URL, with its question mark; empty if there is none.

        Args:
            token_on_socket: whether bearer tokens are shown there.
        """
        match self.mode:
            case Mode.TOKEN:
                return "?" + urlencode({"token": self.secret}, errors="replace")
            case Mode.BEARER if token_on_socket:
                return "?" + urlencode({"access_token": self.secret}, errors="replace")
            case _:
                return ""

    def with_session(self, session_id: str | None) -> Credentials:
        """The same after an HMAC exchange (2.2)."""
        if self.mode is not Mode.HMAC or not session_id:
            return self
        return replace(self, session_id=session_id)

    def with_token(self, secret: str) -> Credentials:
        """The same with another token (2.6)."""
        return replace(self, secret=secret)


def link(given: Mapping[str, object]) -> Credentials:
    """Chooses what a Link client shows: the first way whose fields are all there (2.1).

    Args:
        given: the fields, as Kandy.js or as Python spells them.

    Raises:
        KandyError: ``authentication:1``: there is no such way.
    """
    fields = Fields(given)
    username = fields("username")
    password, authname = fields("password"), fields("authname")
    if username and (token := fields("hmacToken")):
        return Credentials(username, Mode.HMAC, token)
    if username and (token := fields("accessToken")):
        return Credentials(username, Mode.TOKEN, token)
    if username and authname and password:
        return Credentials(username, Mode.BASIC, password, authname)
    if username and (token := fields("bearerAccessToken")):
        return Credentials(username, Mode.BEARER, token)
    if username and password:
        return Credentials(username, Mode.BASIC, password, username)
    raise KandyError(
        INVALID_CREDENTIALS,
        "Credentials are a username with a password, or with one of hmac_token, access_token and bearer_access_token",
    )


@dataclass(frozen=True, slots=True)
class UcSignIn:
    """How a UC client signs in: with the first of these that is not empty (2.4).

    Attributes:
        username: who.
        password: for a request for tokens.
        access_token: at once.
        oauth_token: at once, as a bearer token.
        refresh_token: for a request for a further access token, or to come after ``access_token``.
        expires: seconds that the access token is good for, or is to be; None if that is not known.
    """

    username: str
    password: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    oauth_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    expires: float | None = None


def uc(given: Mapping[str, object]) -> UcSignIn:
    """Reads how a UC client is to sign in (2.4).

    Args:
        given: the fields, as Kandy.js or as Python spells them.

    Raises:
        KandyError: ``authentication:1``: a field is missing or of the wrong type.
    """
    fields = Fields(given)
    try:
        expires = Section(given, "").number("expires", 0.0)
    except KandyError as error:
        raise KandyError(INVALID_CREDENTIALS, error.message) from None
    found = UcSignIn(
        username=fields("username"),
        password=fields("password"),
        access_token=fields("accessToken"),
        oauth_token=fields("oauthToken"),
        refresh_token=fields("refreshToken"),
        expires=expires or None,
    )
    if found.username and (found.password or found.access_token or found.oauth_token or found.refresh_token):
        return found
    raise KandyError(
        INVALID_CREDENTIALS,
        "Credentials are a username with a password, or with one of access_token, refresh_token and oauth_token",
    )


def basic(name: str, password: str) -> str:
    """What stands behind ``Basic``: UTF-8, then base64 (2.1)."""
    return base64.b64encode(f"{name}:{password}".encode("utf-8", "replace")).decode("ascii")


class Fields:
    """Texts by name, as Kandy.js or as Python spells it; what is missing is empty.

    Raises:
        KandyError: ``authentication:1``: one is given twice; when it is asked for: it is no text that can be sent.
    """

    __slots__ = ("_section",)

    def __init__(self, given: Mapping[str, object]) -> None:
        try:
            self._section = Section(given, "")
        except KandyError as error:
            raise KandyError(INVALID_CREDENTIALS, error.message) from None

    def __call__(self, name: str) -> str:
        try:
            text = self._section.text(name, "")
            text.encode()
        except KandyError as error:
            raise KandyError(INVALID_CREDENTIALS, error.message) from None
        except UnicodeEncodeError:
            raise KandyError(INVALID_CREDENTIALS, f"{name} holds what no text can hold") from None
        return text
