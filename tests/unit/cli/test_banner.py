"""What ``offhook serve`` says, and the demo users it can make."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.unit.cli.support import Cli

from offhook.cli.banner import banner, summary
from offhook.cli.demo import USERS, demo_users
from offhook.core import open_core
from offhook.domain.accounts import Application
from offhook.server.info import ServeInfo
from offhook.server.listeners import Endpoint
from offhook.services.passwords import Passwords
from offhook.settings import Settings

APPLICATION = Application(1, "default", "example.com", "the-api-key", "client", "", datetime.now(UTC))


def test_everything_to_know_is_said() -> None:
    info = ServeInfo(
        endpoints=[Endpoint("http", "0.0.0.0", 8686), Endpoint("https", "0.0.0.0", 8687)],
        base_path="/chat",
        application=APPLICATION,
        authority=Path("data/tls/authority.pem"),
        data_dir=Path("data"),
    )
    text = "\n".join(banner(info, {"alice@example.com": "hunter2"}))
    for part in (
        "http://0.0.0.0:8686/chat",
        "https://0.0.0.0:8687/chat",
        "default (guests may sign in)",
        "alice@example.com  password hunter2",
        str(Path("data/tls/authority.pem").resolve()),
        "new ChatKitty({ apiKey: 'the-api-key', host: '127.0.0.1:8686/chat', isSecure: false })",
        "getSdkClient('the-api-key', { $environment: { host: '127.0.0.1:8686/chat', secure: false } })",
    ):
        assert part in text


def test_programs_are_told_the_same() -> None:
    info = ServeInfo([Endpoint("http", "127.0.0.1", 80)], "/chat", APPLICATION, None, Path("data"))
    assert summary(info, {"bob": "x"}) == {
        "urls": ["http://127.0.0.1:80/chat"],
        "application": "default",
        "api_key": "the-api-key",
        "authority": None,
        "data_dir": str(Path("data").resolve()),
        "kandy": None,
        "demo_users": {"bob": "x"},
    }


def test_what_is_not_there_is_not_said() -> None:
    info = ServeInfo([Endpoint("http", "127.0.0.1", 8686)], "", None, None, Path("data"))
    text = "\n".join(banner(info, {}))
    for part in ("API key", "authority", "demo user", "ChatKitty", "Kandy"):
        assert part not in text


def test_a_page_with_kandy_is_told_where_to_connect_and_as_whom() -> None:
    endpoints = [Endpoint("http", "127.0.0.1", 8686), Endpoint("https", "0.0.0.0", 8687)]
    info = ServeInfo(endpoints, "", APPLICATION, None, Path("data"))
    text = "\n".join(banner(info, {"alice@example.com": "hunter2", "bob@example.com": "other"}))
    for part in (
        "the host localhost, port 8687",
        "{ server: { base: 'localhost', port: '8687' } }",
        "{ websocket: { server: 'localhost', port: '8687' } }",
        "{ subscription: { server: 'localhost', port: '8687' }",
        "{ username: 'alice@example.com', password: 'hunter2' }",
    ):
        assert part in text
    assert summary(info, {})["kandy"] == {"host": "localhost", "port": 8687}


def test_a_page_with_kandy_that_could_not_connect_is_told_why() -> None:
    plain = ServeInfo([Endpoint("http", "127.0.0.1", 8686)], "", APPLICATION, None, Path("data"))
    assert "Kandy.js needs TLS" in "\n".join(banner(plain, {}))
    below = ServeInfo([Endpoint("https", "192.0.2.1", 443)], "/chat", APPLICATION, None, Path("data"))
    assert "Kandy.js knows no base path" in "\n".join(banner(below, {}))
    assert summary(below, {})["kandy"] == {"host": "192.0.2.1", "port": 443}


def test_demo_users_can_sign_in_and_stay_the_same(offhook: Cli) -> None:
    settings = Settings()
    passwords = asyncio.run(demo_users(settings))
    assert set(passwords) == {f"{name}@example.com" for name in USERS}
    assert asyncio.run(demo_users(settings)) == passwords
    assert (offhook.data_dir / "demo-users.json").stat().st_mode & 0o077 == 0
    assert offhook.done("app", "show", "default")["domain"] == "example.com"
    assert asyncio.run(_hashes(settings)) == 2


def test_demo_users_are_of_the_applications_domain(offhook: Cli) -> None:
    offhook.done("app", "create", "default", "--domain", "shop.example")
    passwords = asyncio.run(demo_users(Settings()))
    assert set(passwords) == {"alice@shop.example", "bob@shop.example"}
    assert asyncio.run(demo_users(Settings())) == passwords


def test_demo_users_whose_passwords_were_lost_get_new_ones(offhook: Cli) -> None:
    settings = Settings()
    before = asyncio.run(demo_users(settings))
    (offhook.data_dir / "demo-users.json").unlink()
    after = asyncio.run(demo_users(settings))
    assert after != before
    assert asyncio.run(_hashes(settings)) == 2


async def _hashes(settings: Settings) -> int:
    """How many demo users' stored passwords are the ones that were shown."""
    passwords = await demo_users(settings)
    async with open_core(settings) as core:
        application = await core.applications.get("default")
        users = [await core.users.by_name(application, name) for name in passwords]
        hashes = await core.store.query(lambda tx: [tx.users.password_hash(user.id) for user in users])
    checker = Passwords(1)
    try:
        matches = [
            await checker.verify(password, hashed) for password, hashed in zip(passwords.values(), hashes, strict=True)
        ]
    finally:
        await checker.close()
    return sum(matches)


@pytest.mark.parametrize("host", ["::", "::1", "127.0.0.1"])
def test_the_host_to_try_is_one_that_can_be_reached(host: str) -> None:
    info = ServeInfo([Endpoint("http", host, 80)], "", APPLICATION, None, Path("data"))
    expected = {"::": "[::1]:80", "::1": "[::1]:80", "127.0.0.1": "127.0.0.1:80"}[host]
    assert f"host: '{expected}'" in "\n".join(banner(info, {}))
