"""Applications."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.contract.systems import System, a_session, a_user, an_application

from offhook.domain.accounts import DuplicatePolicy, SessionPolicy, TokenPolicy, UserFilter, WebhookPolicy
from offhook.domain.events import Position, UserUpdated, application_topic, user_topic
from offhook.domain.values import PageRequest
from offhook.errors import Conflict, NotFound
from offhook.ports import HistoryLost, SessionFilter, Transaction

FULL = an_application(
    "naïve ☎",
    guests=False,
    enabled=False,
    sessions=SessionPolicy(3, DuplicatePolicy.REJECT_NEW, 0.5, 60.0, 7.5, 8.0),
    tokens=TokenPolicy(("HS256",), secret="s", jwks="https://a.example/jwks", issuer="i", audience="a"),
    webhook=WebhookPolicy("https://a.example/hook", 2.5),
)


async def test_add_ignores_the_id_and_every_field_comes_back(system: System) -> None:
    added = await system.store.transact(lambda tx: tx.applications.add(replace(FULL, id=77)))
    assert added == replace(FULL, id=added.id)
    plain = await system.application("plain")
    assert plain.id != added.id
    applications = system.store.query
    assert await applications(lambda tx: tx.applications.get(added.id)) == added
    assert await applications(lambda tx: tx.applications.by_name("naïve ☎")) == added
    assert await applications(lambda tx: tx.applications.by_api_key(FULL.api_key)) == added
    assert await applications(lambda tx: tx.applications.by_domain(FULL.domain)) == added
    assert await applications(lambda tx: tx.applications.list()) == [added, plain]


async def test_what_is_not_there_is_none(system: System) -> None:
    await system.application("app")
    assert await system.store.query(lambda tx: tx.applications.get(99)) is None
    assert await system.store.query(lambda tx: tx.applications.by_name("APP")) is None
    assert await system.store.query(lambda tx: tx.applications.by_api_key("")) is None
    assert await system.store.query(lambda tx: tx.applications.by_domain("example")) is None


async def test_a_domain_is_found_and_unique_whatever_its_case_and_shown_as_given(system: System) -> None:
    wanted = an_application("first", domain="Straße.Example")
    first = await system.store.transact(lambda tx: tx.applications.add(wanted))
    second = await system.application("second")
    assert first.domain == "Straße.Example"
    spelt = ("Straße.Example", "straße.example", "STRASSE.EXAMPLE")
    found = await system.store.query(lambda tx: [tx.applications.by_domain(domain) for domain in spelt])
    assert found == [first] * 3
    with pytest.raises(Conflict, match=r"The domain 'STRASSE\.example' is taken"):
        await system.store.transact(lambda tx: tx.applications.add(an_application("third", domain="STRASSE.example")))
    with pytest.raises(Conflict, match=r"The domain 'strasse\.example' is taken"):
        await system.store.transact(lambda tx: tx.applications.save(replace(second, domain="strasse.example")))
    louder = replace(first, domain="STRASSE.EXAMPLE", guests=False)
    await system.store.transact(lambda tx: tx.applications.save(louder))
    assert await system.store.query(lambda tx: tx.applications.by_domain("straße.example")) == louder
    moved = replace(louder, domain="elsewhere.example")
    await system.store.transact(lambda tx: tx.applications.save(moved))
    assert await system.store.query(lambda tx: tx.applications.by_domain("STRASSE.EXAMPLE")) is None
    await system.store.transact(lambda tx: tx.applications.save(replace(second, domain="strasse.example")))


@pytest.mark.parametrize(("field", "words"), [("name", "name"), ("domain", "domain"), ("api_key", "API key")])
async def test_name_domain_and_api_key_are_unique(system: System, field: str, words: str) -> None:
    first = await system.application("first")
    second = await system.application("second")
    clash = {field: getattr(first, field)}
    with pytest.raises(Conflict, match=f"The {words} '{getattr(first, field)}' is taken"):
        await system.store.transact(lambda tx: tx.applications.add(replace(an_application("third"), **clash)))
    with pytest.raises(Conflict, match=f"The {words} '{getattr(first, field)}' is taken"):
        await system.store.transact(lambda tx: tx.applications.save(replace(second, **clash)))
    assert await system.store.query(lambda tx: tx.applications.list()) == [first, second]


async def test_save_stores_every_field(system: System) -> None:
    added = await system.application()
    changed = replace(FULL, id=added.id)
    await system.store.transact(lambda tx: tx.applications.save(changed))
    assert await system.store.query(lambda tx: tx.applications.get(added.id)) == changed
    await system.store.transact(lambda tx: tx.applications.save(added))
    assert await system.store.query(lambda tx: tx.applications.get(added.id)) == added
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.applications.save(replace(added, id=99)))


async def test_delete_takes_users_blocks_sessions_and_topics_along_and_nothing_else(system: System) -> None:
    kept, gone = await system.application("kept"), await system.application("gone")
    people = {}
    for application in (kept, gone):

        def populate(tx: Transaction, application_id: int = application.id) -> list[object]:
            alice, bob = (tx.users.add(a_user(application_id, name)) for name in ("alice", "bob"))
            tx.users.block(alice.id, bob.id, alice.created_at)
            session = tx.sessions.add(a_session(alice))
            tx.publish(user_topic(alice.id), UserUpdated(alice))
            tx.publish(application_topic(application_id), UserUpdated(alice))
            return [alice, bob, session]

        people[application.id] = await system.store.transact(populate)
    alice, bob, session = people[gone.id]
    place = await system.broker.position(user_topic(alice.id))  # type: ignore[attr-defined]

    def delete(tx: Transaction) -> None:
        tx.publish(application_topic(gone.id), UserUpdated(alice))  # type: ignore[arg-type]
        tx.applications.delete(gone.id)
        assert tx.head(application_topic(gone.id)).offset == 0

    await system.store.transact(delete)
    query = system.store.query
    assert await query(lambda tx: tx.applications.list()) == [kept]
    assert await query(lambda tx: tx.users.get(gone.id, alice.id)) is None  # type: ignore[attr-defined]
    assert await query(lambda tx: tx.users.blocked_either_way(bob.id)) == frozenset()  # type: ignore[attr-defined]
    assert await query(lambda tx: tx.sessions.get(session.id)) is None  # type: ignore[attr-defined]
    assert (await system.broker.position(application_topic(gone.id))).offset == 0
    nowhere = Position(place.epoch, 0)
    assert list(await system.broker.history(application_topic(gone.id), nowhere, 10)) == []
    assert list(await system.broker.history(user_topic(alice.id), nowhere, 10)) == []  # type: ignore[attr-defined]
    with pytest.raises(HistoryLost):
        await system.broker.history(user_topic(alice.id), place, 10)  # type: ignore[attr-defined]

    alice, bob, session = people[kept.id]
    assert await query(lambda tx: tx.users.count(kept.id, UserFilter())) == 2
    assert await query(lambda tx: tx.users.blocked_either_way(bob.id)) == {alice.id}  # type: ignore[attr-defined]
    page = await query(lambda tx: tx.sessions.list(SessionFilter(), PageRequest()))
    assert list(page.items) == [session]
    assert (await system.broker.position(application_topic(kept.id))).offset == 1
    await system.store.transact(lambda tx: tx.applications.delete(gone.id))


async def test_a_big_application_is_emptied_bit_by_bit(system: System) -> None:
    gone, kept = await system.application("gone"), await system.application("kept")

    def populate(tx: Transaction) -> None:
        for application in (gone, kept):
            users = [tx.users.add(a_user(application.id, f"user-{number}")) for number in range(5)]
            for user in users:
                tx.sessions.add(a_session(user))
                tx.messages.conversation(users[0], user)
                tx.publish(user_topic(user.id), UserUpdated(user))

    await system.store.transact(populate)
    rounds = 1
    while await system.store.transact(lambda tx: tx.applications.clear(gone.id, 2)):
        rounds += 1
    assert rounds == 7
    query = system.store.query
    for application, left in ((gone, 0), (kept, 5)):
        where = SessionFilter(application_id=application.id)
        assert (await query(lambda tx, where=where: tx.sessions.list(where, PageRequest()))).total == left  # type: ignore[misc]
        assert await query(lambda tx, key=application.id: tx.users.count(key, UserFilter())) == left  # type: ignore[misc]
    for user_id in range(1, 11):
        assert (await system.broker.position(user_topic(user_id))).offset == (0 if user_id <= 5 else 1)
    assert await query(lambda tx: tx.applications.get(gone.id)) == gone


async def test_the_id_of_a_deleted_application_is_never_given_again(system: System) -> None:
    first = await system.application("first")
    await system.store.transact(lambda tx: tx.applications.delete(first.id))
    assert (await system.application("second")).id > first.id


async def test_nothing_can_be_added_to_an_application_that_is_gone(system: System) -> None:
    user = await system.user(await system.application())
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.users.add(a_user(99)))
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.sessions.add(a_session(replace(user, application_id=99))))
