"""Messages between pages of all builds (Kandy protocol notes, section 6)."""

from __future__ import annotations

import msgspec
import pytest
from tests.kandy.products import Product
from tests.kandy.stage import PASSWORD, KandyStage

pytestmark = pytest.mark.asyncio(loop_scope="session")

ODD = ("hello", 'quo"te\\', "<b>&amp;</b>", "päivää ✓ 🎉", "two\nlines", "x" * 4000)


async def test_conversation(stage: KandyStage, product: Product) -> None:
    alice, a = await stage.someone(product, "alice")
    bob, b = await stage.someone(product, "bob")
    await alice.say(b, "hello")
    await bob.hears(a, "hello")
    await alice.spoke(b, "hello")
    first = bob.events("conversations:change", "messages:change")[0]
    assert first.name == "conversations:change"
    await bob.say(a, "hi")
    await alice.hears(b, "hi")
    await bob.spoke(a, "hi")
    await alice.say(b, "how are you?")
    await bob.hears(a, "hello", "how are you?")
    for page in (alice, bob):
        assert page.names("messages:error") == []
        assert page.complaints() == []


async def test_text_arrives_as_it_was_sent(stage: KandyStage, product: Product) -> None:
    alice, a = await stage.someone(product, "alice")
    bob, b = await stage.someone(product, "bob")
    for number, text in enumerate(ODD, 1):
        await alice.say(b, text)
        await bob.hears(a, *ODD[:number])


async def test_every_build_understands_every_other(stage: KandyStage, product: Product, builds: list[Product]) -> None:
    alice, a = await stage.someone(product, "alice")
    for other in builds:
        if str(other) == str(product):
            continue
        bob, b = await stage.someone(other, "bob")
        await alice.say(b, f"from {product}")
        await bob.hears(a, f"from {product}")
        await bob.say(a, f"from {other}")
        await alice.hears(b, f"from {other}")
        await bob.tab.kill()


async def test_message_waits_for_its_recipient(stage: KandyStage, product: Product) -> None:
    alice, a = await stage.someone(product, "alice")
    b = await stage.user("bob")
    await alice.say(b, "one")
    await alice.say(b, "two")
    await alice.spoke(b, "one", "two")
    bob = await stage.page(product)
    await bob.sign_in(b, PASSWORD)
    await bob.hears(a, "one", "two")
    await alice.say(b, "three")
    await bob.hears(a, "one", "two", "three")
    # Another device is told what comes from now on, and what is not known to have arrived: at worst the last of it.
    again = await stage.page(product)
    await again.sign_in(b, PASSWORD)
    await alice.say(b, "four")
    await bob.hears(a, "one", "two", "three", "four")

    async def probe() -> list[str]:
        return [said.text for said in await again.messages(a)]

    heard = await again.tab.eventually(probe, lambda texts: "four" in texts, "the fourth")
    assert heard == ["one", "two", "three", "four"][-len(heard) :]


async def test_all_devices_of_the_recipient_hear_it(stage: KandyStage, product: Product) -> None:
    alice, a = await stage.someone(product, "alice")
    bob, b = await stage.someone(product, "bob")
    second = await stage.page(product)
    await second.sign_in(b, PASSWORD)
    await alice.say(b, "hello")
    await bob.hears(a, "hello")
    await second.hears(a, "hello")


async def test_sender_hears_no_echo(stage: KandyStage, product: Product) -> None:
    alice, a = await stage.someone(product, "alice")
    _, b = await stage.someone(product, "bob")
    await alice.say(b, "hello")
    await alice.spoke(b, "hello")
    await alice.tab.quiet(1, "frame")
    assert alice.notifications("IM") == alice.notifications("im") == []
    # To oneself it is a message like any other.
    await alice.say(a, "note")
    await alice.tab.until(lambda: len(alice.notifications("IM") + alice.notifications("im")) == 1, "the note")


async def test_unknown_recipient_is_an_error(stage: KandyStage, product: Product) -> None:
    alice, _ = await stage.someone(product, "alice")
    await alice.say("nobody@example.com", "hello?")
    if product.tells_unsent:
        error = await alice.wait("messages:error")
        # The message is what the SDK calls the error, and has the error in it.
        unsent = msgspec.convert(error.fields["error"], dict[str, object])
        why = msgspec.convert(unsent["error"], dict[str, object])
        assert why["code"] == "messaging:5" if product.link else isinstance(why["code"], int)
        assert "undefined" not in str(why["message"])
    else:
        await alice.wait("messages:change", lambda event: "messageId" not in event.fields)
    assert alice.complaints() == []
    _, b = await stage.someone(product, "bob")
    await alice.say(b, "and on")
    await alice.spoke(b, "and on")
