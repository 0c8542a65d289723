"""The Python client of Kandy against a real server: what is heard, through losses, cancellations and the end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from tests.e2e.python_kandy import (
    ALICE,
    BOB,
    CHEAP,
    PRODUCTS,
    Product,
    add_users,
    host_of,
    kandy_tasks,
    network,
    phone,
    sessions,
    signed_off,
)
from tests.served import Site, served
from tests.support import free_port

from offhook import kandy
from offhook.app import Server
from offhook.client import transport
from offhook.client.kandy import subscription
from offhook.codes import EndReason
from offhook.core import open_core
from offhook.ports import SessionFilter
from offhook.services import passwords
from offhook.settings import Settings


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


@contextlib.asynccontextmanager
async def restarted(data_dir: Path, port: int) -> AsyncIterator[Site]:
    """The server of a data folder that had one already."""
    settings = Settings(data_dir=data_dir, port=port, durability="normal", drain_seconds=0.0)
    async with open_core(settings) as core:
        server = Server(core)
        (endpoint, *_) = await server.start()
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Site(core, server, endpoint.url, "", http)
        at_once = asyncio.Event()
        at_once.set()
        await server.stop(at_once)


async def ticks(number: int) -> None:
    """Lets the event loop turn."""
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("here", PRODUCTS)
@pytest.mark.parametrize("there", PRODUCTS)
async def test_messages_and_presence_both_ways(site: Site, here: Product, there: Product) -> None:
    async with phone(host_of(site), here) as alice, phone(host_of(site), there) as bob:
        await alice.sign_in(ALICE)
        await bob.sign_in(BOB)
        sent = await alice.client.conversation.create("sip:" + BOB).send("hällo & 100 % 😀 \ud800")
        await bob.wait(lambda: len(bob.heard) == 1)
        assert bob.heard[0].startswith("hällo & 100 % 😀 ")
        found = bob.client.conversation.get(ALICE)
        assert found is not None and [message.text for message in found.messages] == bob.heard and sent.id
        assert bob.names[-2:] == ["conversations:change", "messages:change"]
        await found.send("back")
        await alice.wait(lambda: alice.heard == ["back"])
        (talk,) = alice.client.conversation.get_all()
        assert [(message.sender, message.incoming) for message in talk.messages] == [(ALICE, False), (BOB, True)]

        await alice.client.presence.subscribe([BOB])
        await alice.wait(lambda: alice.shown(BOB) == ["active"])
        await bob.client.presence.update("open", "busy", "in a call")
        await alice.wait(lambda: alice.shown(BOB)[-1] == "busy")
        assert alice.client.presence.get(BOB) == kandy.Presence(BOB, "open", "busy", "in a call")
        assert alice.client.presence.get_all() == [kandy.Presence(BOB, "open", "busy", "in a call")]
        assert bob.client.presence.get_self() == kandy.Presence(BOB, "open", "busy", "in a call")
        await bob.client.presence.fetch(ALICE)
        await bob.wait(lambda: bob.shown(ALICE) == ["active"])
        await alice.client.presence.unsubscribe(BOB)
        await bob.client.presence.update("open", "lunch")
        await bob.sign_out()
        await alice.client.presence.fetch(BOB)
        await alice.wait(lambda: alice.shown(BOB)[-1] == "unknown")
        assert "lunch" not in alice.shown(BOB)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_message_waits_for_its_reader(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as alice, phone(host_of(site), product) as bob:
        await alice.sign_in(ALICE)
        talk = alice.client.conversation.create(BOB)
        for number in range(3):
            await talk.send(f"number {number}")
        await bob.sign_in(BOB)
        await bob.wait(lambda: bob.heard == ["number 0", "number 1", "number 2"])


@pytest.mark.parametrize("product", PRODUCTS)
async def test_what_is_refused(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as page:
        await page.sign_in()
        for text, to in (("to nobody", "nobody@example.com"), ("x" * 20_000, BOB)):
            with pytest.raises(kandy.KandyError) as failed:
                await page.client.conversation.create(to).send(text)
            assert page.of(kandy.MessagesError)[-1] == kandy.MessagesError(failed.value, to)
            number = "42" if text == "to nobody" else "37"
            assert failed.value.code == ("messaging:5" if product == "link" else number) and failed.value.message
        for code, call in (
            ("presence:1", page.client.presence.update("ajar", "busy")),
            ("presence:2", page.client.presence.update("open", "asleep")),
            ("presence:4", page.client.presence.subscribe([])),
            ("NO_CODE", page.client.presence.update("open", "busy", "x" * 300)),
        ):
            with pytest.raises(kandy.KandyError) as failed:
                await call
            assert failed.value.code == code and page.of(kandy.PresenceError)[-1].error is failed.value


async def test_conversations_that_the_server_keeps(site: Site) -> None:
    async with phone(host_of(site), "uc") as alice, phone(host_of(site), "uc") as bob:
        await alice.sign_in(ALICE)
        await bob.sign_in(BOB)
        with pytest.raises(kandy.KandyError) as failed:
            await alice.client.conversation.create(BOB).fetch_messages()
        assert failed.value.code == "messaging:6" and alice.names[-2:] == ["conversations:new", "messages:error"]
        sent = await alice.client.conversation.create(BOB).send("one")
        await bob.client.conversation.create(ALICE).send("two")
        await alice.wait(lambda: alice.heard == ["two"])
        async with phone(host_of(site), "uc") as again:
            await again.sign_in(ALICE)
            (talk,) = await again.client.conversation.fetch()
            assert (talk.destination, talk.last_message) == (BOB, "two") and talk.last_received is not None
            got = await talk.fetch_messages(10)
            assert [(message.sender, message.text) for message in got] == [(ALICE, "one"), (BOB, "two")]
            assert got == talk.messages and got[0].id == sent.id
            await talk.delete(got[0])
            assert [message.text for message in await talk.fetch_messages()] == ["two"]
            await talk.delete()
            assert again.client.conversation.get_all() == [] and await again.client.conversation.fetch() == []
        async with phone(host_of(site), "link") as link:
            with pytest.raises(kandy.KandyError) as failed:
                await link.client.conversation.fetch()
            assert failed.value.code == "messaging:8"


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_network_that_breaks(site: Site, product: Product) -> None:
    async with network(site) as proxy, phone(proxy.host, product) as alice, phone(host_of(site)) as bob:
        await alice.sign_in(ALICE)
        await bob.sign_in(BOB)
        await alice.client.presence.subscribe(BOB)
        await alice.wait(lambda: alice.shown(BOB) == ["active"])
        (session,) = await sessions(site)
        talk = bob.client.conversation.create(ALICE)
        texts = [f"number {number}" for number in range(12)]
        for number, text in enumerate(texts):
            if number % 3 == 0:
                proxy.go_away()
                await alice.wait(lambda: not alice.open)
            await talk.send(text)
            if number % 3 == 2:
                await proxy.accept()
                await alice.wait(lambda: alice.open)
        await alice.wait(lambda: len(alice.heard) == len(texts))
        assert alice.heard == texts and alice.reasons == []
        await bob.client.presence.update("open", "lunch")
        await alice.wait(lambda: alice.shown(BOB)[-1] == "lunch")
        (same,) = await sessions(site)
        assert same.id == session.id
        ids = [event.notification.get("eventId") for event in alice.of(kandy.NotificationReceived)]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_server_that_comes_back(tmp_path: Path, product: Product) -> None:
    port = free_port()
    async with phone(f"127.0.0.1:{port}", product) as page:
        async with served(tmp_path, port=port) as site:
            await add_users(site)
            await page.sign_in()
        await page.wait(lambda: not page.open)
        assert page.client.get_connection().is_connected
        async with restarted(tmp_path, port) as site:
            await page.wait(lambda: page.open)
            async with phone(host_of(site)) as bob:
                await bob.sign_in(BOB)
                await bob.client.conversation.create(ALICE).send("still there")
                await page.wait(lambda: page.heard == ["still there"])
            assert page.reasons == [] and len(await sessions(site)) == 1
            await page.client.destroy()
            assert await sessions(site) == []


@pytest.mark.parametrize("product", PRODUCTS)
async def test_a_policy_that_gives_up(site: Site, product: Product) -> None:
    policy = kandy.Reconnect(initial=0.01, maximum=0.01, attempts=3)
    async with network(site) as proxy, phone(proxy.host, product, reconnect=policy) as page:
        await page.sign_in()
        proxy.go_away()
        await page.wait(lambda: page.reasons == ["LOST_CONNECTION"])
        assert not page.open and not page.client.get_connection().is_connected
        await proxy.accept()
        await page.sign_in()
        assert page.open


async def test_a_channel_that_nobody_knows_any_more(tmp_path: Path) -> None:
    port = free_port()
    async with phone(f"127.0.0.1:{port}") as page:
        async with served(tmp_path / "one", port=port) as site:
            await add_users(site)
            await page.sign_in()
        # Another server, to which the channel means nothing.
        async with served(tmp_path / "two", port=port):
            await page.wait(lambda: page.reasons == ["LOST_CONNECTION"])


async def duration(site: Site, product: Product) -> float:
    """Seconds that a sign-in takes, the password being known."""
    async with phone(host_of(site), product) as page:
        await page.sign_in()
        await page.sign_out()
        began = time.perf_counter()
        await page.sign_in()
        return time.perf_counter() - began


@pytest.mark.parametrize("product", PRODUCTS)
async def test_sign_ins_that_are_cancelled(site: Site, product: Product) -> None:
    loop, took = asyncio.get_running_loop(), await duration(site, product)
    finished = 0
    for number in range(60):
        async with phone(host_of(site), product) as page:
            call = asyncio.create_task(page.sign_in())
            # The first at once, the last when most are done.
            loop.call_later(took * 1.5 * number / 60, call.cancel)
            outcome = (await asyncio.gather(call, return_exceptions=True))[0]
            connection = page.client.get_connection()
            assert not connection.is_pending and not page.client.services.get_subscriptions().is_pending
            if isinstance(outcome, asyncio.CancelledError):
                assert not connection.is_connected and not page.open and kandy_tasks() == []
                await signed_off(site)
            else:
                assert outcome is None and connection.is_connected
                finished += 1
            if number % 7 == 0:
                await page.sign_in()
                assert page.client.get_connection().is_connected and len(await sessions(site)) == 1
    assert finished < 60


async def test_changes_that_are_cancelled(site: Site) -> None:
    async with phone(host_of(site)) as page:
        services = page.client.services
        await page.sign_in(services=["IM"])
        for steps in range(0, 40, 2):
            call = asyncio.create_task(services.subscribe(["Presence"]))
            await ticks(steps)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
            assert not services.get_subscriptions().is_pending
            assert services.get_subscriptions().subscribed in (("IM",), ("IM", "Presence"))
            if "Presence" in services.get_subscriptions().subscribed:
                await services.unsubscribe(["Presence"])
        call = asyncio.create_task(services.unsubscribe())
        await ticks(2)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert len(await sessions(site)) == len(services.get_subscriptions().subscribed)


@pytest.mark.parametrize("product", PRODUCTS)
async def test_its_end(site: Site, product: Product) -> None:
    async with phone(host_of(site), product) as page:
        stream = page.client.events("ws:change")
        await page.sign_in()
        calls = [
            asyncio.create_task(page.client.presence.update("open", "busy")),
            asyncio.create_task(page.client.conversation.create(BOB).send("hello")),
        ]
        await asyncio.sleep(0)
        await asyncio.gather(page.client.destroy(), page.client.destroy())
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {kandy.ClientClosed}
        assert [event.connected async for event in stream if isinstance(event, kandy.WsChange)] == [True, False]
        assert await sessions(site) == []
        for call in (page.client.presence.fetch(BOB), page.sign_in()):
            with pytest.raises(kandy.ClientClosed):
                await call
        await page.client.destroy()


@pytest.mark.parametrize("product", PRODUCTS)
async def test_its_end_in_the_middle(site: Site, product: Product) -> None:
    took = await duration(site, product)
    for number in range(30):
        async with phone(host_of(site), product) as page:
            call = asyncio.create_task(page.sign_in())
            await asyncio.wait({call}, timeout=took * 1.2 * number / 30)
            await page.client.destroy()
            # One that was done before is done.
            assert type((await asyncio.gather(call, return_exceptions=True))[0]) in (kandy.ClientClosed, type(None))
            assert kandy_tasks() == []
        await signed_off(site)


async def test_its_end_by_a_handler(site: Site) -> None:
    async with phone(host_of(site)) as page:
        done = asyncio.Event()

        async def leave(event: kandy.SubscriptionChange) -> None:
            if event.reason is not None:
                await page.client.destroy()
                done.set()

        page.client.on("subscription:change", leave)
        await page.sign_in()
        await site.core.sessions.end_all(SessionFilter(user_name=ALICE), EndReason.OPERATOR)
        async with asyncio.timeout(10):
            await done.wait()


@pytest.mark.parametrize("product", PRODUCTS)
async def test_its_end_while_the_network_is_silent(
    site: Site, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscription, "GRACE", 0.3)
    monkeypatch.setattr(transport, "CLOSE_TIMEOUT", 0.2)
    async with network(site) as proxy, phone(proxy.host, product) as page:
        await page.sign_in()
        call = asyncio.create_task(page.client.presence.update("open", "busy"))
        proxy.stall()
        await asyncio.sleep(0)
        # One request that nobody answers, and the socket's close twice over.
        async with asyncio.timeout(2):
            await page.client.destroy()
        with pytest.raises(kandy.ClientClosed):
            await call
        proxy.flow()


async def test_handlers_that_fail_cost_nobody_anything(site: Site) -> None:
    complaints: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
    async with phone(host_of(site)) as alice, phone(host_of(site)) as bob:

        def fail(event: kandy.MessagesChange) -> None:
            raise ValueError(event.destination)

        off = alice.client.on("messages:change", fail)
        await alice.sign_in(ALICE)
        await bob.sign_in(BOB)
        talk = bob.client.conversation.create(ALICE)
        await talk.send("one")
        await alice.wait(lambda: alice.heard == ["one"])
        off()
        await talk.send("two")
        await alice.wait(lambda: alice.heard == ["one", "two"])
    assert complaints == ["A handler of events failed"]
