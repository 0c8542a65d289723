"""The pages of the tutorials, as they stand there: what a reader is told to do, and is told to see."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from tests.e2e.tab import Tab
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
CHOOSE = "(id, value) => { document.getElementById(id).value = value }"


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who follows a tutorial.

    Attributes:
        tab: the page.
        name: who this is.
        peer: the other one.
    """

    tab: Tab
    name: str
    peer: str

    async def press(self, button: Literal["in", "out", "watch", "send", "busy"]) -> None:
        await self.tab.click(f"#{button}")

    async def enter(self, password: str = PASSWORD) -> None:
        """Fills the form in and signs in."""
        for field, value in (("me", self.name), ("password", password), ("peer", self.peer)):
            await self.tab.evaluate(CHOOSE, field, value)
        await self.press("in")

    async def signed_in(self, state: Literal["yes", "no"]) -> None:
        async def probe() -> str:
            return await self.tab.text("#state")

        await self.tab.eventually(probe, lambda shown: shown == state, f"the state {state}")

    async def log(self) -> list[str]:
        return (await self.tab.text("#log")).splitlines()

    async def reads(self, pattern: str) -> None:
        """Waits for a line in the log."""
        await self.tab.eventually(
            self.log,
            lambda lines: any(re.fullmatch(pattern, line) for line in lines),
            f"“{pattern}” in the log",
        )


async def reader(stage: KandyStage, product: Product, name: str, peer: str) -> Reader:
    tutorial = "kandy-link" if product.plugin else "kandy-uc"
    found = re.search(r"```html\n(.*?)```", (TUTORIALS / f"{tutorial}.md").read_text(), re.DOTALL)
    assert found is not None
    port = stage.server.tls_host.rpartition(":")[2]
    page, replaced = re.subn(r"'8687'", f"'{port}'", found[1])
    assert replaced == 1
    page, removed = re.subn(r'<script src="kandy.js"></script>', "", page)
    assert removed == 1
    return Reader(await stage.tab(page, [product.script]), name, peer)


async def test_two_readers(stage: KandyStage, product: Product) -> None:
    alice_name, bob_name = await stage.user("alice"), await stage.user("bob")
    alice = await reader(stage, product, alice_name, bob_name)
    bob = await reader(stage, product, bob_name, alice_name)
    await alice.enter()
    await alice.signed_in("yes")
    await alice.reads("subscribed to: call, Presence, IM" if product.plugin else "connected")
    await alice.press("watch")
    await alice.reads(f"{bob_name} is closed, unknown")
    await bob.enter()
    await bob.signed_in("yes")
    await bob.press("watch")
    await alice.reads(f"{bob_name} is open, active")
    await bob.reads(f"{alice_name} is open, active")
    await bob.press("busy")
    await alice.reads(f"{bob_name} is open, busy")
    await alice.press("send")
    await bob.reads(f"{alice_name}: Hello")
    await bob.press("send")
    await alice.reads(f"{bob_name}: Hello")
    assert [line for line in await alice.log() if line.endswith(": Hello")] == [f"{bob_name}: Hello"]

    await bob.press("out")
    await bob.signed_in("no")
    await alice.press("send")
    await bob.press("in")
    await bob.signed_in("yes")

    async def heard() -> int:
        return (await bob.log()).count(f"{alice_name}: Hello")

    await bob.tab.eventually(heard, lambda count: count == 2, "the message that waited")
    await stage.end_sessions(bob_name)
    if product.hears_gone:
        await bob.reads("the server ended it: GONE")
        await bob.signed_in("no")
    assert {session.state for session in await stage.sessions(bob_name)} == {"ended"}
    assert alice.tab.complaints() == bob.tab.complaints() == []


async def test_a_wrong_password(stage: KandyStage, product: Product) -> None:
    name = await stage.user("alice")
    alice = await reader(stage, product, name, "bob@example.com")
    await alice.enter("wrong")
    await alice.reads(rf"refused: .+ \(authentication:{4 if product.link else 9}\)")
    await alice.signed_in("no")
