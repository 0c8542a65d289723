"""The quickstarts of the vendor's documentation, exactly as written (Kandy protocol notes, 13.1, 1 and 2)."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.tab import Tab
from tests.kandy.products import Product
from tests.kandy.quickstarts import quickstart
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOGIN, SUBSCRIBE, UNSUBSCRIBE = "#loginBtn", "#subscribeBtn", "#unsubscribeBtn"
LOGOUT = "input[value=Logout]"


async def _shows(tab: Tab, selector: str, text: str) -> None:
    async def probe() -> str:
        return await tab.text(selector)

    await tab.eventually(probe, lambda shown: shown.strip() == text, f"“{text}” in {selector}")


async def _messages(tab: Tab) -> list[str]:
    """What the page wrote for its user, line by line."""
    found = await tab.evaluate("() => [...document.querySelectorAll('#messages > div')].map((e) => e.textContent)")
    assert isinstance(found, list)
    return [str(line) for line in found]


async def _says(tab: Tab, *lines: str) -> None:
    async def probe() -> list[str]:
        return await _messages(tab)

    await tab.eventually(probe, lambda said: said == list(lines), f"the messages {lines}")


async def test_link_subscribes_and_unsubscribes(stage: KandyStage, quickstarts: Path, plugin: Product) -> None:
    user = await stage.user("reader")
    page = quickstart(quickstarts, "link", stage.server.tls_host, user, PASSWORD)
    tab = await stage.tab(page.body, [plugin.script])
    await tab.click(LOGIN)
    await _says(tab, "Credentials set")
    assert tab.exchanges() == []

    await tab.click(SUBSCRIBE)
    await _shows(tab, "#auth-state", "Subscribed: true")
    pending = ["Subscription state changed.", "Subscribed services: "]
    granted = ["Subscription state changed.", "Subscribed services: call,Presence,IM"]
    await _says(tab, "Credentials set", *pending, *granted)

    await tab.click(UNSUBSCRIBE)
    await _shows(tab, "#auth-state", "Subscribed: false")
    goodbye = "Kandy SDK has been uninitialized, reload the page to reset tutorial."
    assert goodbye in await _messages(tab)
    deleted = await tab.answered("DELETE ")
    assert deleted.answer is not None
    assert deleted.answer.status == 200


async def test_link_tells_a_wrong_password(stage: KandyStage, quickstarts: Path, plugin: Product) -> None:
    user = await stage.user("reader")
    page = quickstart(quickstarts, "link", stage.server.tls_host, user, "wrong")
    tab = await stage.tab(page.body, [plugin.script])
    await tab.click(LOGIN)
    await tab.click(SUBSCRIBE)

    async def probe() -> str:
        return (await _messages(tab))[-1]

    told = await tab.eventually(probe, lambda line: "error" in line, "an error")
    assert told.startswith("Subscription error: Failed to subscribe user.")
    assert told.endswith("Code: 4. (authentication:4)")
    await _shows(tab, "#auth-state", "Subscribed: false")


async def test_uc_connects_and_disconnects(stage: KandyStage, quickstarts: Path, uc: Product) -> None:
    user = await stage.user("reader")
    page = quickstart(quickstarts, "uc", stage.server.tls_host, user, PASSWORD)
    tab = await stage.tab(page.body, [uc.script])
    await tab.click("input[value=Login]")
    await _shows(tab, "#auth-state", "Connected: true")
    await tab.click(LOGOUT)
    await _shows(tab, "#auth-state", "Connected: false")
    assert {*await _messages(tab)} == {"Connection state changed."}


async def test_uc_tells_a_wrong_password(stage: KandyStage, quickstarts: Path, uc: Product) -> None:
    user = await stage.user("reader")
    page = quickstart(quickstarts, "uc", stage.server.tls_host, user, "wrong")
    tab = await stage.tab(page.body, [uc.script])
    await tab.click("input[value=Login]")

    async def probe() -> str:
        return (["", *await _messages(tab)])[-1]

    told = await tab.eventually(probe, lambda line: line.startswith("Connect error"), "an error")
    assert told.startswith("Connect error: There was an error connecting. Error: ")
    assert told.endswith("(authentication:9)")
    assert "undefined" not in told
    await _shows(tab, "#auth-state", "Connected: false")
