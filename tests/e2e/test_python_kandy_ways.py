"""The Python client of Kandy in other surroundings: over TLS, and in programs that are not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.e2e.python_kandy import (
    ALICE,
    BOB,
    CHEAP,
    PASSWORD,
    PRODUCTS,
    Product,
    add_users,
    configuration,
    host_of,
    phone,
)
from tests.served import served
from tests.support import free_port

from offhook import kandy
from offhook.services import passwords


@pytest.fixture(autouse=True)
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost little."""
    monkeypatch.setattr(passwords, "default_hasher", lambda: CHEAP)


def secure(product: Product, port: int) -> dict[str, object]:
    """A configuration with the protocols that it has if it names none."""
    place, socket = {"server": "localhost", "port": port}, {"server": "localhost", "port": port}
    if product == "link":
        return {
            "authentication": {"server": {"base": "localhost", "port": port}},
            "subscription": {"websocket": socket},
        }
    return {"authentication": {"subscription": place, "websocket": socket}}


@pytest.mark.parametrize("product", PRODUCTS)
async def test_over_tls(tmp_path: Path, product: Product) -> None:
    port = free_port()
    async with served(tmp_path, tls_dev=True, tls_port=port) as site:
        await add_users(site)
        config = secure(product, port)
        async with (
            phone(host_of(site), product) as bob,
            kandy.create(config, verify=tmp_path / "tls" / "authority.pem") as client,
        ):
            await sign_in(client)
            await bob.sign_in(BOB)
            async with client.events("messages:change") as events, asyncio.timeout(10):
                await bob.client.conversation.create(ALICE).send("over TLS")
                event = await anext(events)
                assert isinstance(event, kandy.MessagesChange) and event.message is not None
                assert event.message.text == "over TLS"
        # Who trusts nobody of that kind does not even show a password.
        async with kandy.create(config) as client:
            with pytest.raises(kandy.KandyError, match="certificate") as failed:
                await sign_in(client)
            assert failed.value.code == ("authentication:4" if product == "link" else "authentication:9")


async def sign_in(client: kandy.Client) -> None:
    """Connects in the way of its product."""
    if client.config.product == "uc":
        await client.connect(username=ALICE, password=PASSWORD)
    else:
        client.set_credentials(username=ALICE, password=PASSWORD)
        await client.services.subscribe(["IM"])


def talk_to_itself(product: Product, host: str) -> tuple[list[str], set[str]]:
    """A program that is not asynchronous; what it heard, and in which threads its handlers were called."""
    threads: set[str] = set()
    with kandy.Blocking() as blocking:
        transport = blocking.enter(kandy.Transport(trust_env=False, timeout=5.0))
        client = blocking.enter(kandy.create(configuration(product, host), transport=transport))
        client.on("auth:change", lambda _: threads.add(threading.current_thread().name))
        stream = client.events("auth:change", "messages:change")
        if product == "uc":
            blocking.run(client.connect(username=ALICE, password=PASSWORD))
        else:
            blocking.call(client.set_credentials, username=ALICE, password=PASSWORD)
            blocking.run(client.services.subscribe(["IM"]))
        with pytest.raises(kandy.KandyError):
            blocking.run(client.presence.update("ajar", "busy"))
        blocking.run(client.conversation.create(ALICE).send("hello"))
        heard: list[str] = []
        for event in blocking.iterate(stream):
            if isinstance(event, kandy.MessagesChange) and event.message is not None:
                heard.append(event.message.text)
                if event.message.incoming:
                    break
    return heard, threads


@pytest.mark.parametrize("product", PRODUCTS)
async def test_without_asyncio(tmp_path: Path, product: Product) -> None:
    async with served(tmp_path) as site:
        await add_users(site)
        async with asyncio.timeout(15):
            heard, threads = await asyncio.to_thread(talk_to_itself, product, host_of(site))
        assert set(heard) == {"hello"} and threads == {"offhook"}
