"""What a client shows, by what it was given (Kandy protocol notes, 2.1 to 2.4)."""

from __future__ import annotations

import base64

import pytest

from offhook.client.kandy import credentials
from offhook.client.kandy.errors import KandyError
from offhook.protocols.kandy import credentials as server

NAME = "jäne@example.com"
PASSWORD = "bättery: staple"


def basic(name: str) -> dict[str, str]:
    """The header of a name with PASSWORD."""
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{PASSWORD}".encode()).decode()}


LINK: list[tuple[dict[str, object], dict[str, str], str, str]] = [
    ({"hmacToken": "h&1", "password": "p"}, {"x-token": "h&1"}, "", ""),
    ({"accessToken": "a&1", "password": "p"}, {}, "a&1", "?token=a%261"),
    ({"authname": "auth", "password": PASSWORD, "bearerAccessToken": "b"}, basic("auth"), "", ""),
    ({"bearerAccessToken": "b&1", "password": "p"}, {"Authorization": "Bearer b&1"}, "", "?access_token=b%261"),
    ({"password": PASSWORD}, basic(NAME), "", ""),
    ({"password": PASSWORD, "authname": "", "hmacToken": None}, basic(NAME), "", ""),
]


@pytest.mark.parametrize(("given", "headers", "token", "socket"), LINK)
def test_modes_of_link(given: dict[str, object], headers: dict[str, str], token: str, socket: str) -> None:
    shown = credentials.link({"username": NAME, **given})
    assert shown.headers == headers
    assert dict(shown.query).get("token", "") == token
    assert shown.socket_query() == socket


def test_python_spelling() -> None:
    assert credentials.link({"username": NAME, "bearer_access_token": "b"}).headers == {"Authorization": "Bearer b"}
    assert credentials.uc({"username": NAME, "refresh_token": "r"}).refresh_token == "r"


def test_the_server_reads_what_is_shown() -> None:
    header = credentials.link({"username": NAME, "password": PASSWORD}).headers["Authorization"]
    assert server.parse_credentials(authorization=header) == (server.Basic(NAME, PASSWORD),)


def test_bearer_tokens_may_be_kept_off_the_socket() -> None:
    assert credentials.link({"username": NAME, "bearerAccessToken": "b"}).socket_query(False) == ""


def test_an_hmac_token_is_shown_until_there_is_a_session() -> None:
    shown = credentials.link({"username": NAME, "hmacToken": "h"})
    assert shown.with_session(None).headers == {"x-token": "h"}
    assert shown.with_session("s").headers == {"x-session": "s"}
    password = credentials.link({"username": NAME, "password": "p"})
    assert password.with_session("s") == password


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"username": NAME},
        {"password": "p"},
        {"username": NAME, "authname": "a"},
        {"username": 1, "password": "p"},
        {"username": "\ud800", "password": "p"},
    ],
)
def test_incomplete_credentials(given: dict[str, object]) -> None:
    for read in (credentials.link, credentials.uc):
        with pytest.raises(KandyError) as failed:
            read(given)
        assert failed.value.code == "authentication:1"


def test_secrets_are_not_shown() -> None:
    shown = [
        credentials.link({"username": NAME, "password": "hush"}),
        credentials.link({"username": NAME, "hmacToken": "hush"}).with_session("hush"),
        credentials.uc({"username": NAME, "password": "hush", "accessToken": "hush", "refreshToken": "hush"}),
    ]
    assert not [text for text in map(repr, shown) if "hush" in text]
