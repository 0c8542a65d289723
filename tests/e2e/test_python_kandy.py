"""The Python client of Kandy against a real server: signing in and out, and what goes wrong with it."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest
from tests.e2e.python_kandy import (
    ALICE,
    BOB,
    CHEAP,
    PASSWORD,
    PRODUCTS,
    QUICK,
    SERVICES,
    Phone,
    Product,
    add_users,
    allow,
    configuration,
    host_of,
    phone,
    sessions,
)
from tests.served import Site, served
from tests.support import free_port

from offhook import kandy
from offhook.client.kandy import subscription, uc
from offhook.codes import EndReason
from offhook.domain.accounts import DuplicatePolicy, TokenPolicy
from offhook.ports import SessionFilter
from offhook.protocols.kandy import hmac_token
from offhook.protocols.kandy.hmac_token import HmacClaims
from offhook.services import passwords
from offhook.services.applications import ApplicationChanges

SECRET = "a secret of the application, long enough for HS256"


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost little."""
    monkeypatch.setattr(passwords, "default_hasher", lambda: CHEAP)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A server with two users."""
    async with served(tmp_path) as site:
        await add_users(site)
        yield site


def error_of(failed: pytest.ExceptionInfo[kandy.KandyError]) -> tuple[str, str]:
    """Code and message."""
    return failed.value.code, failed.value.message


async def test_link_tells_each_step(site: Site) -> None:
    async with phone(host_of(site)) as page:
        client = page.client
        assert client.get_user_info() == kandy.UserInfo() and client.services.get_subscriptions().subscribed == ()
        pending: list[bool] = []
        client.on("subscription:change", lambda _: pending.append(client.services.get_subscriptions().is_pending))
        client.set_credentials({"username": ALICE, "password": PASSWORD})
        assert page.names == ["auth:change"] and client.get_user_info().username == ALICE
        await client.services.subscribe(SERVICES, {"forceLogOut": True})
        assert page.names[1:] == ["subscription:change", "ws:change", "subscription:change"]
        assert client.services.get_subscriptions() == kandy.Subscriptions(
            ("call", "Presence", "IM"), ("call", "Presence", "IM"), False
        )
        (session,) = await sessions(site)
        assert session.client.protocol == "kandy"
        await client.services.unsubscribe(SERVICES)
        assert page.names[4:] == ["subscription:change", "ws:change", "subscription:change"]
        assert pending == [True, False, True, False]
        assert await sessions(site) == [] and client.services.get_subscriptions().subscribed == ()


async def test_uc_tells_each_step(site: Site) -> None:
    async with phone(host_of(site), "uc") as page:
        client = page.client
        await client.connect(username=ALICE, password=PASSWORD)
        assert page.names == ["auth:change", "auth:credentialsSet", "ws:change", "auth:change"]
        info, connection = client.get_user_info(), client.get_connection()
        assert info.username == ALICE and info.access_token and info.refresh_token
        assert (connection.is_connected, connection.is_pending, connection.error) == (True, False, None)
        assert connection.subscription.status == "FULL" and connection.subscription.services["IM"] is True
        assert len(await sessions(site)) == 1
        await client.disconnect()
        assert page.names[4:] == ["auth:change", "ws:change", "auth:change"]
        assert not client.get_connection().is_connected and client.get_user_info() == kandy.UserInfo()
        assert await sessions(site) == []


async def test_the_older_way_of_link(site: Site) -> None:
    name, port = site.address
    config = {
        "authentication": {
            "subscription": {"protocol": "http", "server": name, "port": port, "service": SERVICES},
            "websocket": {"protocol": "ws", "server": name, "port": port},
        }
    }
    async with (
        kandy.Transport(trust_env=False) as transport,
        kandy.create(config, product="link", transport=transport) as client,
    ):
        await client.connect({"username": ALICE, "password": PASSWORD}, {"forceLogOut": True})
        assert client.get_connection().is_connected
        await client.disconnect()
        assert not client.get_connection().is_connected and await sessions(site) == []


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("user", [ALICE, "nobody@example.com"])
async def test_a_wrong_password(site: Site, product: Product, user: str) -> None:
    async with phone(host_of(site), product) as page:
        with pytest.raises(kandy.KandyError) as failed:
            await page.sign_in(user, "wrong")
        code, message = error_of(failed)
        if product == "uc":
            assert code == "authentication:9" and message.startswith("There was an error connecting. Error: ")
            assert page.names == ["auth:change", "auth:error"]
            connection = page.client.get_connection()
            assert not connection.is_pending and connection.error is failed.value
            await page.sign_in()
            return
        assert code == "authentication:4"
        assert message.startswith("Failed to subscribe user. Status Code: 4. ") and len(message) > 50
        assert page.names == ["auth:change", "subscription:change", "request:error", "subscription:error"]
        assert page.of(kandy.SubscriptionError)[0].error is failed.value and failed.value.status == 401
        assert not page.client.services.get_subscriptions().is_pending
        await page.sign_in()


@pytest.mark.parametrize("product", PRODUCTS)
async def test_incomplete_credentials(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as page:
        with pytest.raises(kandy.KandyError) as failed:
            await page.sign_in(password="")
        assert failed.value.code == "authentication:1" and page.names == ["auth:error"]


async def test_calls_that_make_no_sense(site: Site) -> None:
    async with phone(host_of(site)) as page:
        client = page.client
        for code, call in (
            ("authentication:1", client.services.subscribe(SERVICES)),
            ("authentication:3", client.services.unsubscribe(SERVICES)),
        ):
            with pytest.raises(kandy.KandyError) as failed:
                await call
            assert failed.value.code == code == page.of(kandy.SubscriptionError)[-1].error.code
        client.set_credentials(username=ALICE, password=PASSWORD)
        with pytest.raises(kandy.KandyError) as failed:
            await client.services.subscribe([])
        assert failed.value.code == "authentication:12"
        await client.services.subscribe(["IM"])
        with pytest.raises(kandy.KandyError) as failed:
            await client.services.unsubscribe(["Presence"])
        assert failed.value.code == "authentication:3"
        with pytest.raises(kandy.KandyError) as failed:
            client.set_credentials(username=BOB, password=PASSWORD)
        assert failed.value.code == "authentication:1"
        with pytest.raises(ValueError, match="no events"):
            client.events("nonsense")


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_server_that_is_not_there(product: Product) -> None:
    async with phone(f"127.0.0.1:{free_port()}", product) as page:
        with pytest.raises(kandy.KandyError) as failed:
            await page.sign_in()
        assert failed.value.code == ("authentication:4" if product == "link" else "authentication:9")


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_socket_that_cannot_be_opened_ends_the_subscription(site: Site, product: Product) -> None:
    config = configuration(product, host_of(site))
    socket = {"protocol": "ws", "server": "127.0.0.1", "port": free_port()}
    if product == "link":
        config["subscription"] = {"websocket": socket}
    else:
        config = {"authentication": {**config["authentication"], "websocket": socket}}  # type: ignore[dict-item]
    async with (
        kandy.Transport(trust_env=False) as transport,
        kandy.create(config, transport=transport, reconnect=QUICK) as client,
    ):
        with pytest.raises(kandy.KandyError) as failed:
            await Phone(client).sign_in()
        assert failed.value.code == ("subscription:1" if product == "link" else "authentication:2")
        assert await sessions(site) == []


async def test_services_come_and_go(site: Site) -> None:
    async with phone(host_of(site)) as page:
        services = page.client.services
        await page.sign_in(services=["IM", "MWI"])
        assert services.get_subscriptions().subscribed == ("IM",)
        (first,) = await sessions(site)
        await services.subscribe(["Presence", "call"])
        assert services.get_subscriptions().subscribed == ("IM", "Presence", "call")
        await services.unsubscribe(["IM"])
        assert services.get_subscriptions().subscribed == ("Presence", "call")
        (same,) = await sessions(site)
        assert same.id == first.id
        await services.unsubscribe()
        assert await sessions(site) == [] and page.reasons == []


async def test_force_log_out_ends_the_oldest(site: Site) -> None:
    await allow(site, max_sessions=1, duplicates=DuplicatePolicy.REJECT_NEW)
    async with phone(host_of(site)) as first, phone(host_of(site)) as second:
        await first.sign_in()
        with pytest.raises(kandy.KandyError) as failed:
            await second.sign_in()
        assert failed.value.code == "authentication:4" and "Status Code: 19." in failed.value.message
        assert second.of(kandy.RequestError) == []
        await second.client.services.subscribe(SERVICES, force_log_out=True)
        await first.wait(lambda: first.reasons == ["GONE"])
        assert first.names[-2:] == ["ws:change", "subscription:change"] and second.reasons == []
        assert first.client.services.get_subscriptions() == kandy.Subscriptions((), ("call", "Presence", "IM"), False)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_renewals(site: Site, product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float]] = []

    def soon(attempt: int, expires: float) -> float:
        asked.append((attempt, expires))
        return 0.05

    monkeypatch.setattr(subscription, "renewal_delay", soon)
    name = "subscription:resub" if product == "link" else "auth:resub"
    async with phone(host_of(site), product, expires=60) as page:
        await page.sign_in()

        def told() -> list[kandy.SubscriptionResub | kandy.AuthResub]:
            return [*page.of(kandy.SubscriptionResub), *page.of(kandy.AuthResub)]

        await page.wait(lambda: len(told()) >= 3)
        assert {(event.name, event.attempt_num, event.is_failure) for event in told()} == {(name, 1, False)}
        assert set(asked) == {(1, 60.0)}
        # It is ended behind its back: the socket is told, unless a renewal is first to find out.
        await site.core.sessions.end_all(SessionFilter(user_name=ALICE), EndReason.OPERATOR)
        await page.wait(lambda: page.reasons == ["GONE"])


@pytest.mark.parametrize("product", PRODUCTS)
async def test_the_operator_ends_it(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as page:
        await page.sign_in()
        await site.core.sessions.end_all(SessionFilter(user_name=ALICE), EndReason.OPERATOR)
        await page.wait(lambda: page.reasons == ["GONE"])
        assert not page.open and not page.client.get_connection().is_connected
        if product == "uc":
            assert page.of(kandy.AuthChange)[-1].forced
        await page.sign_in()
        assert page.client.get_connection().is_connected


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_new_password_ends_it(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as page:
        await page.sign_in()
        await site.core.users.set_password(await site.core.applications.get("default"), ALICE, "another one")
        await page.wait(lambda: page.reasons == ["GONE"])
        with pytest.raises(kandy.KandyError):
            await page.sign_in()
        await page.sign_in(password="another one")


def bearer(user: str = ALICE) -> str:
    """A token of the application's own."""
    claims = {"sub": user, "iat": int(time.time()), "exp": int(time.time()) + 300, "jti": secrets.token_hex(4)}
    return jwt.encode(claims, SECRET, "HS256")


@pytest.mark.parametrize("kind", ["bearer_access_token", "access_token"])
async def test_tokens_of_link(site: Site, kind: str) -> None:
    changes = ApplicationChanges(tokens=TokenPolicy(algorithms=("HS256",), secret=SECRET))
    await site.core.applications.change("default", changes)
    async with phone(host_of(site)) as page:
        page.client.set_credentials({"username": ALICE, kind: bearer()})
        await page.client.services.subscribe(SERVICES)
        page.client.update_token({kind: bearer()})
        assert page.names[-1] == "auth:change"
        await page.client.presence.update("open", "busy")
        page.client.update_token({kind: "no token"})
        with pytest.raises(kandy.KandyError) as failed:
            await page.client.presence.update("open", "away")
        assert failed.value.code == "NO_CODE" and failed.value.status == 401
        assert page.names[-2:] == ["request:error", "presence:error"]
        with pytest.raises(kandy.KandyError):
            page.client.update_token({"password": "x"})
        page.client.update_token({kind: bearer()})
        await page.client.services.unsubscribe()
        assert await sessions(site) == []


async def test_an_hmac_token_is_exchanged(site: Site) -> None:
    application = await site.core.applications.get("default")
    claims = HmacClaims(ALICE, application.domain, int(time.time()), secrets.token_hex(16))
    token = hmac_token.encode(site.core.credentials.hmac_key(application).encode(), claims)
    async with phone(host_of(site)) as page:
        page.client.set_credentials(username=ALICE, hmac_token=token)
        await page.client.services.subscribe(["IM"])
        await page.client.services.subscribe(["Presence"])
        await page.client.presence.update("open", "busy")
        await page.client.services.unsubscribe()
        assert await sessions(site) == []
        # The token was good for once; the session is good for more.
        await page.client.services.subscribe(["IM"])


async def test_ways_into_uc(site: Site) -> None:
    async with phone(host_of(site), "uc") as page, phone(host_of(site), "uc") as other:
        await page.sign_in()
        info = page.client.get_user_info()
        await other.client.connect(username=ALICE, access_token=info.access_token)
        await other.client.presence.update("open", "busy")
        await other.client.connect(username=ALICE, refresh_token=info.refresh_token)
        assert other.client.get_user_info().access_token and other.client.get_user_info().refresh_token
        assert len(await sessions(site)) == 2
        with pytest.raises(kandy.KandyError) as failed:
            await other.client.connect(username=ALICE, refresh_token="nonsense")
        assert failed.value.code == "authentication:8" and len(await sessions(site)) == 1


async def test_uc_refreshes_its_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uc, "refresh_delay", lambda expires, margin: 0.05 if expires > margin else 1000.0)
    async with phone(host_of(site), "uc") as page:
        await page.sign_in()
        first = page.client.get_user_info()
        await page.wait(lambda: page.client.get_user_info().access_token != first.access_token)
        await page.client.presence.update("open", "busy")
        await page.client.conversation.create(BOB).send("with another token")
        assert page.of(kandy.AuthError) == [] and page.reasons == []


async def test_a_token_that_cannot_be_refreshed_ends_the_connection(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uc, "refresh_delay", lambda expires, margin: 0.05)
    async with phone(host_of(site), "uc") as page:
        await page.sign_in()
        access = page.client.get_user_info().access_token
        page.client.update_token(access_token=access, refresh_token="nonsense")
        await page.wait(lambda: page.names[-4:] == ["auth:error", "auth:change", "ws:change", "auth:change"])
        assert page.of(kandy.AuthError)[0].error.code == "authentication:8"
        assert not page.client.get_connection().is_connected and await sessions(site) == []
