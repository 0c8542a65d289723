"""Messages between two users."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.contract.systems import START, System, a_user

from offhook.domain.accounts import User
from offhook.domain.messages import Conversation, Message, Thread
from offhook.errors import NotFound
from offhook.ports import Transaction


def write(tx: Transaction, sender: User, recipient: User, text: str, seconds: float = 0) -> Message:
    """Stores a message as a service would."""
    conversation = tx.messages.conversation(sender, recipient)
    return tx.messages.add(
        Message(
            4711,
            sender.application_id,
            conversation.id,
            sender.id,
            sender.name,
            recipient.id,
            recipient.name,
            text,
            START + timedelta(seconds=seconds),
        )
    )


async def send(system: System, sender: User, recipient: User, *texts: str) -> list[Message]:
    return await system.store.transact(lambda tx: [write(tx, sender, recipient, text) for text in texts])


async def mark(system: System, *marks: tuple[int, int]) -> None:
    await system.store.transact(lambda tx: tx.messages.mark_delivered(marks))


async def waiting(system: System, user: User) -> int:
    return await system.store.query(lambda tx: tx.messages.waiting(user.id))


async def undelivered(
    system: System, user: User, after: int = 0, until: int = 2**60, limit: int = 100
) -> list[Message]:
    return list(await system.store.query(lambda tx: tx.messages.undelivered(user.id, after, until, limit)))


async def listed(system: System, user: User, conversation_id: int, limit: int = 100) -> list[Message]:
    return list(await system.store.query(lambda tx: tx.messages.list(user.id, conversation_id, limit)))


async def threads(system: System, user: User, limit: int = 100) -> list[Thread]:
    return list(await system.store.query(lambda tx: tx.messages.threads(user.id, limit)))


async def hide(system: System, user: User, conversation_id: int, message_id: int | None = None) -> int:
    return await system.store.transact(lambda tx: tx.messages.hide(user.id, conversation_id, message_id))


async def people(system: System, *names: str) -> list[User]:
    return await system.users(await system.application(), *(names or ("alice", "bob", "carol")))


async def test_there_is_one_conversation_between_two_users_whoever_begins_it(system: System) -> None:
    alice, bob, carol = await people(system)

    def find(tx: Transaction) -> list[Conversation]:
        return [
            tx.messages.conversation(one, other)
            for one, other in ((bob, alice), (alice, bob), (alice, carol), (alice, alice))
        ]

    found = await system.store.transact(find)
    assert found == [
        Conversation(found[0].id, alice.application_id, alice.id, bob.id),
        found[0],
        Conversation(found[2].id, alice.application_id, alice.id, carol.id),
        Conversation(found[3].id, alice.application_id, alice.id, alice.id),
    ]
    assert len({each.id for each in found}) == 3
    assert await system.store.transact(find) == found
    assert await threads(system, alice) == []


async def test_add_ignores_the_id_every_field_comes_back_and_ids_grow(system: System) -> None:
    alice, bob, carol = await people(system, "alice", "bob:☎", "carol")
    (first,) = await send(system, bob, alice, "Ünïcode ☎\n\u2028")
    (second,) = await send(system, alice, bob, "y" * 16384)
    assert (first.sender, first.recipient, first.text) == ("bob:☎", "alice", "Ünïcode ☎\n\u2028")
    assert first.id < second.id and first.conversation_id == second.conversation_id
    everyone = (alice, bob, carol)
    got = await system.store.query(lambda tx: [tx.messages.get(user.id, first.id) for user in everyone])
    assert got == [first, first, None]
    assert [await listed(system, user, first.conversation_id) for user in everyone] == [[first, second]] * 2 + [[]]
    # Not even the id of one that is gone for good comes again.
    assert await hide(system, alice, first.conversation_id) + await hide(system, bob, first.conversation_id) == 4
    assert (await send(system, alice, bob, "again"))[0].id > second.id


async def test_nothing_is_stored_where_no_conversation_is(system: System) -> None:
    alice, bob, _ = await people(system)
    message = Message(0, alice.application_id, 99, alice.id, "alice", bob.id, "bob", "hello", START)
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.messages.add(message))
    away = [replace(user, application_id=99) for user in (alice, bob)]
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.messages.conversation(*away))


async def test_what_waits_is_what_came_after_the_mark(system: System) -> None:
    alice, bob, carol = await people(system)
    assert (await waiting(system, alice), await undelivered(system, alice)) == (0, [])
    one, two = await send(system, bob, alice, "1", "2")
    (three,) = await send(system, carol, alice, "3")
    await send(system, alice, bob, "out")
    assert await waiting(system, alice) == three.id
    assert await undelivered(system, alice) == [one, two, three]
    assert await undelivered(system, alice, limit=2) == [one, two]
    assert await undelivered(system, alice, after=one.id) == [two, three]
    assert await undelivered(system, alice, after=one.id, until=two.id) == [two]
    await mark(system, (alice.id, two.id))
    assert await waiting(system, alice) == three.id
    assert await undelivered(system, alice) == [three]
    assert await undelivered(system, alice, until=two.id) == []
    await mark(system, (alice.id, three.id))
    assert (await waiting(system, alice), await undelivered(system, alice)) == (0, [])
    assert await waiting(system, carol) == 0
    assert await waiting(system, bob) > 0


async def test_a_mark_never_goes_back_and_those_of_strangers_are_left_out(system: System) -> None:
    alice, bob, _ = await people(system)
    one, two = await send(system, bob, alice, "1", "2")
    (three,) = await send(system, alice, bob, "3")
    await mark(system, (alice.id, two.id), (99_999, 1), (bob.id, three.id), (alice.id, one.id))
    await mark(system, (alice.id, one.id))
    assert (await waiting(system, alice), await waiting(system, bob)) == (0, 0)
    await mark(system)
    await system.store.transact(lambda tx: tx.users.delete(alice.application_id, alice.id))
    await mark(system, (alice.id, two.id))
    assert await waiting(system, alice) == two.id


async def test_what_the_recipient_deleted_does_not_wait(system: System) -> None:
    alice, bob, _ = await people(system)
    one, two, three = await send(system, bob, alice, "1", "2", "3")
    assert await hide(system, alice, one.conversation_id, three.id) == 1
    assert await hide(system, bob, one.conversation_id, two.id) == 1
    assert await waiting(system, alice) == two.id
    assert await undelivered(system, alice) == [one, two]


async def test_threads_show_the_last_of_each_conversation_the_latest_first(system: System) -> None:
    alice, bob, carol = await people(system)

    def talk(tx: Transaction) -> list[Message]:
        return [
            write(tx, carol, alice, "from carol", 1),
            write(tx, bob, alice, "from bob", 2),
            write(tx, alice, bob, "to bob", 3),
            write(tx, alice, alice, "to myself", 4),
            write(tx, alice, carol, "to carol", 5),
            write(tx, bob, carol, "not hers", 6),
        ]

    m = await system.store.transact(talk)
    with_carol = Thread(m[0].conversation_id, "carol", m[4], m[0].sent_at)
    with_herself = Thread(m[3].conversation_id, "alice", m[3], m[3].sent_at)
    with_bob = Thread(m[1].conversation_id, "bob", m[2], m[1].sent_at)
    assert await threads(system, alice) == [with_carol, with_herself, with_bob]
    assert await threads(system, alice, limit=2) == [with_carol, with_herself]
    assert Thread(m[1].conversation_id, "alice", m[2], m[2].sent_at) in await threads(system, bob)
    ask = system.store.query
    assert await ask(lambda tx: tx.messages.thread(alice.id, with_bob.id)) == with_bob
    assert await ask(lambda tx: tx.messages.thread(alice.id, m[5].conversation_id)) is None
    assert await ask(lambda tx: tx.messages.thread(alice.id, 99)) is None
    assert await ask(lambda tx: tx.messages.thread_with(alice.id, "bob")) == with_bob
    assert await ask(lambda tx: tx.messages.thread_with(alice.id, "alice")) == with_herself
    assert await ask(lambda tx: tx.messages.thread_with(alice.id, "Bob")) is None


async def test_threads_go_by_what_their_user_has_not_deleted(system: System) -> None:
    alice, bob, _ = await people(system)

    def talk(tx: Transaction) -> list[Message]:
        return [write(tx, bob, alice, "1", 1), write(tx, bob, alice, "2", 2), write(tx, alice, bob, "3", 3)]

    first, second, third = await system.store.transact(talk)
    key = first.conversation_id
    assert await hide(system, alice, key, third.id) == 1
    assert await threads(system, alice) == [Thread(key, "bob", second, second.sent_at)]
    assert await threads(system, bob) == [Thread(key, "alice", third, third.sent_at)]
    assert await hide(system, alice, key, second.id) == 1
    assert await threads(system, alice) == [Thread(key, "bob", first, first.sent_at)]
    assert await hide(system, bob, key) == 3
    assert await threads(system, bob) == []
    for find in (lambda tx: tx.messages.thread(bob.id, key), lambda tx: tx.messages.thread_with(bob.id, "alice")):
        assert await system.store.query(find) == Thread(key, "alice", None, None)
    assert await listed(system, alice, key) == [first]


async def test_list_gives_the_newest_oldest_first(system: System) -> None:
    alice, bob, _ = await people(system)
    sent = await send(system, alice, bob, *"abcde")
    assert await listed(system, bob, sent[0].conversation_id, limit=3) == sent[2:]
    assert await hide(system, bob, sent[0].conversation_id, sent[3].id) == 1
    assert await listed(system, bob, sent[0].conversation_id, limit=3) == [sent[1], sent[2], sent[4]]
    assert await listed(system, alice, sent[0].conversation_id, limit=3) == sent[2:]


async def test_hide_touches_only_what_the_user_can_see_there(system: System) -> None:
    alice, bob, carol = await people(system)
    (one,), (two,) = await send(system, alice, bob, "1"), await send(system, alice, carol, "2")
    assert await hide(system, carol, one.conversation_id) == 0
    assert await hide(system, carol, one.conversation_id, one.id) == 0
    assert await hide(system, alice, one.conversation_id, two.id) == 0
    assert await hide(system, alice, 99) == 0
    assert await hide(system, alice, one.conversation_id, one.id) == 1
    assert await hide(system, alice, one.conversation_id, one.id) == 0
    assert await listed(system, bob, one.conversation_id) == [one]
    assert await listed(system, carol, two.conversation_id) == [two]


async def test_a_note_to_oneself_is_hidden_at_once(system: System) -> None:
    alice, *_ = await people(system)
    one, two, three = await send(system, alice, alice, "1", "2", "3")
    assert await waiting(system, alice) == three.id
    assert await hide(system, alice, one.conversation_id, two.id) == 1
    assert await listed(system, alice, one.conversation_id) == [one, three]
    assert await hide(system, alice, one.conversation_id) == 2
    assert await waiting(system, alice) == 0


async def test_messages_outlive_a_deleted_user_and_the_name_begins_anew(system: System) -> None:
    alice, bob, _ = await people(system)
    (out,), (back,) = await send(system, alice, bob, "out"), await send(system, bob, alice, "back")
    await system.store.transact(lambda tx: tx.users.delete(bob.application_id, bob.id))
    old = Thread(out.conversation_id, "bob", back, back.sent_at)
    assert await threads(system, alice) == [old]
    assert await system.store.query(lambda tx: tx.messages.thread_with(alice.id, "bob")) == old
    again = await system.store.transact(lambda tx: tx.users.add(a_user(alice.application_id, "bob")))
    assert (await waiting(system, again), await threads(system, again)) == (0, [])
    (hello,) = await send(system, alice, again, "who are you?")
    assert hello.conversation_id != out.conversation_id
    new = Thread(hello.conversation_id, "bob", hello, None)
    assert await threads(system, alice) == [new, old]
    assert await system.store.query(lambda tx: tx.messages.thread_with(alice.id, "bob")) == new
    assert await listed(system, again, out.conversation_id) == []
    assert await hide(system, alice, out.conversation_id) == 2
    assert await threads(system, alice) == [new]


async def test_what_nobody_is_left_to_read_is_gone(system: System) -> None:
    alice, bob, carol = await people(system)
    (between,) = await send(system, alice, bob, "1")
    (own,), (kept,) = await send(system, alice, alice, "2"), await send(system, carol, alice, "3")

    def delete(tx: Transaction) -> None:
        for user in (bob, alice):
            tx.users.delete(user.application_id, user.id)

    await system.store.transact(delete)
    get = system.store.query
    assert await get(lambda tx: tx.messages.get(alice.id, between.id)) is None
    assert await get(lambda tx: tx.messages.get(alice.id, own.id)) is None
    assert await get(lambda tx: tx.messages.get(carol.id, kept.id)) == kept


async def test_an_application_takes_its_messages_along(system: System) -> None:
    kept, gone = await system.application("kept"), await system.application("gone")
    alice, bob = await system.users(kept, "alice", "bob")
    carol, dave = await system.users(gone, "carol", "dave")
    (here,), (there,) = await send(system, alice, bob, "here"), await send(system, carol, dave, "there")
    await system.store.transact(lambda tx: tx.applications.delete(gone.id))
    assert await system.store.query(lambda tx: tx.messages.get(dave.id, there.id)) is None
    assert await system.store.query(lambda tx: tx.messages.thread(dave.id, there.conversation_id)) is None
    assert await system.store.query(lambda tx: tx.messages.get(bob.id, here.id)) == here
