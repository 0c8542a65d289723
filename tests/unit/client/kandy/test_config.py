"""All spellings of the configuration (Kandy protocol notes, 1.2)."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook import kandy
from offhook.client.kandy.config import parse
from offhook.client.kandy.errors import KandyError

LINK: dict[str, object] = {
    "authentication": {"server": {"base": "$SUBSCRIPTIONFQDN$"}},
    "subscription": {"websocket": {"server": "$WEBSOCKETFQDN$"}},
    "call": {"serverTurnCredentials": True, "iceServers": [{"url": "$KANDYTURN1$", "credentials": ""}]},
}
UC: dict[str, object] = {
    "authentication": {"subscription": {"server": "rest.example"}, "websocket": {"server": "ws.example"}}
}


def snake(key: str) -> str:
    """A key as Python spells it."""
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower()


def snaked(value: object) -> object:
    """The same dictionary with all keys as Python spells them."""
    if isinstance(value, dict):
        return {snake(key): snaked(item) for key, item in value.items()}
    return value


HOSTS = st.sampled_from(["a.example", "192.0.2.1", "::1", ""])
ENDPOINTS = st.fixed_dictionaries(
    {},
    optional={
        "server": HOSTS,
        "base": HOSTS,
        "protocol": st.sampled_from(["https", "http"]),
        "port": st.one_of(st.integers(1, 65535), st.integers(1, 65535).map(str)),
        "version": st.sampled_from(["1", 2, "v2.0"]),
        "expires": st.integers(1, 10**6),
        "service": st.lists(st.sampled_from(["call", "IM", "Presence"])),
        "useTurn": st.booleans(),
        "notificationType": st.just("WebSocket"),
    },
)
SOCKETS = st.fixed_dictionaries({}, optional={"server": HOSTS, "protocol": st.just("ws"), "port": st.just("8686")})
CONFIGURATIONS = st.fixed_dictionaries(
    {},
    optional={
        "authentication": st.fixed_dictionaries(
            {},
            optional={
                "server": ENDPOINTS,
                "subscription": ENDPOINTS,
                "websocket": SOCKETS,
                "earlyRefreshMargin": st.integers(0, 10**4),
            },
        ),
        "subscription": st.fixed_dictionaries(
            {},
            optional={
                "websocket": SOCKETS,
                "expires": st.integers(1, 10**6),
                "serviceUnavailableMaxRetries": st.integers(0, 9),
            },
        ),
        "connectivity": st.fixed_dictionaries(
            {},
            optional={
                "pingInterval": st.integers(1, 10**6),
                "reconnectLimit": st.integers(0, 9),
                "reconnectDelay": st.integers(0, 10**5),
                "reconnectTimeMultiplier": st.integers(1, 3),
                "reconnectTimeLimit": st.integers(0, 10**6),
                "autoReconnect": st.booleans(),
                "webSocketOAuthMode": st.sampled_from(["query", "none"]),
            },
        ),
        "notifications": st.fixed_dictionaries({}, optional={"idCacheLength": st.integers(0, 1000)}),
        "request": st.fixed_dictionaries({}, optional={"injectAgentVersionHeader": st.booleans()}),
    },
)


@given(CONFIGURATIONS)
def test_both_spellings_mean_the_same(values: dict[str, object]) -> None:
    other = snaked(values)
    assert isinstance(other, dict)
    # Keys that differ from those of the configuration tell where a server's name is to be put.
    assert str(parse(values)).casefold().replace("_", "") == str(parse(other)).casefold().replace("_", "")


def test_the_quickstart_of_link_as_it_stands() -> None:
    config = parse(LINK)
    assert config.product == "link" and (config.rest.port, config.websocket.scheme) == (443, "wss")
    with pytest.raises(KandyError, match=r"authentication\.server\.base is still the placeholder \$SUBSCRIPTIONFQDN\$"):
        _ = config.rest.base
    with pytest.raises(KandyError, match=r"subscription\.websocket\.server") as failed:
        _ = config.websocket.base
    assert failed.value.code == "configuration"


def test_the_quickstart_of_uc() -> None:
    config = parse(UC)
    assert config.product == "uc" and config.services == ("call", "IM", "Presence")
    assert (config.rest.base, config.websocket.base) == ("https://rest.example:443", "wss://ws.example:443")
    assert (config.version, config.uc_version) == ("1", "v2.0")
    assert parse(UC, "link").version == "1"


def test_old_spellings_of_link() -> None:
    config = parse(
        {
            "authentication": {
                "subscription": {"server": "r", "port": "8443", "expires": 60, "service": ["IM"]},
                "websocket": {"protocol": "ws", "server": "w", "port": 80},
            },
            "subscription": {"websocket": {"server": "replaced"}},
        },
        "link",
    )
    assert (config.rest.base, config.websocket.base) == ("https://r:8443", "ws://w:80")
    assert (config.expires, config.services) == (60, ("IM",))


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"authentication": 1}, "authentication must be a dictionary"),
        ({"authentication": {"server": {"base": 1}}}, "authentication.server.base must be a text"),
        ({"authentication": {"server": {"port": 0}}}, "authentication.server.port must be"),
        ({"authentication": {"server": {"port": "x"}}}, "authentication.server.port must be"),
        ({"authentication": {"server": {"protocol": "ftp"}}}, "authentication.server.protocol must be https or http"),
        ({"subscription": {"expires": True}}, "subscription.expires must be a number"),
        ({"connectivity": {"ping_interval": "soon"}}, "connectivity.ping_interval must be a number"),
        ({"connectivity": {"pingInterval": 1, "ping_interval": 2}}, "are the same"),
        ({"authentication": {"subscription": {"service": [1]}}}, "authentication.subscription.service must be a list"),
        ({"authentication": {"subscription": {"useTurn": 1}}}, "authentication.subscription.useTurn must be True or"),
        ({"connectivity": {"reconnectLimit": -1}}, "connectivity.reconnectLimit must be at least 0"),
        ({1: 2}, "1 must be a text"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], path: str) -> None:
    with pytest.raises(KandyError, match=re.escape(path)) as failed:
        kandy.create(values)
    assert failed.value.code == "configuration"


@pytest.mark.parametrize("host", ["http://a.example", "a.example:8686", "a/b", "a b", "...", "<host>", "$X$", ""])
def test_what_is_no_host(host: str) -> None:
    config = parse({"authentication": {"server": {"base": host}}})
    with pytest.raises(KandyError, match=r"authentication\.server\.base"):
        _ = config.rest.base


def test_addresses_of_six() -> None:
    assert parse({"authentication": {"server": {"base": "::1", "port": 1}}}).rest.base == "https://[::1]:1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"pingInterval": 1}, None),
        ({"reconnectLimit": 0}, kandy.Reconnect(5, 1, 640, None)),
        ({"reconnectDelay": 100, "reconnectTimeMultiplier": 2}, kandy.Reconnect(0.1, 2, 640, 5)),
        ({"reconnectTimeLimit": 1000, "reconnectLimit": 7}, kandy.Reconnect(5, 1, 5, 7)),
        ({"autoReconnect": False, "reconnectLimit": 7}, kandy.NEVER),
    ],
)
def test_when_to_come_back(given: dict[str, object], expected: kandy.Reconnect | None) -> None:
    assert parse({"connectivity": given}).reconnect == expected


def test_unknown_keys_are_logged_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "offhook.kandy"):
        parse({"nonsense": 1, "connectivity": {"bogus": 2, "method": "keepAlive"}, "call": {"any": 1}})
    assert [record.getMessage() for record in caplog.records] == [
        "The configuration has keys that are not known: nonsense, connectivity.bogus"
    ]
