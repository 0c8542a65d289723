"""The hub: who hears what, in which order, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.kandy import ALICE, Line, attach, connected
from tests.unit.services.support import CLIENT, Outlet, Stay, lose, rename, resume, start, until

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application, UserChanges
from offhook.domain.events import PresenceChanged, UserBlocked, UserUpdated, application_topic, user_topic
from offhook.domain.subscriptions import owing
from offhook.errors import Unavailable
from offhook.gateways.background import settle
from offhook.ports import Command, EndSession, FenceSession, SubscriptionChanged
from offhook.services import hub as hub_module
from offhook.services.credentials import Identity
from offhook.services.hub import LiveSession
from offhook.services.subscriptions import Watching
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
        own = [p.event for p in stay.outlet.heard if p.topic == user_topic(stay.live.user_id)]
        names = [event.user.display_name for event in own if isinstance(event, UserUpdated)]
        assert names == [f"own-{number}" for number in range(10)]
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


# --- sessions that watch certain users


async def watcher(core: Core, *names: str) -> Line:
    line = await connected(core)
    assert line.live is not None
    await core.hub.watch(line.live, frozenset(names))
    await core.hub.release(line.live)
    return line


async def test_who_watches_hears_of_those_alone(core: Core, application: Application) -> None:
    for name in ("john", "jack", "jim"):
        await core.users.create(application, name)
    line = await watcher(core, "john")
    live, outlet = line.live, line.outlet
    assert live is not None
    await rename(core, "john", "John 1")
    await rename(core, "jack", "Jack 1")
    await core.hub.watch(live, frozenset({"john", "jack"}))
    await core.hub.release(live)
    await rename(core, "jack", "Jack 2")
    await core.hub.watch(live, frozenset({"jack"}))
    await core.hub.release(live)
    await rename(core, "john", "John 2")
    await rename(core, "jim", "Jim 1")
    await rename(core, "jack", "Jack 3")
    assert outlet.names(UserUpdated) == ["John 1", "Jack 2", "Jack 3"]
    await core.hub.watch(live, frozenset())
    await rename(core, "jack", "Jack 4")
    assert outlet.names(UserUpdated) == ["John 1", "Jack 2", "Jack 3"]
    assert application_topic(application.id) not in live.topics


async def test_who_watches_nobody_costs_no_topic_of_everybodys(core: Core, application: Application) -> None:
    line = await watcher(core)
    assert line.live is not None and set(core.hub._topics) == {user_topic(line.live.user_id)}
    await core.hub.watch(line.live, frozenset({"john"}))
    assert application_topic(application.id) in core.hub._topics
    await core.hub.watch(line.live, frozenset())
    assert set(core.hub._topics) == {user_topic(line.live.user_id)}


async def test_blocked_users_are_watched_in_vain(core: Core, application: Application) -> None:
    john = await core.users.create(application, "john")
    line = await watcher(core, "john")
    live = line.live
    assert live is not None
    await core.users.block(application, john.id, live.user_id)
    await until(lambda: bool(live.blocked))
    await rename(core, "john", "unheard")
    await core.users.unblock(application, john.id, live.user_id)
    await until(lambda: not live.blocked)
    await rename(core, "john", "heard")
    assert line.outlet.names(UserUpdated) == ["heard"]


async def test_what_is_watched_while_it_is_held_is_caught_up_with(core: Core, application: Application) -> None:
    await core.users.create(application, "john")
    line = await watcher(core, "john")
    assert line.live is not None
    topic = application_topic(application.id)
    await rename(core, "john", "seen")
    line.live.acked[topic] = line.outlet.heard[-1].position.offset
    await core.sessions.suspend(line.live, CloseReason.PEER_LOST)
    await rename(core, "john", "missed 1", "missed 2")
    outlet = Outlet()
    live = await core.sessions.attach(line.id, CLIENT, outlet)
    assert live is not None and live.held and live.watched == frozenset()
    await core.hub.watch(live, frozenset({"john"}))
    await rename(core, "john", "held")
    assert outlet.heard == []
    await core.hub.release(live)
    await rename(core, "john", "live")
    assert outlet.names(UserUpdated) == ["missed 1", "missed 2", "held", "live"]


async def test_who_falls_behind_hears_all_in_order_and_once(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "HISTORY_PAGE", 3)
    monkeypatch.setattr(hub_module, "MAX_HELD", 5)
    await core.users.create(application, "john")
    line = await watcher(core, "john")
    live, outlet = line.live, line.outlet
    assert live is not None
    rounds = [[f"{number}-{one}" for one in range(12)] for number in range(6)]
    for names in rounds:
        sent = {topic: live.acked[topic] for topic in live.topics}
        for publication in outlet.heard:
            sent[publication.topic] = max(sent[publication.topic], publication.position.offset)
        live.fall_behind(sent)
        assert live.held
        await asyncio.gather(rename(core, "john", *names), core.hub.release(live))
        assert not live.held
    assert outlet.names(UserUpdated) == [name for names in rounds for name in names]


async def test_too_much_to_be_looked_through_is_lost_and_what_follows_is_heard(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "MAX_REPLAY", 10)
    for name in ("john", "jack"):
        await core.users.create(application, name)
    topic = application_topic(application.id)
    for number, lost in ((10, False), (11, True)):
        line = await watcher(core, "john")
        assert line.live is not None and topic not in line.live.lost
        await core.sessions.suspend(line.live, CloseReason.PEER_LOST)
        # Most of it is not even about the one who is watched.
        await rename(core, "jack", *(f"{number}-{one}" for one in range(number - 1)))
        await rename(core, "john", f"missed {number}")
        outlet = Outlet()
        live = await core.sessions.attach(line.id, CLIENT, outlet)
        assert live is not None
        seen = live.acked[topic]
        await core.hub.watch(live, frozenset({"john"}))
        assert (topic in live.lost) is lost
        await core.hub.release(live)
        # Whoever is cut off now misses the same again: nothing of it was told yet.
        assert live.acked[topic] == seen
        await rename(core, "john", f"after {number}")
        heard = [name for name in outlet.names(UserUpdated) if name[0] in "ma"]
        assert heard == ([] if lost else [f"missed {number}"]) + [f"after {number}"]


async def test_nothing_is_left_of_those_who_leave(core: Core, application: Application) -> None:
    lines = [await watcher(core, *(f"user-{one}" for one in range(number))) for number in range(6)]
    stay = await start(core, "jane")
    for line in lines:
        assert line.live is not None
        await core.hub.leave(line.live)
        await core.hub.leave(line.live)
    assert set(core.hub._topics) == {user_topic(stay.live.user_id), application_topic(application.id)}
    await core.hub.leave(stay.live)
    assert not core.hub._topics and not core.hub._sessions and not core.broker._heard  # type: ignore[attr-defined]


async def test_who_leaves_while_beginning_to_watch_leaves_nothing(core: Core, application: Application) -> None:
    for _ in range(5):
        line = await connected(core)
        assert line.live is not None
        await asyncio.gather(
            core.hub.watch(line.live, frozenset({"john", "jack"})),
            core.hub.leave(line.live),
            core.hub.watch(line.live, frozenset({"jack"})),
        )
        await core.sessions.suspend(line.live, CloseReason.PEER_LOST)
        assert not core.hub._topics


async def test_an_older_state_of_a_subscription_changes_nothing(core: Core) -> None:
    line = await connected(core)
    live = line.live
    assert live is not None and live.subscription is not None
    old, newer = live.subscription, owing(live.subscription, ["john"])
    newest = owing(newer, ["jack"])
    for told, expected in ((newest, newest), (newer, newest), (old, newest), (newest, newest)):
        core.hub.subscription_changed(SubscriptionChanged(told))
        assert live.subscription == expected
    assert line.outlet.changes == 1
    core.hub.subscription_changed(SubscriptionChanged(replace(newest, session_id=999)))


# --- words of other nodes that come before the session to which they are said


async def on_another_node(core: Core, stay: Stay) -> str:
    """Makes it so that the session's connection is at another node. Returns what its client shows."""
    shown = core.sessions.token_of(stay.live)
    await core.hub.leave(stay.live)
    await core.store.transact(lambda tx: tx.sessions.save(replace(stay.live.record, node="another")))
    return shown


def while_the_other_node_is_told(
    core: Core, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], Awaitable[object]]
) -> None:
    """Something happens while a session is stored as being here, and its former node is told so."""
    send = core.broker.send

    async def slow(node: str, command: Command) -> bool:
        if node != "another":
            return await send(node, command)
        await happens()
        # A word to this node is taken in a later turn.
        await asyncio.sleep(0)
        await settle()
        return True

    monkeypatch.setattr(core.broker, "send", slow)


async def test_a_session_that_ends_on_its_way_here_is_told_so(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stay = await start(core, "jane")
    shown = await on_another_node(core, stay)
    while_the_other_node_is_told(core, monkeypatch, lambda: core.sessions.end(stay.id, EndReason.OPERATOR, "Go home"))
    outlet = Outlet()
    application = await core.applications.get("default")
    assert await core.sessions.resume(application, "jane", shown, CLIENT, outlet) is not None
    assert outlet.ends == [(EndReason.OPERATOR, "Go home")] and core.hub.get(stay.id) is None


async def test_a_session_that_is_taken_over_on_its_way_here_is_dropped(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay = await start(core, "jane")
    shown = await on_another_node(core, stay)
    fence = FenceSession(stay.id, stay.live.record.generation + 2)
    while_the_other_node_is_told(core, monkeypatch, lambda: core.broker.send(core.sessions.node, fence))
    outlet = Outlet()
    application = await core.applications.get("default")
    assert await core.sessions.resume(application, "jane", shown, CLIENT, outlet) is not None
    assert outlet.drops == [CloseReason.SUPERSEDED] and core.hub.get(stay.id) is None


async def test_a_subscription_that_changes_on_its_way_here_is_known(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await connected(core)
    assert line.live is not None
    await core.hub.leave(line.live)
    record = line.live.record
    await core.store.transact(lambda tx: tx.sessions.save(replace(record, node="another")))
    user = await core.users.by_name(application, ALICE)
    while_the_other_node_is_told(
        core, monkeypatch, lambda: core.subscriptions.watch(Identity(user), "", ["john"], Watching.WATCH)
    )
    live = await attach(core, line)
    assert live is not None and live.subscription is not None and live.subscription.watched == ("john",)


async def test_words_to_sessions_that_never_come_are_forgotten(core: Core) -> None:
    for session_id in range(10_000, 10_000 + 3 * hub_module.MAX_EARLY):
        core.hub.addressee(EndSession(session_id, EndReason.CLIENT))
    assert len(core.hub._early) == hub_module.MAX_EARLY


async def test_after_a_gap_nothing_counts_as_handed_out(core: Core, application: Application) -> None:
    stay = await start(core, "jane")
    await rename(core, "jane", "Jane")
    topic = application_topic(application.id)
    assert core.hub.handed(topic) > 0
    stay.outlet.gap = lambda: None  # type: ignore[method-assign]
    # As in another epoch, in which the offsets up to there are yet to be given out.
    core.hub.gap(topic)
    assert core.hub.handed(topic) == 0


async def test_a_connection_that_was_overtaken_on_its_way_here_does_not_displace_the_newer_one(
    core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    stay = await start(core, "jane")
    shown = await on_another_node(core, stay)
    newer: list[LiveSession | None] = []

    async def comes_again() -> None:
        newer.append(await core.sessions.resume(application, "jane", shown, CLIENT, Outlet()))

    while_the_other_node_is_told(core, monkeypatch, comes_again)
    with pytest.raises(Unavailable):
        await core.sessions.resume(application, "jane", shown, CLIENT, Outlet())
    (live,) = newer
    assert live is not None and core.hub.get(stay.id) is live and not live.gone
    assert list(core.hub._topics[user_topic(live.user_id)].whole) == [live]
