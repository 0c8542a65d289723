"""What time does: graces run out, windows close, nodes die, positions are saved, the past is forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.kandy import ALICE, connected, subscribe
from tests.unit.services.support import (
    CLIENT,
    WAIT,
    Outlet,
    lose,
    rename,
    resume,
    sessions_of,
    set_policy,
    start,
    story_of,
    until,
)

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application
from offhook.domain.events import PresenceChanged, application_topic
from offhook.domain.sessions import SessionState, StoryKind
from offhook.errors import NotFound, Unavailable
from offhook.services import reaper as reaper_module
from offhook.services import sessions as sessions_module
from offhook.settings import Settings


async def online(core: Core, name: str = "jane") -> bool:
    return (await core.users.by_name(await core.applications.get("default"), name)).online


async def state(core: Core, session_id: int) -> SessionState:
    return (await core.sessions.show(session_id)).session.state


async def test_the_leave_grace_is_exact_and_the_session_outlives_it(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=10.0, resume_window=60.0)
    stay, witness = await start(core, "jane"), await start(core, "john")
    await lose(core, stay)
    clock.advance(9.9)
    await core.reaper.sweep()
    assert await online(core) and witness.outlet.events == []
    clock.advance(0.1)
    await core.reaper.sweep()
    assert not await online(core)
    (event,) = witness.outlet.events
    assert isinstance(event, PresenceChanged) and not event.user.online
    assert await state(core, stay.id) is SessionState.SUSPENDED
    back = await resume(core, stay, "jane")
    assert back is not None and await online(core)
    assert [event.user.online for event in witness.outlet.events] == [False, True]


async def test_sweeping_again_says_nothing_again(core: Core, clock: ManualClock) -> None:
    stay, witness = await start(core, "jane"), await start(core, "john")
    await lose(core, stay)
    clock.advance(11)
    for _ in range(3):
        await core.reaper.sweep()
        clock.advance(5)
    assert len(witness.outlet.events) == 1


async def test_the_resume_window_is_exact(core: Core, clock: ManualClock) -> None:
    await set_policy(core, resume_window=60.0)
    stay = await start(core, "jane")
    await lose(core, stay)
    clock.advance(59.9)
    await core.reaper.sweep()
    assert await state(core, stay.id) is SessionState.SUSPENDED
    clock.advance(0.1)
    await core.reaper.sweep()
    session = (await core.sessions.show(stay.id)).session
    assert (session.state, session.end_reason) == (SessionState.ENDED, EndReason.LEASE_EXPIRED)
    assert await story_of(core, stay.id) == [StoryKind.STARTED, StoryKind.SUSPENDED, StoryKind.ENDED]
    assert core.metrics.session_ends.value("lease_expired") == 1


async def test_a_window_shorter_than_the_grace_ends_both(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=30.0, resume_window=5.0)
    stay = await start(core, "jane")
    await lose(core, stay)
    clock.advance(5)
    await core.reaper.sweep()
    assert await state(core, stay.id) is SessionState.ENDED and not await online(core)


async def test_one_session_left_keeps_the_user_online(core: Core, clock: ManualClock) -> None:
    first, second, witness = [await start(core, name) for name in ("jane", "jane", "john")]
    await lose(core, first)
    clock.advance(100_000)
    await core.reaper.sweep()
    assert await state(core, first.id) is SessionState.ENDED
    assert await online(core) and witness.outlet.events == []
    await core.sessions.end(second.id, EndReason.OPERATOR)
    assert not await online(core) and len(witness.outlet.events) == 1


async def test_a_planned_restart_has_a_longer_grace(core: Core, clock: ManualClock) -> None:
    await set_policy(core, leave_grace=10.0)
    stay = await start(core, "jane")
    await lose(core, stay, CloseReason.DRAINING)
    clock.advance(10 + core.settings.drain_seconds)
    await core.reaper.sweep()
    assert await online(core)
    clock.advance(100)
    await core.reaper.sweep()
    assert not await online(core)


async def test_many_overdue_sessions_take_several_batches(
    core: Core, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (reaper_module, sessions_module):
        monkeypatch.setattr(module, "BATCH", 3)
    stays = [await start(core, f"user-{number % 4}") for number in range(10)]
    for stay in stays:
        await lose(core, stay)
    clock.advance(11)
    await core.reaper.sweep()
    assert [await online(core, f"user-{number}") for number in range(4)] == [False] * 4
    clock.advance(200_000)
    await core.reaper.sweep()
    assert {await state(core, stay.id) for stay in stays} == {SessionState.ENDED}
    assert core.metrics.session_ends.value("lease_expired") == 10


async def test_only_nodes_whose_lease_ran_out_are_buried(tmp_path: Path, core: Core, clock: ManualClock) -> None:
    stay = await start(core, "jane")
    await core.reaper.start()
    async with open_core(Settings(data_dir=tmp_path, durability="normal")) as other:
        await other.reaper.bury_nodes()
        assert await state(core, stay.id) is SessionState.ACTIVE
        await core.reaper.stop()
        await other.reaper.bury_nodes()
        session = (await other.sessions.show(stay.id)).session
        assert session.state is SessionState.SUSPENDED and await online(other)
        story = (await other.sessions.show(stay.id)).story
        assert (story[-1].reason, story[-1].detail) == ("peer_lost", "its server died")
        # Its own sessions it leaves alone, whatever became of its lease.
        mine = await start(other, "john")
        await other.reaper.bury_nodes()
        assert await state(other, mine.id) is SessionState.ACTIVE


async def test_who_is_back_is_not_buried_any_further(
    tmp_path: Path, core: Core, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stays = [await start(core, f"user-{number}") for number in range(3)]
    monkeypatch.setattr(reaper_module, "BATCH", 1)
    async with open_core(Settings(data_dir=tmp_path, durability="normal")) as other:
        holders = iter([None, None, "back"])

        async def holder(name: str) -> str | None:
            return next(holders)

        monkeypatch.setattr(other.broker, "lease_holder", holder)
        await other.reaper.bury_nodes()
    states = [await state(core, stay.id) for stay in stays]
    assert sorted(state.value for state in states) == ["active", "suspended", "suspended"]


async def test_nothing_that_takes_long_keeps_the_lease_from_being_renewed(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(core.reaper, "_lease", 0.15)
    sweeps, renewals = list[int](), list[str]()

    async def sweep() -> None:
        sweeps.append(1)
        await asyncio.Event().wait()

    async def renew(name: str, holder: str, ttl: float) -> bool:
        renewals.append(name)
        return True

    monkeypatch.setattr(core.reaper, "sweep", sweep)
    monkeypatch.setattr(core.broker, "acquire_lease", renew)
    await core.reaper.start()
    try:
        await until(lambda: bool(sweeps))
        before = len(renewals)
        await until(lambda: len(renewals) > before + 3)
    finally:
        await core.reaper.stop()
    assert len(sweeps) == 1


async def test_a_renewal_that_hangs_or_fails_is_tried_again(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.01)
    monkeypatch.setattr(core.reaper, "_lease", 0.06)
    tries = list[int]()

    async def renew(name: str, holder: str, ttl: float) -> bool:
        tries.append(1)
        match len(tries):
            case 2:
                await asyncio.Event().wait()
            case 3:
                raise Unavailable("away")
            case 4:
                raise ZeroDivisionError
        return True

    monkeypatch.setattr(core.broker, "acquire_lease", renew)
    await core.reaper.start()
    try:
        await until(lambda: len(tries) > 6)
    finally:
        await core.reaper.stop()


async def test_a_lease_is_renewed_while_the_node_lives_and_lost_when_it_does_not(
    tmp_path: Path, core: Core, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "SWEEP_EVERY", 0.005)
    stay = await start(core, "jane")
    settings = Settings(data_dir=tmp_path, durability="normal", node_lease=0.03)
    async with open_core(settings) as node:
        name = f"node.{node.sessions.node}"
        await node.reaper.start()
        before = await node.broker.lease_holder(name)
        clock.advance(1)
        renewed: list[str | None] = []
        async with asyncio.timeout(WAIT):
            while not renewed or renewed[-1] is None:
                renewed.append(await node.broker.lease_holder(name))
        assert before == renewed[-1] == node.sessions.node
        # The other node has no lease, so this one's periodic work finds its sessions.
        async with asyncio.timeout(WAIT):
            while await state(node, stay.id) is not SessionState.SUSPENDED:
                await asyncio.sleep(0)
        await node.reaper.stop()
        assert await node.broker.lease_holder(name) is None
        await node.reaper.stop()


async def test_positions_are_saved_in_time_and_with_the_suspension(core: Core, application: Application) -> None:
    stay = await start(core, "jane")
    await rename(core, "jane", "A", "B")
    topic = application_topic(application.id)
    offset = stay.outlet.heard[-1].position.offset
    stay.live.acked[topic] = offset - 1
    core.reaper.acked(stay.live)
    await core.reaper.save_positions()
    assert (await core.sessions.show(stay.id)).session.positions[topic] == offset - 1
    stay.live.acked[topic] = offset
    await lose(core, stay)
    assert (await core.sessions.show(stay.id)).session.positions[topic] == offset
    back = await resume(core, stay, "jane")
    assert back is not None
    assert [p.position.offset for p in back.outlet.heard if p.topic == topic] == []


async def test_unsaved_positions_are_saved_when_the_node_stops(tmp_path: Path, clock: ManualClock) -> None:
    settings = Settings(data_dir=tmp_path, durability="normal")
    async with open_core(settings) as core:
        application, _ = await core.applications.create("default")
        await core.reaper.start()
        stay = await start(core, "jane")
        await rename(core, "jane", "A")
        topic = application_topic(application.id)
        stay.live.acked[topic] = stay.outlet.heard[-1].position.offset
        core.reaper.acked(stay.live)
        await core.reaper.stop()
        expected = dict(stay.live.acked)
    async with open_core(settings) as core:
        assert (await core.sessions.show(stay.id)).session.positions == expected


async def test_ended_sessions_are_forgotten_after_their_time(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "BATCH", 2)
    settings = Settings(data_dir=tmp_path, durability="normal", session_retention=100.0)
    async with open_core(settings) as core:
        await core.applications.create("default")
        old = [await start(core, "jane") for _ in range(5)]
        for stay in old:
            await core.sessions.end(stay.id, EndReason.OPERATOR)
        clock.advance(60)
        recent, living = await start(core, "jane"), await start(core, "jane")
        await core.sessions.end(recent.id, EndReason.OPERATOR)
        clock.advance(41)
        await core.reaper.forget()
        assert [session.id for session in await sessions_of(core, "jane")] == [recent.id, living.id]
        for stay in old:
            with pytest.raises(NotFound):
                await core.sessions.show(stay.id)


async def test_a_session_of_a_deleted_user_is_no_stumbling_block(
    core: Core, application: Application, clock: ManualClock
) -> None:
    gone, other = await start(core, "jane"), await start(core, "john")
    await lose(core, other)
    await core.users.delete(application, gone.live.user_id)
    clock.advance(200_000)
    await core.reaper.sweep()
    assert await state(core, other.id) is SessionState.ENDED
    assert (await core.sessions.show(gone.id)).session.end_reason is EndReason.USER_DELETED
    await until(lambda: bool(gone.outlet.ends))


# --- what clients of notification sockets got


async def test_what_a_user_got_counts_beyond_the_session(core: Core, application: Application) -> None:
    """Signing out at once must not bring a message back at the next sign-in."""
    await core.users.create(application, "john")
    line = await connected(core)
    message = await core.messages.send(await core.users.by_name(application, "john"), ALICE, "hello")
    assert line.live is not None
    line.live.taken = message.id
    core.reaper.acked(line.live)
    await core.sessions.end(line.id, EndReason.CLIENT)
    await until(lambda: bool(line.outlet.ends))
    await core.reaper.save_positions()
    assert (await subscribe(core)).opened.subscription.backlog == 0


async def test_a_connection_is_told_what_is_stored_and_only_that(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await connected(core)
    live, told = line.live, list[int]()
    assert live is not None
    monkeypatch.setattr(type(line.outlet), "saved", lambda _, proof: told.append(proof))
    transact, away = core.store.transact, [True]

    async def failing(work: object) -> object:
        if away[0]:
            raise Unavailable("away")
        # More is proved while this is stored.
        live.proof += 1
        return await transact(work)  # type: ignore[arg-type]

    monkeypatch.setattr(core.store, "transact", failing)
    live.proof = 1
    core.reaper.acked(live)
    with pytest.raises(Unavailable):
        await core.reaper.save_positions()
    assert told == []
    away[0] = False
    await core.reaper.save_positions()
    assert told == [1] and live.proof == 2


async def test_sessions_that_wait_for_their_socket_are_nobodys_strays(core: Core, clock: ManualClock) -> None:
    line = await subscribe(core)
    for _ in range(3):
        await core.reconciler.reconcile()
        await core.reaper.bury_nodes()
    assert await state(core, line.id) is SessionState.STARTING
    clock.advance(1e6)
    await core.reaper.sweep()
    await core.reaper.sweep()
    assert await state(core, line.id) is SessionState.ENDED
    assert core.metrics.session_ends.value("not_renewed") + core.metrics.session_ends.value("not_connected") == 1


async def test_subscriptions_of_a_dead_node_keep_their_own_grace(
    tmp_path: Path, core: Core, clock: ManualClock
) -> None:
    await set_policy(core, leave_grace=1.0, resume_window=5.0, socket_grace=60.0)
    line = await connected(core)
    async with open_core(Settings(data_dir=tmp_path, durability="normal")) as other:
        await other.reaper.bury_nodes()
        clock.advance(59)
        await other.reaper.sweep()
        assert await online(other, ALICE)
        clock.advance(1)
        await other.reaper.sweep()
        assert not await online(other, ALICE)
        assert await state(other, line.id) is SessionState.SUSPENDED
        outlet = Outlet()
        assert await other.sessions.attach(line.id, CLIENT, outlet) is not None
        assert await online(other, ALICE)
