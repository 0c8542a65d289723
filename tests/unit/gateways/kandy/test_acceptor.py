"""The door for notification sockets: which upgrades come in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from offhook.domain.limits import Rate
from offhook.gateways.kandy.acceptor import RECONNECTS, KandyDoor
from offhook.gateways.kandy.channels import PREFIX, channel_of, parse_channel
from offhook.gateways.kandy.gateway import Gateway, Recent
from offhook.gateways.kandy.socket import NotificationSocket
from offhook.protocols.websocket import UpgradeRequest, parse_request
from offhook.server.proxies import TrustedProxies
from offhook.server.websocket import Accepted, Peer, Rejected
from offhook.services.credentials import AccessProof, BearerProof
from offhook.settings import Settings

HERE, THERE = Peer("192.0.2.7", 50_000, False), Peer("198.51.100.1", 50_000, True)
FORGED = [
    "/websocket/",
    "/websocket/5",
    "/websocket/5.",
    "/websocket/.x",
    "/websocket/..",
    "/websocket/5.AAAAAAAAAAAAAAAAAAAAAA",
    "/websocket/%35.AAAAAAAAAAAAAAAAAAAAAA",
    "/websocket/" + "5" * 500,
    "/websocket/\xff.\xff",
    "/websocket/x/y",
]


def door_of(gateway: Gateway, tmp_path: Path, **settings: object) -> KandyDoor:
    made = Settings(data_dir=tmp_path, **settings)  # type: ignore[arg-type]
    return KandyDoor(gateway, made, TrustedProxies(made.trusted_proxies))


def upgrade(path: str, *, origin: str | None = None, forwarded: str | None = None) -> UpgradeRequest:
    """The request of a browser."""
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: offhook.test",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    if forwarded is not None:
        lines.append(f"X-Forwarded-For: {forwarded}")
    return parse_request(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


def status(door: KandyDoor, path: str, direct: Peer = HERE, *, origin: str | None = None) -> int:
    answer = door.accept(upgrade(path, origin=origin), direct)
    return answer.status if isinstance(answer, Rejected) else 101


@pytest.mark.parametrize("path", FORGED)
async def test_a_channel_that_was_never_given_out_is_not_found(gateway: Gateway, tmp_path: Path, path: str) -> None:
    door = door_of(gateway, tmp_path)
    assert door.takes(path) and status(door, path) == 404


@pytest.mark.parametrize("position", range(0, 30, 3))
async def test_no_letter_of_a_channel_can_be_changed(gateway: Gateway, tmp_path: Path, position: int) -> None:
    channel = channel_of(1234567, gateway.signer)
    index = len(PREFIX) + position % (len(channel) - len(PREFIX))
    changed = channel[:index] + ("x" if channel[index] != "x" else "y") + channel[index + 1 :]
    assert status(door_of(gateway, tmp_path), changed) == 404
    assert parse_channel(channel, gateway.signer) == 1234567


async def test_texts_signed_for_something_else_are_no_channels(gateway: Gateway, tmp_path: Path) -> None:
    for purpose in ("session", "grant", "hmac-session", ""):
        assert status(door_of(gateway, tmp_path), PREFIX + gateway.signer.sign(purpose, "5")) == 404


async def test_a_channel_comes_in_with_its_session_and_with_or_without_a_slash(
    gateway: Gateway, tmp_path: Path
) -> None:
    door, channel = door_of(gateway, tmp_path), channel_of(5, gateway.signer)
    for path in (channel, channel + "/", channel + "?", channel + "?token=x"):
        answer = door.accept(upgrade(path), HERE)
        assert isinstance(answer, Accepted) and isinstance(answer.handler, NotificationSocket), path
        assert answer.subprotocol is None and answer.handler._session_id == 5
    assert list(door.sockets()) == []


@pytest.mark.parametrize(
    ("query", "proof"),
    [
        ("", None),
        ("token=", None),
        ("token=abc", AccessProof("abc")),
        ("access_token=abc", BearerProof("abc")),
        ("token=a%2Bb%20c", AccessProof("a+b c")),
        ("token=one&access_token=two", BearerProof("two")),
        ("x=1&token=abc&token=def", AccessProof("abc")),
    ],
)
async def test_the_token_beside_the_channel(
    gateway: Gateway, tmp_path: Path, query: str, proof: AccessProof | BearerProof | None
) -> None:
    answer = door_of(gateway, tmp_path).accept(upgrade(f"{channel_of(5, gateway.signer)}?{query}"), HERE)
    assert isinstance(answer, Accepted) and isinstance(answer.handler, NotificationSocket)
    assert answer.handler._proof == proof


async def test_who_guesses_is_put_off_and_others_at_the_same_address_are_not(gateway: Gateway, tmp_path: Path) -> None:
    few = replace(gateway, limits=replace(gateway.limits, guesses=Rate(0.001, 3)))
    door, channel = door_of(few, tmp_path), channel_of(5, gateway.signer)
    answers = [status(door, f"/websocket/{number}.x") for number in range(6)]
    assert answers == [404, 404, 404, 429, 429, 429]
    assert status(door, channel) == 101
    assert status(door, "/websocket/5.x", THERE) == 404


async def test_a_client_that_reconnects_without_a_pause_is_slowed_down(gateway: Gateway, tmp_path: Path) -> None:
    door, one, other = door_of(gateway, tmp_path), channel_of(5, gateway.signer), channel_of(6, gateway.signer)
    answers = [status(door, one) for _ in range(RECONNECTS.burst + 5)]
    assert answers == [101] * RECONNECTS.burst + [429] * 5
    assert status(door, other) == 101


async def test_only_pages_of_allowed_origins_connect(gateway: Gateway, tmp_path: Path) -> None:
    door = door_of(gateway, tmp_path, allowed_origins=("https://app.example.test",))
    channel = channel_of(5, gateway.signer)
    assert status(door, channel, origin="https://app.example.test") == 101
    assert status(door, channel, origin="https://evil.example.test") == 403
    # Native clients name none.
    assert status(door, channel) == 101
    # Nor does a page of another origin learn which channels there are.
    assert status(door, "/websocket/5.x", origin="https://evil.example.test") == 403


async def test_a_server_that_restarts_takes_nobody(gateway: Gateway, tmp_path: Path) -> None:
    leaving = replace(gateway, draining=lambda: True)
    assert status(door_of(leaving, tmp_path), channel_of(5, gateway.signer)) == 503


@pytest.mark.parametrize("base_path", ["", "/chat", "/a/b"])
async def test_channels_are_below_the_base_path(gateway: Gateway, tmp_path: Path, base_path: str) -> None:
    door, channel = door_of(gateway, tmp_path, base_path=base_path), channel_of(5, gateway.signer)
    assert door.takes(base_path + channel) and status(door, base_path + channel) == 101
    for path in ("/chatter" + channel, "/rtm/websocket", "/websocket", "/"):
        assert not door.takes(path)


async def test_who_is_behind_a_trusted_proxy_is_whom_it_names(gateway: Gateway, tmp_path: Path) -> None:
    for trusted, address in (((), HERE.address), ((HERE.address,), "203.0.113.9")):
        door = door_of(gateway, tmp_path, trusted_proxies=trusted)
        answer = door.accept(upgrade(channel_of(5, gateway.signer), forwarded="203.0.113.9"), HERE)
        assert isinstance(answer, Accepted) and isinstance(answer.handler, NotificationSocket)
        assert answer.handler._client.address == address and answer.handler._client.protocol == "kandy"


def test_the_channel_of_a_subscription_that_is_gone_is_refused_once_that_was_told(
    gateway: Gateway, tmp_path: Path
) -> None:
    door = door_of(gateway, tmp_path)
    gone, other = channel_of(5, gateway.signer), channel_of(6, gateway.signer)
    assert status(door, gone) == 101
    gateway.gone.add(5)
    assert (status(door, gone), status(door, other)) == (404, 101)


def test_only_the_latest_that_are_gone_are_kept_in_mind() -> None:
    recent = Recent(3)
    for number in (1, 2, 3, 3, 4):
        recent.add(number)
    assert len(recent) == 3 and [number in recent for number in (1, 2, 3, 4)] == [False, True, True, True]
