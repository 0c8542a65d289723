"""The hub: who hears what, in which order, and nothing twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.support import CLIENT, Outlet, Stay, lose, rename, resume, start, until

from offhook.app import Core, open_core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import PresenceChanged, UserBlocked, UserUpdated, application_topic, user_topic
from offhook.services import hub as hub_module
from offhook.settings import Settings

NAMES = [f"N{number:03d}" for number in range(40)]


async def test_every_session_of_a_topic_hears_everything_in_order(core: Core, application: Application) -> None:
    await core.users.create(application, "john")
    stays = [await start(core, f"user-{number}") for number in range(10)]
    await rename(core, "john", *NAMES)
    for stay in stays:
        assert stay.outlet.names(UserUpdated) == NAMES
        offsets = [publication.position.offset for publication in stay.outlet.heard]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))


async def test_the_users_own_topic_is_heard_by_all_of_their_sessions_and_by_nobody_else(core: Core) -> None:
    first, second, other = await start(core, "jane"), await start(core, "jane"), await start(core, "john")
    await rename(core, "jane", "Jane")
    for stay in (first, second):
        # What everybody may know of a user, the user's own topic tells them; once is enough.
        assert [p.topic for p in stay.outlet.heard if type(p.event) is UserUpdated] == [user_topic(stay.live.user_id)]
        assert stay.live.user.display_name == "Jane"
    assert {publication.topic for publication in other.outlet.heard} == {
        application_topic(other.live.record.application_id)
    }


async def test_tenants_do_not_hear_each_other(core: Core) -> None:
    elsewhere, _ = await core.applications.create("elsewhere")
    here, there = await start(core, "jane"), await start(core, "jane", elsewhere)
    here.outlet.heard.clear()
    await rename(core, "jane", "Jane")
    assert here.outlet.names(UserUpdated) == ["Jane"]
    assert there.outlet.heard == []
    await start(core, "john", elsewhere)
    assert [event.user.application_id for event in there.outlet.events] == [elsewhere.id]


async def test_a_held_session_gets_what_came_meanwhile_when_it_is_released(
    core: Core, application: Application
) -> None:
    await core.users.create(application, "john")
    outlet = Outlet()
    live = await core.sessions.start(application, "jane", {}, CLIENT, outlet)
    await rename(core, "john", *NAMES)
    assert live.held and outlet.heard == []
    await core.hub.release(live)
    assert outlet.names(UserUpdated) == NAMES
    await core.hub.release(live)
    assert outlet.names(UserUpdated) == NAMES
    await rename(core, "john", "live")
    assert outlet.names(UserUpdated) == [*NAMES, "live"]


@pytest.mark.parametrize("watched", [True, False], ids=["from memory", "from the journal"])
async def test_what_is_published_during_a_release_is_delivered_once_and_in_order(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    # Small pages make the catching up take many rounds, with publications in between; two topics are caught up.
    monkeypatch.setattr(hub_module, "HISTORY_PAGE", 3)
    await core.users.create(application, "john")
    away = [await start(core, "jane") for _ in range(5)]
    witness = await start(core, "witness") if watched else None
    for stay in away:
        await lose(core, stay)
    missed = [f"missed-{number}" for number in range(20)]
    during = [f"during-{number}" for number in range(20)]
    await rename(core, "john", *missed)
    await rename(core, "jane", *(f"own-{number}" for number in range(10)))
    held = [await resume(core, stay, "jane", release=False) for stay in away]
    back = [stay for stay in held if stay is not None]
    assert len(back) == 5
    await asyncio.gather(*(core.hub.release(stay.live) for stay in back), rename(core, "john", *during))
    for stay in back:
        assert not stay.live.held and stay.live.recovered
        assert [name for name in stay.outlet.names(UserUpdated) if name[0] in "md"] == [*missed, *during]
        for topic in stay.live.topics:
            offsets = [p.position.offset for p in stay.outlet.heard if p.topic == topic]
            assert offsets == sorted(set(offsets))
        own = [p for p in stay.outlet.heard if p.topic == user_topic(stay.live.user_id)]
        assert [p.event.user.display_name for p in own] == [f"own-{number}" for number in range(10)]
        assert stay.live.user.display_name == "own-9"
    if witness is not None:
        assert [name for name in witness.outlet.names(UserUpdated) if name[0] in "md"] == [*missed, *during]


async def test_more_than_can_be_set_aside_is_taken_from_the_history(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_HELD", 5)
    await core.users.create(application, "john")
    outlet = Outlet()
    live = await core.sessions.start(application, "jane", {}, CLIENT, outlet)
    await rename(core, "john", *NAMES)
    await core.hub.release(live)
    assert outlet.names(UserUpdated) == NAMES and live.recovered


async def test_two_releases_at_once_deliver_once(core: Core, application: Application) -> None:
    await core.users.create(application, "john")
    outlet = Outlet()
    live = await core.sessions.start(application, "jane", {}, CLIENT, outlet)
    await rename(core, "john", "A", "B")
    await asyncio.gather(*(core.hub.release(live) for _ in range(5)))
    assert outlet.names(UserUpdated) == ["A", "B"]
    assert not live.held and live.release is None


async def test_a_history_that_is_lost_is_told_and_what_follows_is_heard(
    tmp_path_factory: pytest.TempPathFactory, clock: ManualClock
) -> None:
    folder: Path = tmp_path_factory.mktemp("short")
    async with open_core(Settings(data_dir=folder, durability="normal", history_size=5)) as core:
        application, _ = await core.applications.create("default")
        await core.users.create(application, "john")
        stay = await start(core, "jane")
        await lose(core, stay)
        # More than the broker keeps in memory as well, so that nothing remembers the first of them.
        await start(core, "witness")
        await rename(core, "john", *(f"{number}" for number in range(160)))
        assert not await core.hub.recoverable(stay.live)
        back = await resume(core, stay, "jane")
        assert back is not None and not back.live.recovered
        # Not a part of what was missed with a gap inside: the client has to fetch everything anyway.
        assert back.outlet.names(UserUpdated) == []
        await rename(core, "john", "after")
        assert back.outlet.names(UserUpdated) == ["after"]


async def test_who_leaves_hears_no_more_and_may_leave_twice(core: Core, application: Application) -> None:
    jane, john = await start(core, "jane"), await start(core, "john")
    await core.hub.leave(jane.live)
    await core.hub.leave(jane.live)
    assert core.hub.get(jane.id) is None and core.hub.get(john.id) is john.live and len(core.hub) == 1
    jane.outlet.heard.clear()
    await rename(core, "john", "Johnny")
    assert jane.outlet.heard == [] and john.outlet.names(UserUpdated) == ["Johnny"]
    await core.hub.leave(john.live)
    assert list(core.hub) == []


async def test_leaving_during_a_release_breaks_nothing(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "HISTORY_PAGE", 2)
    await core.users.create(application, "john")
    stay, witness = await start(core, "jane"), await start(core, "witness")
    await lose(core, stay)
    await rename(core, "john", *NAMES)
    back = await resume(core, stay, "jane", release=False)
    assert back is not None
    await asyncio.gather(core.hub.release(back.live), core.hub.leave(back.live), rename(core, "john", "after"))
    assert core.hub.get(stay.id) is None
    heard = back.outlet.names(UserUpdated)
    assert heard == [*NAMES, "after"][: len(heard)]
    assert witness.outlet.names(UserUpdated) == [*NAMES, "after"]
    again = await resume(core, stay, "jane")
    assert again is not None and again.outlet.names(UserUpdated) == [*NAMES, "after"]


async def test_an_older_connection_that_leaves_late_takes_nothing_from_the_newer(core: Core) -> None:
    old = await start(core, "jane")
    new = await resume(core, old, "jane")
    assert new is not None
    await core.hub.leave(old.live)
    assert core.hub.get(new.id) is new.live
    await rename(core, "jane", "Jane")
    assert new.outlet.names(UserUpdated) == ["Jane"]


async def test_blocks_silence_both_sides_and_both_ways(core: Core, application: Application) -> None:
    jane, john, witness = [await start(core, name) for name in ("jane", "john", "witness")]
    await core.users.block(application, jane.live.user_id, john.live.user_id)
    await until(lambda: bool(jane.live.blocked) and bool(john.live.blocked))
    for stay in (jane, john, witness):
        stay.outlet.heard.clear()
    await rename(core, "john", "Johnny")
    await rename(core, "jane", "Janey")
    assert set(jane.outlet.names(UserUpdated)) == {"Janey"}
    assert set(john.outlet.names(UserUpdated)) == {"Johnny"}
    assert witness.outlet.names(UserUpdated) == ["Johnny", "Janey"]


async def test_the_one_who_blocks_hears_of_the_block_and_the_other_does_not(
    core: Core, application: Application
) -> None:
    jane, twin, john = [await start(core, name) for name in ("jane", "jane", "john")]
    await core.users.block(application, jane.live.user_id, john.live.user_id)
    assert jane.outlet.names(UserBlocked) == twin.outlet.names(UserBlocked) == ["john"]
    assert john.outlet.names(UserBlocked) == []


async def test_sessions_that_start_later_know_the_blocks(core: Core, application: Application) -> None:
    jane, john = await core.users.create(application, "jane"), await core.users.create(application, "john")
    await core.users.block(application, jane.id, john.id)
    # The command to all nodes is on its way while this session starts.
    stay = await start(core, "jane")
    await until(lambda: stay.live.blocked == frozenset({john.id}))
    await rename(core, "john", "Johnny")
    assert stay.outlet.names(UserUpdated) == []
    await core.users.unblock(application, jane.id, john.id)
    await until(lambda: not stay.live.blocked)
    await rename(core, "john", "Jo")
    assert stay.outlet.names(UserUpdated) == ["Jo"]


async def test_blocks_are_known_after_a_restart(tmp_path: Path, clock: ManualClock) -> None:
    settings = Settings(data_dir=tmp_path, durability="normal")
    async with open_core(settings) as core:
        application, _ = await core.applications.create("default")
        jane, john = [await core.users.create(application, name) for name in ("jane", "john")]
        await core.users.block(application, jane.id, john.id)
    async with open_core(settings) as core:
        stays: list[Stay] = [await start(core, "jane"), await start(core, "john")]
        for stay, other in zip(stays, (john, jane), strict=True):
            assert stay.live.blocked == frozenset({other.id})
        await core.users.change(application, john.id, UserChanges(status="BUSY"))
        assert [event for event in stays[0].outlet.events if type(event) is PresenceChanged] == []
