"""Words between nodes that were lost, and sessions that were taken for dead: the store says how it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.kandy import ALICE, Line, connected
from tests.unit.services.support import CLIENT, Outlet, Stay, rename, resume, set_policy, start, story_of, until

from offhook.codes import CloseReason, EndReason
from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.events import PresenceChanged, UserUpdated
from offhook.domain.sessions import SessionState, StoryKind
from offhook.errors import AccessDenied, Unavailable
from offhook.ports import Command, Transaction
from offhook.services import reaper as reaper_module
from offhook.services import reconcile as reconcile_module
from offhook.services.applications import ApplicationChanges
from offhook.services.credentials import Identity
from offhook.services.subscriptions import Watching


@contextmanager
def deaf(core: Core, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing that is said to a node is heard."""

    async def send(node: str, command: Command) -> bool:
        return False

    with monkeypatch.context() as patch:
        patch.setattr(core.broker, "send", send)
        yield


async def suspend_as_dead(core: Core, stay: Stay) -> None:
    """Another node finds this one's lease run out."""
    await core.store.transact(lambda tx: core.reaper._bury(core.sessions.node, tx))
    assert await state(core, stay.id) is SessionState.SUSPENDED


async def state(core: Core, session_id: int) -> SessionState:
    return (await core.sessions.show(session_id)).session.state


def watched_by(line: Line) -> tuple[str, ...]:
    """Whom a subscription watches, as far as its connection's node knows."""
    assert line.live is not None and line.live.subscription is not None
    return line.live.subscription.watched


async def test_an_end_that_was_not_heard_is_told(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = [await start(core, name) for name in ("jane", "john", "jack")]
    with deaf(core, monkeypatch):
        await core.sessions.end(stays[0].id, EndReason.OPERATOR, "Go home")
    assert stays[0].outlet.ends == []
    await core.reconciler.reconcile()
    assert stays[0].outlet.ends == [(EndReason.OPERATOR, "Go home")]
    assert core.hub.get(stays[0].id) is None
    assert all(stay.outlet.ends == [] and core.hub.get(stay.id) is stay.live for stay in stays[1:])


async def test_a_session_that_is_forgotten_has_ended(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stay = await start(core, "jane")
    with deaf(core, monkeypatch):
        await core.sessions.end(stay.id, EndReason.OPERATOR)
    await core.store.transact(lambda tx: tx.sessions.forget(core.clock.now(), 10))
    await core.reconciler.reconcile()
    assert [reason for reason, _ in stay.outlet.ends] == [EndReason.OPERATOR]


async def test_a_take_over_that_was_not_heard_is_followed(core: Core) -> None:
    stay = await start(core, "jane")
    application = await core.applications.get("default")
    shown = core.sessions.token_of(stay.live)
    # As another node does it, whose word is lost.
    node, core.sessions.node = core.sessions.node, "another"
    there = core.hub._sessions.pop(stay.id)
    newer = await core.sessions.resume(application, "jane", shown, CLIENT, Outlet())
    assert newer is not None and newer.record.node == "another"
    core.sessions.node = node
    core.hub._sessions[stay.id] = there
    await core.reconciler.reconcile()
    assert stay.outlet.drops == [CloseReason.SUPERSEDED]
    assert await state(core, stay.id) is SessionState.ACTIVE
    await core.hub.leave(newer)


async def test_a_node_taken_for_dead_has_its_sessions_back(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=10.0)
    stay, witness = await start(core, "jane"), await start(core, "john")
    await suspend_as_dead(core, stay)
    await core.reconciler.reconcile()
    assert await state(core, stay.id) is SessionState.ACTIVE
    assert await story_of(core, stay.id) == [StoryKind.STARTED, StoryKind.SUSPENDED, StoryKind.RESUMED]
    # Nobody saw anything of it.
    clock.advance(60.0)
    await core.reaper.sweep()
    assert witness.outlet.events == [] and stay.outlet.ends == [] and stay.outlet.drops == []
    await rename(core, "john", "John")
    assert stay.outlet.names(UserUpdated) == ["John"]


async def test_what_a_client_asked_for_meanwhile_is_known_where_it_is(core: Core, application: Application) -> None:
    line = await connected(core)
    assert line.live is not None
    await core.store.transact(lambda tx: core.reaper._bury(core.sessions.node, tx))
    user = await core.users.by_name(application, ALICE)
    await core.subscriptions.watch(Identity(user), "", ["john"], Watching.WATCH)
    assert watched_by(line) == (), "nobody is told: no node is known to have its connection"
    await core.reconciler.reconcile()
    assert (watched_by(line), line.outlet.changes) == (("john",), 1)
    assert await state(core, line.live.id) is SessionState.ACTIVE


async def test_who_had_left_meanwhile_is_back_for_all(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=10.0, resume_window=600.0)
    stay, witness = await start(core, "jane"), await start(core, "john")
    await suspend_as_dead(core, stay)
    clock.advance(11.0)
    await core.reaper.sweep()
    await core.reconciler.reconcile()
    online = [event.user.online for event in witness.outlet.events if isinstance(event, PresenceChanged)]
    assert online[-1] is True and False in online
    assert await state(core, stay.id) is SessionState.ACTIVE


async def test_what_came_too_late_to_be_resumed_ends(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=1.0, resume_window=5.0)
    stay = await start(core, "jane")
    await suspend_as_dead(core, stay)
    clock.advance(6.0)
    await core.reconciler.reconcile()
    assert await state(core, stay.id) is SessionState.SUSPENDED
    await core.reaper.sweep()
    await asyncio.sleep(0)
    assert await state(core, stay.id) is SessionState.ENDED
    await core.reconciler.reconcile()
    assert [reason for reason, _ in stay.outlet.ends] == [EndReason.LEASE_EXPIRED]


async def test_all_is_learnt_that_was_not_heard(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    john, jane = await start(core, "john"), await start(core, "jane")
    line = await connected(core)
    await core.applications.by_api_key(application.api_key)
    other, _ = await core.applications.create("other")
    await core.applications.by_api_key(other.api_key)
    with deaf(core, monkeypatch):
        await core.users.block(application, john.live.user_id, jane.live.user_id)
        await core.applications.change("other", ApplicationChanges(enabled=False))
        user = await core.users.by_name(application, ALICE)
        await core.subscriptions.watch(Identity(user), "", ["john"], Watching.WATCH)
    assert (watched_by(line), len(john.live.blocked)) == ((), 0)
    await core.reconciler.resync()
    assert (watched_by(line), line.outlet.changes) == (("john",), 1)
    assert john.live.blocked == frozenset({jane.live.user_id})
    assert jane.live.blocked == frozenset({john.live.user_id})
    with pytest.raises(AccessDenied):
        await core.applications.by_api_key(other.api_key)
    # Nothing has changed since, so nothing happens.
    await core.reconciler.resync()
    assert line.outlet.changes == 1 and not any(stay.outlet.ends or stay.outlet.drops for stay in (john, jane))


async def test_a_look_that_fails_harms_nobody(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stay = await start(core, "jane")

    async def away(work: object) -> object:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(core.store, "query", away)
        await core.reconciler.resync()
    assert core.hub.get(stay.id) is stay.live and stay.outlet.ends == []
    back = await resume(core, stay, "jane")
    assert back is not None


async def test_a_lease_that_ran_out_is_looked_after_at_once(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that stood still for longer than its lease does not wait for the next look."""
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(core.reaper, "_lease", 0.0)
    stay = await start(core, "jane")
    await suspend_as_dead(core, stay)
    await core.reaper.start()
    try:
        async with asyncio.timeout(5):
            while await state(core, stay.id) is not SessionState.ACTIVE:
                await asyncio.sleep(0.005)
    finally:
        await core.reaper.stop()


async def test_who_was_late_itself_judges_nobody_for_the_time_of_a_lease(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    lease = 0.6
    monkeypatch.setattr(core.reaper, "_lease", lease)
    monkeypatch.setattr(reaper_module, "JUDGE_EVERY", 0.05)
    judged = list[float]()

    async def bury() -> None:
        judged.append(time.monotonic())

    monkeypatch.setattr(core.reaper, "bury_nodes", bury)
    acquire = core.broker.acquire_lease
    answered = asyncio.Event()

    async def renew(name: str, holder: str, ttl: float) -> bool:
        held = await acquire(name, holder, ttl)
        if judged:
            await answered.wait()
        return held

    monkeypatch.setattr(core.broker, "acquire_lease", renew)
    await core.reaper.start()
    try:
        await until(lambda: bool(judged))
        await asyncio.sleep(lease)
        late = time.monotonic()
        answered.set()
        await until(lambda: judged[-1] > late)
    finally:
        await core.reaper.stop()
    after = [at for at in judged if at > late]
    assert min(after) >= late + lease


async def test_what_could_not_be_learnt_is_learnt_later(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    john, jane = await start(core, "john"), await start(core, "jane")
    with deaf(core, monkeypatch):
        await core.users.block(application, john.live.user_id, jane.live.user_id)

    async def away(work: object) -> object:
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        # The database is away at the moment at which the broker is back.
        patch.setattr(core.store, "query", away)
        await core.reconciler.resync()
    assert john.live.blocked == frozenset()
    await core.reaper.start()
    try:
        await until(lambda: john.live.blocked == frozenset({jane.live.user_id}))
    finally:
        await core.reaper.stop()


async def test_a_word_that_comes_while_all_is_learnt_is_not_forgotten(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    john, jane = await start(core, "john"), await start(core, "jane")
    query = core.store.query

    async def slow(work: Callable[[Transaction], object]) -> object:
        found = await query(work)
        if found == [] and not john.live.blocked:
            # The blocks as they were a moment ago are still on their way.
            await core.users.block(application, john.live.user_id, jane.live.user_id)
            await asyncio.sleep(0)
            assert john.live.blocked == frozenset({jane.live.user_id})
        return found

    with monkeypatch.context() as patch:
        patch.setattr(core.store, "query", slow)
        await core.reconciler.resync()
    assert john.live.blocked == frozenset({jane.live.user_id})
    assert jane.live.blocked == frozenset({john.live.user_id})
    await core.users.unblock(application, john.live.user_id, jane.live.user_id)
    await core.reconciler.resync()
    assert john.live.blocked == jane.live.blocked == frozenset()


async def test_who_is_about_to_be_here_is_no_stray(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stay, lost = await start(core, "jane"), await start(core, "john")
    held = core.hub._sessions
    # Stored as here, and on the way into the hub: as after a start while the broker is slow.
    monkeypatch.setattr(core.hub, "_sessions", {})
    for _ in range(3):
        await core.reconciler.resync()
    assert await state(core, stay.id) is SessionState.ACTIVE
    monkeypatch.setattr(core.hub, "_sessions", {stay.id: held[stay.id]})
    monkeypatch.setattr(reconcile_module, "STRAY_AFTER", 0.0)
    await core.reconciler.reconcile()
    assert await state(core, stay.id) is SessionState.ACTIVE
    assert await state(core, lost.id) is SessionState.SUSPENDED


async def test_a_connection_that_breaks_meanwhile_is_not_given_its_session_back(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay = await start(core, "jane")
    await suspend_as_dead(core, stay)
    transact = core.store.transact

    async def late(work: Callable[[Transaction], object]) -> object:
        monkeypatch.setattr(core.store, "transact", transact)
        await core.sessions.suspend(stay.live, CloseReason.PEER_LOST)
        return await transact(work)

    monkeypatch.setattr(core.store, "transact", late)
    await core.reconciler.reconcile()
    assert await state(core, stay.id) is SessionState.SUSPENDED


async def test_words_that_were_never_said_are_learnt_in_time(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that dies after its commit and before it says so leaves no trace that anyone could notice."""
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(reaper_module, "RESYNC_EVERY", 0.05, raising=False)
    john, jane = await start(core, "john"), await start(core, "jane")
    with deaf(core, monkeypatch):
        await core.users.block(application, john.live.user_id, jane.live.user_id)
    await core.reaper.start()
    try:
        await until(lambda: john.live.blocked == frozenset({jane.live.user_id}))
    finally:
        await core.reaper.stop()
