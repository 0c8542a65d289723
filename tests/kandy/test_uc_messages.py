"""Conversations that Kandy UC keeps on the server (Kandy protocol notes, 6.2)."""

from __future__ import annotations

import msgspec
import pytest
from tests.kandy.page import KandyPage, Said
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")


class _Conversation(msgspec.Struct, frozen=True, rename="camel"):
    destination: list[str]
    type: str
    id: int | str | None = None
    last_message: str | None = None
    last_received: float | None = None


async def _conversations(page: KandyPage) -> list[_Conversation]:
    found = await page.tab.evaluate("() => window.offhook.conversations()")
    return msgspec.convert(found, list[_Conversation])


async def _fetched(page: KandyPage, *peers: str) -> list[_Conversation]:
    """Fetches the threads and waits until those with these users are there."""
    await page.call("conversation.fetch", {"type": "im"})

    async def probe() -> list[_Conversation]:
        return [c for c in await _conversations(page) if c.id is not None]

    return await page.tab.eventually(
        probe, lambda found: {c.destination[0] for c in found} == set(peers), f"threads with {peers}"
    )


async def _history(page: KandyPage, peer: str, amount: int = 50) -> list[Said]:
    since = page.tab.mark
    await page.tab.evaluate("(peer, amount) => window.offhook.fetchMessages(peer, amount)", peer, amount)
    await page.wait("messages:change", since=since)
    return await page.messages(peer)


async def _talk(stage: KandyStage, uc: Product) -> tuple[KandyPage, str, KandyPage, str]:
    alice, a = await stage.someone(uc, "alice")
    bob, b = await stage.someone(uc, "bob")
    for number in range(1, 4):
        await alice.say(b, f"question {number}")
        await bob.say(a, f"answer {number}")
        await alice.tab.until(lambda n=number: len(alice.notifications("im")) == n, "an answer")  # type: ignore[misc]
        await bob.tab.until(lambda n=number: len(bob.notifications("im")) == n, "a question")  # type: ignore[misc]
    return alice, a, bob, b


async def test_threads_and_messages_on_a_new_device(stage: KandyStage, uc: Product) -> None:
    _, a, _, b = await _talk(stage, uc)
    device = await stage.page(uc)
    await device.sign_in(a, PASSWORD)
    (thread,) = await _fetched(device, b)
    assert thread.type == "im"
    assert thread.last_message in ("question 3", "answer 3")
    said = await _history(device, b)
    texts = [(message.sender, message.text) for message in said]
    assert sorted(texts) == sorted(
        (who, f"{what} {n}") for n in (1, 2, 3) for who, what in ((a, "question"), (b, "answer"))
    )
    assert len({message.message_id for message in said}) == 6
    assert device.names("messages:error") == []
    assert device.complaints() == []


async def test_only_the_newest_are_fetched(stage: KandyStage, uc: Product) -> None:
    _, a, _, b = await _talk(stage, uc)
    device = await stage.page(uc)
    await device.sign_in(a, PASSWORD)
    await _fetched(device, b)
    said = await _history(device, b, 2)
    assert {message.text for message in said} == {"question 3", "answer 3"}


async def test_deleting_a_message_and_a_conversation(stage: KandyStage, uc: Product) -> None:
    _, a, bob, b = await _talk(stage, uc)
    device = await stage.page(uc)
    await device.sign_in(a, PASSWORD)
    await _fetched(device, b)
    said = await _history(device, b)
    chosen = next(message for message in said if message.text == "answer 2")
    await device.tab.evaluate("(to, ids) => window.offhook.deleteMessages(to, ids)", b, [chosen.message_id])
    deleted = await device.tab.answered("rm/delete/")
    assert deleted.answer is not None
    assert deleted.answer.json() == {"success": {}}

    other = await stage.page(uc)
    await other.sign_in(a, PASSWORD)
    await _fetched(other, b)
    assert "answer 2" not in {message.text for message in await _history(other, b)}
    await other.tab.evaluate("(to) => window.offhook.deleteConversation(to)", b)
    gone = await other.tab.answered("rm/delete/")
    assert gone.answer is not None
    assert gone.answer.json() == {"success": {}}
    await other.call("conversation.fetch", {"type": "im"})
    answer = (await other.tab.answered("rm/threads", 2)).answer
    assert answer is not None
    assert answer.json() == {"success": []}
    # What one deletes, the other keeps.
    await _fetched(bob, a)
    assert "answer 2" in {message.text for message in await _history(bob, a)}
