"""Sessions and their stories."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from tests.contract.systems import NODE, START, System, a_session

from offhook.codes import CloseReason, EndReason
from offhook.domain.accounts import SessionPolicy, User
from offhook.domain.events import application_topic, user_topic
from offhook.domain.sessions import (
    Authentication,
    Client,
    Session,
    SessionState,
    StoryEntry,
    StoryKind,
    end,
    resume,
    story_of_close,
    suspend,
)
from offhook.domain.values import PageRequest
from offhook.errors import NotFound
from offhook.ports import SessionFilter, Transaction

POLICY = SessionPolicy(leave_grace=10, resume_window=100)


async def alice(system: System) -> User:
    return await system.user(await system.application())


async def add(system: System, *sessions: Session) -> list[Session]:
    return await system.store.transact(lambda tx: [tx.sessions.add(session) for session in sessions])


async def get(system: System, session: Session) -> Session | None:
    return await system.store.query(lambda tx: tx.sessions.get(session.id))


async def save(system: System, session: Session, story: StoryEntry | None = None) -> None:
    await system.store.transact(lambda tx: tx.sessions.save(session, story))


def later(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)


async def test_add_ignores_the_id_and_every_field_comes_back(system: System) -> None:
    user = await alice(system)
    full = a_session(
        user,
        id=4711,
        client=Client("kandy", "", "2001:db8::1", False),
        authentication=Authentication.TOKEN,
        state=SessionState.SUSPENDED,
        generation=3,
        node="☎",
        suspended_at=START + later(1),
        leave_at=START + later(2),
        resumable_until=START + later(3),
        resumes=2,
        positions={user_topic(user.id): 5, application_topic(user.application_id): 2**40},
        epoch="e",
        expires_at=START + later(4),
        announces=False,
    )
    ended = a_session(user, state=SessionState.ENDED, ended_at=START, end_reason=EndReason.REPLACED)
    stored = await add(system, full, ended)
    assert stored == [replace(full, id=stored[0].id), replace(ended, id=stored[1].id)]
    assert stored[0].id < stored[1].id
    assert [await get(system, session) for session in stored] == stored
    assert await system.store.query(lambda tx: tx.sessions.get(99_999)) is None


async def test_save_stores_every_field_and_a_line_of_the_story(system: System) -> None:
    user = await alice(system)
    (session,) = await add(system, a_session(user))
    broken = suspend(session, START + later(1), POLICY)
    back = resume(broken, START + later(2), "node-2", Client("kandy", "x", "::1"))
    changed = replace(back, positions={user_topic(user.id): 9}, expires_at=START + later(9), announces=False)
    over = end(changed, START + later(3), EndReason.OPERATOR)
    story = [
        story_of_close(CloseReason.PEER_LOST, "its server died", START + later(1)),
        StoryEntry(START + later(2), StoryKind.RESUMED, detail="from ::1"),
        StoryEntry(START + later(3), StoryKind.ENDED, "operator", "bye ☎"),
    ]
    for state, entry in zip((broken, back, over), story, strict=True):
        await save(system, state, entry)
        assert await get(system, session) == state
    await save(system, over)
    assert await system.store.query(lambda tx: tx.sessions.story(session.id)) == story
    assert await system.store.query(lambda tx: tx.sessions.story(99)) == []
    with pytest.raises(NotFound):
        await system.store.transact(lambda tx: tx.sessions.save(replace(session, id=99), story[0]))


async def test_save_positions_of_many_leaves_all_but_active_ones_of_their_generation_alone(system: System) -> None:
    user = await alice(system)
    suspended = suspend(a_session(user, positions={user_topic(user.id): 99}), START, POLICY)
    over = a_session(user, state=SessionState.ENDED, ended_at=START, end_reason=EndReason.CLIENT)
    others = (over, a_session(user, generation=2), suspended)
    sessions = await add(system, *([a_session(user)] * 300), *others)
    topic = user_topic(user.id)
    rows = [(session.id, 1, {topic: session.id}) for session in sessions]
    await system.store.transact(lambda tx: tx.sessions.save_positions([*rows, (99_999, 1, {topic: 1})]))
    for session in sessions[:-3]:
        assert await get(system, session) == replace(session, positions={topic: session.id})
    for session in sessions[-3:]:
        assert await get(system, session) == session
    await system.store.transact(lambda tx: tx.sessions.save_positions([]))


async def test_live_of_are_the_users_own_that_have_not_ended_oldest_first(system: System) -> None:
    application = await system.application()
    user, other = await system.users(application, "alice", "bob")
    starting = a_session(user, state=SessionState.STARTING)
    suspended = suspend(a_session(user), START, POLICY)
    ended = end(a_session(user), START, EndReason.CLIENT)
    sessions = await add(system, a_session(user), ended, starting, a_session(other), suspended)
    assert await system.store.query(lambda tx: tx.sessions.live_of(user.id)) == [
        sessions[0],
        sessions[2],
        sessions[4],
    ]
    assert await system.store.query(lambda tx: tx.sessions.live_of(99)) == []


async def test_list_filters_and_pages_newest_first(system: System) -> None:
    one, two = await system.application("one"), await system.application("two")
    (a, b), (c,) = await system.users(one, "alice", "bob"), await system.users(two, "alice")
    over = end(a_session(a), START, EndReason.CLIENT)
    s0, s1, s2, s3 = await add(system, a_session(a), over, a_session(b), a_session(c))

    async def found(page: PageRequest | None = None, **where: object) -> list[Session]:
        page = page or PageRequest()
        result = await system.store.query(lambda tx: tx.sessions.list(SessionFilter(**where), page))  # type: ignore[arg-type]
        assert result.request == page
        assert result.total >= len(result.items)
        return list(result.items)

    assert await found() == [s3, s2, s1, s0]
    assert await found(PageRequest(descending=True)) == [s0, s1, s2, s3]
    assert await found(application_id=one.id) == [s2, s1, s0]
    assert await found(user_name="alice") == [s3, s1, s0]
    assert await found(application_id=one.id, user_name="alice") == [s1, s0]
    assert await found(application_id=one.id, user_name="alice", live=True) == [s0]
    assert await found(live=False) == await found(state=SessionState.ENDED) == [s1]
    assert await found(state=SessionState.ACTIVE, user_name="alice") == [s3, s0]
    assert await found(state=SessionState.SUSPENDED) == []
    assert await found(PageRequest(1, 3)) == [s0]
    page = await system.store.query(lambda tx: tx.sessions.list(SessionFilter(live=True), PageRequest(0, 2)))
    assert (list(page.items), page.total, page.has_next) == ([s3, s2], 3, True)


async def test_due_is_who_is_to_leave_or_whose_time_is_over_longest_overdue_first(system: System) -> None:
    on = await alice(system)

    def broken(user: User, at: float) -> Session:
        return suspend(a_session(user), START + later(at), POLICY)

    active, ended = a_session(on), end(broken(on, 0), START, EndReason.CLIENT)
    soon, first, late, over, stays = await add(
        system,
        broken(on, 5),  # leaves at 15
        broken(on, 0),  # leaves at 10
        broken(on, 50),  # leaves at 60
        replace(broken(on, -92), leave_at=None),  # has been seen to; ends at 8
        replace(broken(on, 0), leave_at=None),  # has been seen to; ends at 100
    )
    await add(system, active, ended)

    async def due(at: float, limit: int = 10) -> list[Session]:
        return list(await system.store.query(lambda tx: tx.sessions.due(START + later(at), limit)))

    assert await due(7.999) == []
    assert await due(8) == [over]
    assert await due(12) == [over, first]
    assert await due(15) == [over, first, soon]
    assert await due(15, limit=2) == [over, first]
    assert await due(1000) == [over, first, soon, late, stays]


async def test_due_are_also_who_never_connected_and_who_was_not_renewed(system: System) -> None:
    user = await alice(system)

    def expiring(at: float) -> Session:
        return a_session(user, expires_at=START + later(at))

    def waiting(until: float) -> Session:
        state = SessionState.STARTING
        return a_session(user, state=state, expires_at=START + later(900), resumable_until=START + later(until))

    sessions = await add(
        system,
        expiring(30),
        waiting(20),
        suspend(a_session(user), START, POLICY),  # leaves at 10
        expiring(10),
        waiting(5),
        replace(suspend(expiring(15), START, POLICY), leave_at=None),
        suspend(expiring(25), START, POLICY),
        replace(expiring(500), leave_at=START, resumable_until=START),  # active: neither counts
        replace(waiting(500), expires_at=START, leave_at=START),  # starting: neither counts
        a_session(user, state=SessionState.STARTING),
        end(expiring(1), START, EndReason.NOT_RENEWED),
    )

    def due(at: float, tx: Transaction) -> list[Session]:
        return list(tx.sessions.due(START + later(at), 10))

    expected = [sessions[index] for index in (4, 2, 3, 5, 1, 6, 0)]
    for at, count in ((4.9, 0), (5, 1), (10, 3), (15, 4), (20, 5), (25, 6), (30, 7)):
        assert await system.store.query(partial(due, at)) == expected[:count]
    assert await system.store.query(lambda tx: tx.sessions.due(START + later(30), 4)) == expected[:4]


async def test_a_session_whose_user_is_deleted_is_still_due(system: System) -> None:
    user = await alice(system)
    (session,) = await add(system, replace(suspend(a_session(user), START, POLICY), leave_at=None))
    await system.store.transact(lambda tx: tx.users.delete(user.application_id, user.id))
    assert await system.store.query(lambda tx: tx.sessions.due(START + later(99), 5)) == []
    assert await system.store.query(lambda tx: tx.sessions.due(START + later(100), 5)) == [session]


async def test_active_sessions_by_node(system: System) -> None:
    user = await alice(system)
    suspended = suspend(a_session(user, node="node-9"), START, POLICY)
    over = end(a_session(user, node="node-8"), START, EndReason.CLIENT)
    on_two = a_session(user, node="node-2")
    s0, s1, s2, *_ = await add(system, on_two, a_session(user), on_two, suspended, over)
    assert sorted(await system.store.query(lambda tx: tx.sessions.active_nodes())) == [NODE, "node-2"]
    assert await system.store.query(lambda tx: tx.sessions.active_on("node-2", 10)) == [s0, s2]
    assert len(await system.store.query(lambda tx: tx.sessions.active_on("node-2", 1))) == 1
    assert await system.store.query(lambda tx: tx.sessions.active_on(NODE, 10)) == [s1]
    assert await system.store.query(lambda tx: tx.sessions.active_on("node-9", 10)) == []


async def test_forget_deletes_what_ended_before_with_its_story(system: System) -> None:
    user = await alice(system)
    over = [end(a_session(user), START + later(seconds), EndReason.CLIENT) for seconds in range(5)]
    sessions = await add(system, *over, a_session(user, started_at=START - later(1000)))

    def tell(tx: Transaction) -> None:
        for session in sessions:
            tx.sessions.save(session, StoryEntry(START, StoryKind.RESUMED))

    await system.store.transact(tell)
    forget = system.store.transact
    assert await forget(lambda tx: tx.sessions.forget(START + later(3), 2)) == 2
    assert await forget(lambda tx: tx.sessions.forget(START + later(3), 2)) == 1
    assert await forget(lambda tx: tx.sessions.forget(START + later(3), 2)) == 0
    page = await system.store.query(lambda tx: tx.sessions.list(SessionFilter(), PageRequest()))
    assert list(page.items) == [sessions[5], sessions[4], sessions[3]]
    assert await system.store.query(lambda tx: tx.sessions.story(sessions[0].id)) == []
    assert len(await system.store.query(lambda tx: tx.sessions.story(sessions[3].id))) == 1


async def test_the_id_of_a_forgotten_session_is_never_given_again(system: System) -> None:
    user = await alice(system)
    (last,) = await add(system, end(a_session(user), START, EndReason.CLIENT))
    await system.store.transact(lambda tx: tx.sessions.forget(START + later(1), 10))
    (following,) = await add(system, a_session(user))
    assert following.id > last.id
