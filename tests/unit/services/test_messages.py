"""Messages: sent, refused, and delivered by whichever client of the recipient comes first."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.kandy import ALICE, BOB, connected, subscribe, user_of
from tests.unit.services.support import lose, resume, start

from offhook.codes import CloseReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application
from offhook.domain.messages import MAX_TEXT
from offhook.errors import AccessDenied, InvalidInput, NotFound
from offhook.settings import Settings

ALL = 2**62


@pytest.fixture(autouse=True)
async def _people(core: Core, application: Application) -> None:
    for name in (ALICE, BOB):
        await core.users.create(application, name)


async def waiting(core: Core, name: str = BOB) -> Sequence[str]:
    """Texts to a user that nobody is known to have got."""
    user = await user_of(core, name)
    return [message.text for message in await core.messages.undelivered(user.id, 0, ALL, 100)]


@pytest.mark.parametrize("to", [BOB, f"sip:{BOB}", f"SIP:{BOB};x=1", f" {BOB} "])
async def test_a_message_is_told_to_every_client_of_its_recipient(core: Core, to: str) -> None:
    one, two, sender = await start(core, BOB), await start(core, BOB), await start(core, ALICE)
    sent = await core.messages.send(await user_of(core), to, "hello")
    assert (sent.sender, sent.recipient, sent.text) == (ALICE, BOB, "hello") and sent.id > 0
    for stay in (one, two):
        assert stay.outlet.messages == [sent]
    assert sender.outlet.messages == []
    assert await waiting(core) == ["hello"]


async def test_notes_to_oneself_come_back(core: Core) -> None:
    stay = await start(core, ALICE)
    sent = await core.messages.send(await user_of(core), ALICE, "note")
    assert stay.outlet.messages == [sent] and await waiting(core, ALICE) == ["note"]


async def test_what_is_no_message_is_refused_under_its_field(core: Core) -> None:
    alice = await user_of(core)
    for text in ("", "x" * (MAX_TEXT + 1), "a\0"):
        with pytest.raises(InvalidInput) as refused:
            await core.messages.send(alice, BOB, text, "txt")
        assert refused.value.field == "txt"
    assert await waiting(core) == []


async def test_a_list_has_a_size(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = await user_of(core)
    for text in ("a" * 10, "b" * 10, "c" * 10):
        await core.messages.send(alice, ALICE, text)
    monkeypatch.setattr("offhook.services.messages.MAX_CHARACTERS", 20)
    assert [message.text[0] for message in await core.messages.list(alice, ALICE, 50)] == ["b", "c"]
    monkeypatch.setattr("offhook.services.messages.MAX_CHARACTERS", 5)
    assert [message.text[0] for message in await core.messages.list(alice, ALICE, 50)] == ["c"]
    assert len(await core.messages.threads(alice)) == 1


async def test_unknown_users_and_those_of_others_get_nothing(core: Core) -> None:
    elsewhere, _ = await core.applications.create("elsewhere")
    await core.users.create(elsewhere, "carol")
    for to in ("nobody", "carol", "", "sip:"):
        with pytest.raises(NotFound):
            await core.messages.send(await user_of(core), to, "hello")


async def test_a_block_stands_in_both_ways(core: Core, application: Application) -> None:
    alice, bob = await user_of(core), await user_of(core, BOB)
    await core.messages.send(alice, BOB, "before")
    await core.users.block(application, bob.id, alice.id)
    for sender, to in ((alice, BOB), (bob, ALICE)):
        with pytest.raises(AccessDenied):
            await core.messages.send(sender, to, "hello")
    await core.users.unblock(application, bob.id, alice.id)
    await core.messages.send(alice, BOB, "after")
    assert await waiting(core) == ["before", "after"]


async def test_what_one_client_got_waits_for_no_other(core: Core) -> None:
    alice = await user_of(core)
    line = await connected(core, BOB)
    sent = [await core.messages.send(alice, BOB, f"{number}") for number in range(4)]
    assert line.live is not None
    line.live.taken = sent[2].id
    core.reaper.acked(line.live)
    await core.reaper.save_positions()
    assert await waiting(core) == ["3"]
    # A client that knows less changes nothing about that.
    other = await connected(core, BOB)
    assert other.live is not None
    other.live.taken = sent[0].id
    core.reaper.acked(other.live)
    await core.reaper.save_positions()
    assert await waiting(core) == ["3"]
    line.live.taken = sent[3].id
    await core.sessions.suspend(line.live, CloseReason.PEER_LOST)
    assert await waiting(core) == []


async def test_what_waited_when_messages_were_asked_for_is_known(core: Core) -> None:
    alice = await user_of(core)
    await core.messages.send(alice, BOB, "one")
    two = await core.messages.send(alice, BOB, "two")
    with_messages, without = await subscribe(core, BOB), await subscribe(core, BOB, "call")
    assert with_messages.opened.subscription.backlog == two.id
    assert without.opened.subscription.backlog == 0
    page = await core.messages.undelivered(with_messages.opened.session.user_id, 0, two.id, 1)
    assert [message.text for message in page] == ["one"]
    page = await core.messages.undelivered(with_messages.opened.session.user_id, page[0].id, two.id, 5)
    assert [message.text for message in page] == ["two"]


async def test_nothing_that_nobody_got_is_lost_by_a_restart(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = Settings(data_dir=Path(tmp_path_factory.mktemp("again")), durability="normal")
    async with open_core(settings) as core:
        application, _ = await core.applications.create("default", domain="example.com")
        for name in (ALICE, BOB):
            await core.users.create(application, name)
        line = await connected(core, BOB)
        first = await core.messages.send(await user_of(core), BOB, "got")
        await core.messages.send(await user_of(core), BOB, "not got")
        assert line.live is not None
        line.live.taken = first.id
        core.reaper.acked(line.live)
        await core.reaper.save_positions()
    async with open_core(settings) as core:
        assert await waiting(core) == ["not got"]


async def test_a_client_that_was_away_hears_of_it_in_order(core: Core, clock: ManualClock) -> None:
    stay = await start(core, BOB)
    await lose(core, stay)
    for number in range(5):
        await core.messages.send(await user_of(core), BOB, f"{number}")
    back = await resume(core, stay, BOB)
    assert back is not None and [message.text for message in back.outlet.messages] == list("01234")


async def test_conversations_are_their_users_alone(core: Core, application: Application) -> None:
    alice, bob = await user_of(core), await user_of(core, BOB)
    carol = await core.users.create(application, "carol")
    sent = await core.messages.send(alice, BOB, "one")
    (thread,) = await core.messages.threads(bob)
    assert (thread.peer, thread.last) == (ALICE, sent)
    assert await core.messages.list(bob, thread.id, 10) == await core.messages.list(bob, ALICE, 10) == [sent]
    for key in (thread.id, ALICE, BOB):
        with pytest.raises(NotFound):
            await core.messages.list(carol, key, 10)
        with pytest.raises(NotFound):
            await core.messages.get(carol, key, sent.id)
        with pytest.raises(NotFound):
            await core.messages.delete(carol, key, None)
    await core.messages.delete(bob, ALICE, sent.id)
    with pytest.raises(NotFound):
        await core.messages.delete(bob, ALICE, sent.id)
    assert await waiting(core) == []
    assert await core.messages.get(alice, BOB, sent.id) == sent
