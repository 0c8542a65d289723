"""Users, their passwords and blocks."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from tests.contract.systems import START, System, a_session, a_user

from offhook.domain.accounts import Application, User, UserChanges, UserFilter
from offhook.domain.values import Page, PageRequest
from offhook.errors import Conflict, NotFound
from offhook.ports import Transaction

FULL = a_user(
    0,
    "josé:☎@example.com",
    display_name="José ☎",
    picture="https://a.example/p.png",
    guest=True,
    enabled=False,
    status="Do Not Disturb",
    online=True,
    properties={"a": [1, 2.5, None, {"ü": True}], "big": 2**70, "": "\u2028"},
    closed=True,
    note="back at 5 ☎",
)


async def listed(
    system: System, application: Application, where: UserFilter | None = None, page: PageRequest | None = None
) -> Page[User]:
    where, page = where or UserFilter(), page or PageRequest(size=100)
    found = await system.store.query(lambda tx: tx.users.list(application.id, where, page))
    assert found.total == await system.store.query(lambda tx: tx.users.count(application.id, where))
    assert found.request == page
    return found


async def get(system: System, user: User) -> User | None:
    return await system.store.query(lambda tx: tx.users.get(user.application_id, user.id))


async def change(system: System, user: User, changes: UserChanges) -> User:
    return await system.store.transact(lambda tx: tx.users.change(user, changes))


async def switch(system: System, user: User, online: bool) -> User:
    return await system.store.transact(lambda tx: tx.users.set_online(user, online))


async def test_add_ignores_the_id_and_every_field_comes_back(system: System) -> None:
    application = await system.application()
    wanted = replace(FULL, application_id=application.id, id=1234)
    added = await system.store.transact(lambda tx: tx.users.add(wanted))
    assert added == replace(wanted, id=added.id)
    assert await system.store.query(lambda tx: tx.users.get(application.id, added.id)) == added
    assert await system.store.query(lambda tx: tx.users.by_name(application.id, FULL.name)) == added


async def test_names_are_unique_within_an_application_and_their_case_counts(system: System) -> None:
    one, other = await system.application("one"), await system.application("other")
    alice = await system.user(one, "alice")
    shouting = await system.user(one, "ALICE")
    foreign = await system.user(other, "alice")
    assert len({alice.id, shouting.id, foreign.id}) == 3
    with pytest.raises(Conflict, match="The username 'alice' is taken"):
        await system.user(one, "alice")
    assert await system.store.query(lambda tx: tx.users.by_name(one.id, "ALICE")) == shouting
    assert await system.store.query(lambda tx: tx.users.by_name(one.id, "Alice")) is None
    assert await system.store.query(lambda tx: tx.users.by_name(other.id, "alice")) == foreign


async def test_nothing_crosses_applications(system: System) -> None:
    one, other = await system.application("one"), await system.application("other")
    alice = await system.user(one, "alice")
    assert await system.store.query(lambda tx: tx.users.get(other.id, alice.id)) is None
    assert await system.store.query(lambda tx: tx.users.by_name(other.id, "alice")) is None
    assert (await listed(system, other)).total == 0
    crossing = replace(alice, application_id=other.id)
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.users.change(crossing, UserChanges(status="x")))
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.users.set_online(crossing, True))
    await system.store.transact(lambda tx: tx.users.delete(other.id, alice.id))
    assert await system.store.query(lambda tx: tx.users.get(one.id, alice.id)) == alice


async def test_change_stores_what_is_given_and_leaves_the_rest(system: System) -> None:
    application = await system.application()
    user = await system.user(application)
    changes = UserChanges(
        display_name="Ålice",
        picture="p",
        status="Busy",
        properties={"k": 1},
        guest=True,
        enabled=False,
        closed=True,
        note="Lunch",
    )
    for name in ("display_name", "picture", "status", "properties", "guest", "enabled", "closed", "note"):
        one = UserChanges(**{name: getattr(changes, name)})
        stale = user
        user = await change(system, stale, one)
        assert user == replace(stale, **{name: getattr(changes, name)})
        assert await get(system, user) == user
    again = await system.store.transact(lambda tx: tx.users.change(user, UserChanges()))
    assert again == user
    # A user as read long ago does not bring old values back.
    old = a_user(application.id, id=user.id)
    fresh = await system.store.transact(lambda tx: tx.users.change(old, UserChanges(status="Away")))
    assert fresh == replace(user, status="Away")
    assert [found.id for found in (await listed(system, application, UserFilter(display_name="åLICE"))).items] == [
        user.id
    ]
    off = await system.store.transact(
        lambda tx: tx.users.change(user, UserChanges(guest=False, enabled=True, properties={}))
    )
    assert (off.guest, off.enabled, off.properties) == (False, True, {})


async def test_changing_or_switching_a_user_who_is_gone_is_not_found(system: System) -> None:
    application = await system.application()
    user = await system.user(application)
    await system.store.transact(lambda tx: tx.users.delete(application.id, user.id))
    for work in (
        lambda tx: tx.users.change(user, UserChanges(status="x")),
        lambda tx: tx.users.set_online(user, True),
        lambda tx: tx.users.set_password_hash(user.id, "x"),
        lambda tx: tx.users.block(user.id, user.id, START),
    ):
        with pytest.raises(NotFound):
            await system.store.transact(work)


async def test_set_online(system: System) -> None:
    application = await system.application()
    alice, _bob = await system.users(application, "alice", "bob")
    for online in (True, True, False):
        user = await switch(system, alice, online)
        assert user == replace(alice, online=online)
        assert await system.store.query(lambda tx: tx.users.get(application.id, alice.id)) == user
        assert [u.name for u in (await listed(system, application, UserFilter(online=True))).items] == [
            "alice"
        ] * online


async def test_passwords(system: System) -> None:
    application = await system.application()
    user = await system.user(application)
    assert await system.store.query(lambda tx: tx.users.password_hash(user.id)) is None
    await system.store.transact(lambda tx: tx.users.set_password_hash(user.id, "$argon2id$x"))
    assert await system.store.query(lambda tx: tx.users.password_hash(user.id)) == "$argon2id$x"
    assert await system.store.query(lambda tx: tx.users.get(application.id, user.id)) == replace(
        user, has_password=True
    )
    await system.store.transact(lambda tx: tx.users.set_password_hash(user.id, None))
    assert await system.store.query(lambda tx: tx.users.get(application.id, user.id)) == user
    assert await system.store.query(lambda tx: tx.users.password_hash(99)) is None


async def test_lists_are_ordered_by_display_name_whatever_its_case_then_id(system: System) -> None:
    application = await system.application()
    names = ["bob", "Émile", "alice", "Bob", "ALICE", "émile", "Zoë", "ÉMILE", "élan"]
    users = await system.store.transact(
        lambda tx: [tx.users.add(a_user(application.id, f"n{i}", display_name=name)) for i, name in enumerate(names)]
    )
    expected = sorted(users, key=lambda user: (user.display_name.casefold(), user.id))
    assert [user.display_name for user in expected][:4] == ["alice", "ALICE", "bob", "Bob"]
    assert list((await listed(system, application)).items) == expected
    backwards = await listed(system, application, page=PageRequest(size=100, descending=True))
    assert list(backwards.items) == expected[::-1]


async def test_pages(system: System) -> None:
    application = await system.application()
    users = await system.users(application, *(f"user-{number:02}" for number in range(10)))
    pages = [await listed(system, application, page=PageRequest(number, 4)) for number in range(4)]
    assert [list(page.items) for page in pages] == [users[:4], users[4:8], users[8:], []]
    assert [page.total for page in pages] == [10] * 4
    assert (pages[0].pages, pages[0].has_next, pages[2].has_next, pages[1].has_previous) == (3, True, False, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("50%", {"50% off"}),
        ("%", {"50% off"}),
        ("_", {"snake_case"}),
        ("SNAKE", {"snake_case"}),
        ("\\", {"back\\slash"}),
        ("k\\s", {"back\\slash"}),
        ("É", {"Émile", "émile2"}),
        ("straSSE", {"Straße"}),
        ("", {"50% off", "snake_case", "back\\slash", "Émile", "émile2", "Straße"}),
        ("a\0", set()),
        ("*", set()),
        ("x" * 100_000, set()),
    ],
)
async def test_filter_by_text_in_the_display_name(system: System, text: str, found: set[str]) -> None:
    application, other = await system.application(), await system.application("other")
    await system.users(application, "50% off", "snake_case", "back\\slash", "Émile", "émile2", "Straße")
    await system.users(other, "50% off")
    page = await listed(system, application, UserFilter(display_name=text))
    assert {user.name for user in page.items} == found


async def test_filters_combine(system: System) -> None:
    application = await system.application()
    alice, bob, carol, dave, erin = await system.users(application, "alice", "bob", "carol", "dave", "erin")

    def prepare(tx: Transaction) -> None:
        for user in (alice, bob, carol):
            tx.users.set_online(user, True)
        tx.users.block(alice.id, bob.id, START)
        tx.users.block(dave.id, alice.id, START)

    await system.store.transact(prepare)

    async def found(**where: object) -> set[str]:
        return {user.name for user in (await listed(system, application, UserFilter(**where))).items}  # type: ignore[arg-type]

    assert await found(online=True) == {"alice", "bob", "carol"}
    assert await found(online=False) == {"dave", "erin"}
    assert await found(name="bob") == {"bob"}
    assert await found(name="BOB") == set()
    assert await found(excluding=alice.id) == {"bob", "carol", "dave", "erin"}
    assert await found(visible_to=alice.id) == {"alice", "carol", "erin"}
    assert await found(visible_to=bob.id) == {"bob", "carol", "dave", "erin"}
    assert await found(visible_to=erin.id) == {"alice", "bob", "carol", "dave", "erin"}
    assert await found(visible_to=alice.id, excluding=alice.id, online=True, display_name="R") == {"carol"}
    assert await found(name="bob", online=False) == set()


async def test_blocks(system: System) -> None:
    application = await system.application()
    alice, bob, carol = await system.users(application, "alice", "bob", "carol")
    transact, query = system.store.transact, system.store.query
    later = START + timedelta(microseconds=1)
    assert await transact(lambda tx: tx.users.block(alice.id, bob.id, START)) is True
    assert await transact(lambda tx: tx.users.block(alice.id, bob.id, later)) is False
    assert await transact(lambda tx: tx.users.block(alice.id, carol.id, later)) is True
    assert await transact(lambda tx: tx.users.block(carol.id, bob.id, START)) is True

    page = await query(lambda tx: tx.users.blocks(alice.id, PageRequest()))
    assert (list(page.items), page.total) == ([(carol, later), (bob, START)], 2)
    page = await query(lambda tx: tx.users.blocks(alice.id, PageRequest(1, 1, descending=True)))
    assert (list(page.items), page.total) == ([(carol, later)], 2)
    assert await query(lambda tx: tx.users.blocked_either_way(carol.id)) == {alice.id, bob.id}
    assert await query(lambda tx: tx.users.blocked_either_way(bob.id)) == {alice.id, carol.id}
    assert sorted(await query(lambda tx: tx.users.all_blocks())) == sorted(
        [(alice.id, bob.id), (alice.id, carol.id), (carol.id, bob.id)]
    )
    assert await transact(lambda tx: tx.users.unblock(alice.id, bob.id)) is True
    assert await transact(lambda tx: tx.users.unblock(alice.id, bob.id)) is False
    assert await transact(lambda tx: tx.users.unblock(bob.id, carol.id)) is False
    assert await query(lambda tx: tx.users.blocked_either_way(bob.id)) == {carol.id}


async def test_delete_takes_password_and_blocks_along_and_leaves_past_sessions(system: System) -> None:
    application = await system.application()
    alice, bob, carol = await system.users(application, "alice", "bob", "carol")
    transact, query = system.store.transact, system.store.query

    def prepare(tx: Transaction) -> int:
        tx.users.set_password_hash(alice.id, "x")
        tx.users.block(alice.id, bob.id, START)
        tx.users.block(carol.id, alice.id, START)
        tx.users.block(carol.id, bob.id, START)
        return tx.sessions.add(a_session(alice)).id

    session_id = await transact(prepare)
    await transact(lambda tx: tx.users.delete(application.id, alice.id))
    await transact(lambda tx: tx.users.delete(application.id, alice.id))
    assert await query(lambda tx: tx.users.get(application.id, alice.id)) is None
    assert await query(lambda tx: tx.users.password_hash(alice.id)) is None
    assert await query(lambda tx: tx.users.all_blocks()) == [(carol.id, bob.id)]
    session = await query(lambda tx: tx.sessions.get(session_id))
    assert session is not None and session.user_name == "alice"
    newcomer = await system.user(application, "alice")
    assert newcomer.id > carol.id
    assert not newcomer.has_password


async def test_the_id_of_the_last_user_is_not_given_again_after_a_deletion(system: System) -> None:
    application = await system.application()
    last = await system.user(application, "last")
    await system.store.transact(lambda tx: tx.users.delete(application.id, last.id))
    assert (await system.user(application, "next")).id > last.id
