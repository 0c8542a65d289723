"""What a page is told on its notification socket, whatever the network does."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.gateways.kandy.browser import SERVICES, WAIT, Device, subscribed, until
from tests.unit.gateways.kandy.conftest import ALICE, BOB
from tests.unit.gateways.kandy.sockets.conftest import choose, connected, send, service_known, watched

from offhook.codes import EndReason
from offhook.core import Core
from offhook.domain.accounts import Application
from offhook.domain.presence import Activity
from offhook.domain.subscriptions import CALL, IM, PRESENCE, Product
from offhook.errors import Unavailable
from offhook.gateways.background import settle
from offhook.gateways.kandy import feed as feed_module
from offhook.gateways.kandy.gateway import Gateway
from offhook.gateways.kandy.window import LIMIT
from offhook.services.subscriptions import Watching

# --- messages


async def test_messages_are_told_as_they_come(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await send(core, "one", "two")
    await until(lambda: alice.page.texts == ["one", "two"])
    await until(lambda: alice.wire.unproved == 0)
    assert alice.page.repeated == 0


async def test_what_came_while_the_socket_was_away_is_told_in_order_and_once(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await send(core, "one")
    await until(lambda: alice.wire.unproved == 0 and bool(alice.page.texts))
    await alice.lose()
    await send(core, *(f"away-{number}" for number in range(120)))
    # Some more come while it catches up.
    await asyncio.gather(alice.connect(), send(core, *(f"meanwhile-{number}" for number in range(30))))
    expected = ["one", *(f"away-{n}" for n in range(120)), *(f"meanwhile-{n}" for n in range(30))]
    await until(lambda: len(alice.page.texts) >= len(expected))
    assert alice.page.texts == expected
    assert alice.page.repeated == 0
    assert alice.wire.most_unproved <= LIMIT


async def test_what_was_not_proved_is_sent_again_and_seen_once(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    alice.wire.pongs_held = True
    texts = [f"{number}" for number in range(40)]
    await send(core, *texts)
    await until(lambda: alice.page.texts == texts)
    await alice.lose()
    await alice.connect()
    await send(core, "last")
    await until(lambda: alice.page.texts == [*texts, "last"])
    assert alice.page.repeated == 40


async def test_no_more_than_a_hundred_are_ever_unproved(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    alice.wire.pongs_held = True
    texts = [f"{number}" for number in range(180)]
    await send(core, *texts)
    await until(lambda: len(alice.page.texts) == LIMIT)
    assert alice.wire.unproved == LIMIT
    alice.wire.pongs_held = False
    alice.wire.answer()
    await until(lambda: len(alice.page.texts) == len(texts))
    assert alice.page.texts == texts and alice.wire.most_unproved <= LIMIT and not alice.page.repeated


async def test_messages_that_waited_come_first(gateway: Gateway, core: Core) -> None:
    texts = [f"waited-{number}" for number in range(130)]
    await send(core, *texts)
    alice = await subscribed(gateway, core, ALICE)
    await send(core, "between")
    await asyncio.gather(alice.connect(), send(core, "during"))
    await until(lambda: len(alice.page.texts) >= len(texts) + 2)
    assert alice.page.texts == [*texts, "between", "during"]
    assert alice.wire.most_unproved <= LIMIT and not alice.page.repeated


async def test_messages_that_somebody_got_wait_for_nobody(gateway: Gateway, core: Core) -> None:
    first = await connected(gateway, core)
    await send(core, "one")
    await until(lambda: first.page.texts == ["one"] and first.wire.unproved == 0)
    await first.lose()
    second = await connected(gateway, core)
    await send(core, "two")
    await until(lambda: second.page.texts == ["two"])
    await first.connect()
    await until(lambda: first.page.texts == ["one", "two"])


async def test_a_message_that_was_seen_is_not_told_to_the_next_page(gateway: Gateway, core: Core) -> None:
    """The user reads it, and signs out at once."""
    first = await connected(gateway, core)
    await send(core, "one")
    await until(lambda: first.page.texts == ["one"] and first.wire.unproved == 0)
    application = await core.applications.get("default")
    assert await core.subscriptions.end(await core.users.by_name(application, ALICE), first.id)
    await settle()
    await core.reaper.save_positions()
    second = await connected(gateway, core)
    await send(core, "two")
    await until(lambda: "two" in second.page.texts)
    assert second.page.texts == ["two"]


async def test_messages_asked_for_later_are_told_from_then_on(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core, ALICE, CALL, PRESENCE)
    await send(core, "waits")
    assert not alice.page.texts
    await alice.renew(*SERVICES)
    # The answer is on its way, and so is this.
    await send(core, "at once")
    await until(lambda: len(alice.page.texts) >= 2)
    await send(core, "later")
    await until(lambda: alice.page.texts == ["waits", "at once", "later"])


async def test_messages_given_up_are_told_no_more(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await alice.renew(CALL)
    await until(lambda: service_known(core, alice, IM) is False)
    # A watch that follows is brought in line after that.
    await alice.renew(CALL, PRESENCE)
    await alice.watch(BOB)
    await until(lambda: bool(alice.page.told))
    await send(core, "unheard")
    await alice.renew(CALL, PRESENCE, IM)
    await until(lambda: alice.page.texts == ["unheard"])


async def test_a_take_over_goes_on_with_the_backlog_where_it_was(gateway: Gateway, core: Core) -> None:
    texts = [f"waited-{number}" for number in range(200)]
    await send(core, *texts)
    alice = await subscribed(gateway, core, ALICE)
    wire = alice.open(prompt=False)
    await until(lambda: len(wire.sent) >= 50)
    # It gets a part, and that is proved, but not stored yet when the next socket comes.
    wire.arrive(most=49)
    seen = len(alice.page.texts)
    assert seen >= 32 and alice.page.texts == texts[:seen]
    await alice.connect()
    await until(lambda: len(alice.page.texts) == 200)
    assert alice.page.texts == texts and alice.page.repeated <= seen - 32


async def test_uc_reads_messages_in_its_own_form(gateway: Gateway, core: Core) -> None:
    alice = await subscribed(gateway, core, ALICE, product=Product.UC)
    await send(core, "waits")
    await alice.connect()
    await send(core, "live")
    await until(lambda: alice.page.texts == ["waits", "live"])
    assert all(b'"event":"im"' in text for text in alice.wire.sent)


# --- presence


async def test_a_watched_user_is_told_once_and_then_every_change(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.shown == {BOB: ("closed", "unknown", "")})
    bob = await connected(gateway, core, BOB)
    await until(lambda: alice.page.shown == {BOB: ("open", "active", "")})
    await choose(core, BOB, Activity.BUSY, note="in a call")
    await until(lambda: alice.page.shown == {BOB: ("open", "busy", "in a call")})
    await core.sessions.end(bob.id, EndReason.OPERATOR)
    await until(lambda: alice.page.shown == {BOB: ("closed", "unknown", "")})
    assert alice.page.told == [(BOB, "unknown"), (BOB, "active"), (BOB, "busy"), (BOB, "unknown")]


async def test_every_change_since_the_answer_is_told(gateway: Gateway, core: Core) -> None:
    """Whatever comes between the watch and the socket: a slow network, or a server that is killed."""
    await connected(gateway, core, BOB)
    await choose(core, BOB, Activity.LUNCH)
    alice = await subscribed(gateway, core, ALICE)
    await alice.watch(BOB)
    await choose(core, BOB, Activity.AWAY, Activity.BUSY)
    await alice.connect()
    await until(lambda: len(alice.page.told) >= 2)
    await alice.watch("carol@example.com")
    await until(lambda: "carol@example.com" in alice.page.shown)
    assert alice.page.told == [(BOB, "away"), (BOB, "busy"), ("carol@example.com", "unknown")]


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30])
async def test_nothing_that_was_asked_for_comes_before_the_answer(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Clients do not listen before; and they ask as soon as their socket is open."""
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 0.1)
    loop = asyncio.get_running_loop()
    alice = await subscribed(gateway, core, ALICE)
    alice.open()
    for _ in range(turns):
        await asyncio.sleep(0)
    for number in (1, 2):
        await alice.watch(f"{number}@example.com")
        answered_at = loop.time()
        await until(lambda number=number: len(alice.page.shown) == number)  # type: ignore[misc]
        assert loop.time() - answered_at > 0.08


async def test_who_asks_without_a_pause_is_told_all_the_same(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_module, "ANSWER_FIRST", 0.05)
    alice = await connected(gateway, core)
    await send(core, "one")
    await alice.lose()
    await send(core, "two")
    alice.open()
    asked = 0
    async with asyncio.timeout(WAIT):
        while alice.page.texts != ["one", "two"] or BOB not in alice.page.shown:
            await alice.watch(BOB, action=Watching.GET)
            asked += 1
    assert asked > 1


async def test_a_block_since_the_watch_hides_the_user(gateway: Gateway, core: Core, application: Application) -> None:
    bob = await connected(gateway, core, BOB)
    await choose(core, BOB, Activity.LUNCH)
    alice = await subscribed(gateway, core, ALICE)
    await alice.watch(BOB)
    await choose(core, BOB, Activity.AWAY)
    hidden, viewer = await core.users.by_name(application, BOB), await core.users.by_name(application, ALICE)
    await core.users.block(application, hidden.id, viewer.id)
    await alice.connect()
    await until(lambda: bool(alice.page.told))
    assert set(alice.page.told) == {(BOB, "unknown")}
    assert core.hub.get(bob.id) is not None


async def test_the_second_user_watched_brings_back_nothing_of_the_past(gateway: Gateway, core: Core) -> None:
    await connected(gateway, core, BOB)
    await choose(core, BOB, Activity.AWAY, Activity.BUSY, Activity.LUNCH)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "lunch")])
    await alice.watch("carol@example.com")
    await until(lambda: "carol@example.com" in alice.page.shown)
    assert alice.page.told == [(BOB, "lunch"), ("carol@example.com", "unknown")]


async def test_watching_again_brings_back_nothing_of_the_past(gateway: Gateway, core: Core) -> None:
    await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "active")])
    await choose(core, BOB, Activity.AWAY)
    await until(lambda: alice.page.told[1:] == [(BOB, "away")])
    await alice.watch(BOB, action=Watching.STOP)
    await until(lambda: watched(core, alice) == frozenset())
    await choose(core, BOB, Activity.BUSY, Activity.LUNCH)
    await alice.watch(BOB)
    await until(lambda: len(alice.page.told) == 3)
    await alice.watch("carol@example.com")
    await until(lambda: "carol@example.com" in alice.page.shown)
    assert alice.page.told == [(BOB, "active"), (BOB, "away"), (BOB, "lunch"), ("carol@example.com", "unknown")]


async def test_one_more_is_watched_in_a_busy_application(
    gateway: Gateway, core: Core, application: Application
) -> None:
    """More happened to others than is kept since the last event that this client was told of."""
    await core.users.create(application, "noise@example.com")
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: bool(alice.page.told))
    for number in range(140):
        await choose(core, "noise@example.com", Activity.AWAY if number % 2 else Activity.BUSY)
    await alice.watch("carol@example.com")
    await until(lambda: "carol@example.com" in alice.page.shown)
    await choose(core, BOB, Activity.AWAY)
    await settle()
    assert alice.page.gone == 0


async def test_a_get_tells_once_and_watches_nobody(gateway: Gateway, core: Core) -> None:
    await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB, action=Watching.GET)
    await until(lambda: alice.page.told == [(BOB, "active")])
    await choose(core, BOB, Activity.BUSY)
    await alice.watch(BOB, action=Watching.GET)
    await until(lambda: len(alice.page.told) == 2)
    assert alice.page.told == [(BOB, "active"), (BOB, "busy")]


async def test_each_spelling_is_told_under_its_own(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    spellings = {BOB, f"sip:{BOB};user=phone"}
    await alice.watch(*spellings)
    await until(lambda: set(alice.page.shown) == spellings)
    await connected(gateway, core, BOB)
    await until(lambda: set(alice.page.shown.values()) == {("open", "active", "")})
    assert len(alice.page.told) == 4


async def test_an_event_during_the_question_beats_its_answer(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "unknown")])
    asked, go_on = asyncio.Event(), asyncio.Event()
    ask = core.subscriptions.presence

    async def slowly(*args: object) -> object:
        found = await ask(*args)  # type: ignore[arg-type]
        asked.set()
        await go_on.wait()
        return found

    monkeypatch.setattr(core.subscriptions, "presence", slowly)
    await alice.watch(BOB, f"sip:{BOB}", action=Watching.GET)
    await asked.wait()
    bob = await connected_without_settling(gateway, core, BOB)
    await until(lambda: alice.page.shown[BOB][0] == "open")
    go_on.set()
    # Under the other spelling nothing newer was told.
    await until(lambda: f"sip:{BOB}" in alice.page.shown)
    assert alice.page.told == [(BOB, "unknown"), (BOB, "active"), (f"sip:{BOB}", "unknown")]
    bob.wire.cut()


async def connected_without_settling(gateway: Gateway, core: Core, name: str) -> Device:
    device = await subscribed(gateway, core, name)
    device.open()
    await until(lambda: core.hub.get(device.id) is not None)
    return device


async def test_what_was_asked_for_is_told_to_the_next_socket_if_it_did_not_arrive(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    alice.wire.prompt = False
    await alice.watch(BOB)
    await until(lambda: any(b"presenceWatcher" in text for text in alice.wire.sent))
    await alice.lose()
    assert not alice.page.told
    await alice.connect()
    await until(lambda: alice.page.told == [(BOB, "unknown")])
    await until(lambda: alice.wire.unproved == 0)
    await settle()
    await alice.lose()
    await alice.connect()
    assert alice.page.told == [(BOB, "unknown")] and len(alice.wire.sent) == 0


async def test_a_question_that_fails_is_asked_again(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await connected(gateway, core)
    ask, fails = core.subscriptions.presence, [Unavailable("away")] * 2

    async def failing(*args: object) -> object:
        if fails:
            raise fails.pop()
        return await ask(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(core.subscriptions, "presence", failing)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "unknown")])


async def test_who_missed_too_much_presence_is_told_how_it_is_now(
    gateway: Gateway, core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offhook.services.hub.MAX_REPLAY", 5)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "unknown")] and alice.wire.unproved == 0)
    await settle()
    await alice.lose()
    await connected(gateway, core, BOB)
    await choose(core, BOB, *[Activity.AWAY, Activity.BUSY] * 5)
    # It is told so, but that does not arrive; nor does it matter that the next socket missed nothing.
    wire = await alice.connect(prompt=False)
    await until(lambda: any(b"busy" in text for text in wire.sent))
    await alice.lose()
    await alice.connect()
    await until(lambda: alice.page.shown == {BOB: ("open", "busy", "")})
    assert alice.page.gone == 0


async def test_presence_history_that_is_lost_ends_nothing(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.told == [(BOB, "unknown")] and alice.wire.unproved == 0)
    await settle()
    await alice.lose()
    await connected(gateway, core, BOB)
    await choose(core, BOB, *[Activity.AWAY, Activity.BUSY] * 80)
    await alice.connect()
    await until(lambda: alice.page.shown == {BOB: ("open", "busy", "")})
    assert alice.page.gone == 0


async def test_a_user_who_is_deleted_is_shown_as_gone(gateway: Gateway, core: Core, application: Application) -> None:
    bob = await connected(gateway, core, BOB)
    alice = await connected(gateway, core)
    await alice.watch(BOB)
    await until(lambda: alice.page.shown == {BOB: ("open", "active", "")})
    await core.users.delete(application, bob.user_id)
    await until(lambda: alice.page.shown == {BOB: ("closed", "unknown", "")})


# --- the window, with presence


@pytest.mark.parametrize("spellings", [1, 2])
async def test_many_events_of_watched_users_keep_within_the_window(
    gateway: Gateway, core: Core, spellings: int
) -> None:
    alice = await connected(gateway, core)
    names = [BOB, f"sip:{BOB}"][:spellings]
    await alice.watch(*names)
    await until(lambda: len(alice.page.told) == spellings and alice.wire.unproved == 0)
    await connected(gateway, core, BOB)
    alice.wire.pongs_held = True
    await send(core, "first")
    await choose(core, BOB, *[Activity.AWAY, Activity.BUSY] * 40)
    # One more is watched while hardly any room is left.
    await alice.watch("carol@example.com")
    await send(core, *(f"{number}" for number in range(20)))
    async with asyncio.timeout(WAIT):
        while len(alice.page.texts) < 21 or "carol@example.com" not in alice.page.shown:
            # One pong at a time: the room is never more than it must be.
            alice.wire.answer(most=1)
            await asyncio.sleep(0.001)
    alice.wire.pongs_held = False
    alice.wire.answer()
    await until(lambda: {alice.page.shown[name][1] for name in names} == {"busy"})
    assert alice.page.texts == ["first", *(f"{number}" for number in range(20))]
    assert alice.wire.most_unproved <= LIMIT and not alice.page.repeated


async def test_snapshots_leave_room_for_an_event_under_two_names(gateway: Gateway, core: Core) -> None:
    alice = await connected(gateway, core)
    await alice.watch(BOB, f"sip:{BOB}")
    await until(lambda: len(alice.page.told) == 2 and alice.wire.unproved == 0)
    alice.wire.pongs_held = True
    await alice.watch(*(f"user-{number}@example.com" for number in range(99)))
    await until(lambda: alice.wire.unproved >= LIMIT - 4)
    device = await subscribed(gateway, core, BOB)
    device.open()
    await until(lambda: core.hub.get(device.id) is not None)
    alice.wire.pongs_held = False
    alice.wire.answer()
    await until(lambda: alice.page.shown[f"sip:{BOB}"][0] == alice.page.shown[BOB][0] == "open")
    assert alice.wire.most_unproved <= LIMIT
