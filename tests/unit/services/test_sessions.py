"""Sessions: policies, ends, resumption, fencing, and what happens when the store is away."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.systems import ManualClock
from tests.unit.services.support import (
    CLIENT,
    Outlet,
    Stay,
    lose,
    resume,
    sessions_of,
    set_policy,
    start,
    story_of,
    until,
)

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application, DuplicatePolicy
from offhook.domain.sessions import SessionState, StoryKind
from offhook.errors import AccessDenied, Conflict, NotFound, SessionLimitReached, Unavailable
from offhook.functions.events import Context, StartSessionAttempted
from offhook.functions.registry import Registry
from offhook.ports import EndSession, FenceSession, SessionFilter
from offhook.services import sessions as sessions_module
from offhook.settings import Settings


async def states(core: Core, name: str = "jane") -> list[SessionState]:
    return [session.state for session in await sessions_of(core, name)]


ACTIVE, SUSPENDED, ENDED = SessionState.ACTIVE, SessionState.SUSPENDED, SessionState.ENDED


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (DuplicatePolicy.END_OLDEST, [ENDED, ENDED, ACTIVE, ACTIVE]),
        (DuplicatePolicy.END_NEWEST, [ACTIVE, ENDED, ENDED, ACTIVE]),
    ],
)
async def test_the_replaced_are_told(core: Core, policy: DuplicatePolicy, expected: list[SessionState]) -> None:
    await set_policy(core, max_sessions=2, duplicates=policy)
    stays = [await start(core, "jane") for _ in range(4)]
    assert await states(core) == expected
    gone = [stay for stay, state in zip(stays, expected, strict=True) if state is ENDED]
    await until(lambda: all(stay.outlet.ends for stay in gone))
    assert {end for stay in stays for end in stay.outlet.ends} == {(EndReason.REPLACED, "")}
    assert [len(stay.outlet.ends) for stay in gone] == [1, 1]
    assert (await story_of(core, gone[0].id))[-1] is StoryKind.ENDED
    assert core.metrics.session_ends.value("replaced") == 2


async def test_one_too_many_is_refused_and_changes_nothing(core: Core) -> None:
    application = await set_policy(core, max_sessions=2, duplicates=DuplicatePolicy.REJECT_NEW)
    stays = [await start(core, "jane") for _ in range(2)]
    with pytest.raises(SessionLimitReached):
        await start(core, "jane", application)
    assert await states(core) == [ACTIVE, ACTIVE]
    assert all(not stay.outlet.ends for stay in stays)
    assert core.metrics.session_starts.value("session_limit", "none") == 1
    await start(core, "john", application)


async def test_of_many_at_once_the_policy_lets_in_as_many_as_it_says(core: Core) -> None:
    application = await set_policy(core, max_sessions=3, duplicates=DuplicatePolicy.REJECT_NEW)
    results = await asyncio.gather(*(start(core, "jane", application) for _ in range(12)), return_exceptions=True)
    assert sum(isinstance(result, Stay) for result in results) == 3
    assert sum(isinstance(result, SessionLimitReached) for result in results) == 9
    assert await states(core) == [ACTIVE] * 3


async def test_a_smaller_limit_ends_all_that_are_too_many(core: Core) -> None:
    for _ in range(5):
        await start(core, "jane")
    await set_policy(core, max_sessions=1)
    await start(core, "jane")
    assert await states(core) == [ENDED] * 5 + [ACTIVE]


async def test_those_without_a_connection_go_first(core: Core) -> None:
    await set_policy(core, max_sessions=3, duplicates=DuplicatePolicy.END_OLDEST)
    stays = [await start(core, "jane") for _ in range(3)]
    await lose(core, stays[2])
    await start(core, "jane")
    assert await states(core) == [ACTIVE, ACTIVE, ENDED, ACTIVE]
    # Nor does its client get a new session without being asked who it is.
    with pytest.raises(AccessDenied, match="signed in elsewhere"):
        await resume(core, stays[2], "jane")


async def test_resuming_is_no_further_session(core: Core) -> None:
    await set_policy(core, max_sessions=1, duplicates=DuplicatePolicy.REJECT_NEW)
    stay = await start(core, "jane")
    for _ in range(3):
        await lose(core, stay)
        back = await resume(core, stay, "jane")
        assert back is not None
        stay = back
    (session,) = await sessions_of(core, "jane")
    assert (session.state, session.resumes, session.generation) == (ACTIVE, 3, 4)


async def test_an_end_reaches_the_client_with_the_operators_words(core: Core) -> None:
    stay, other = await start(core, "jane"), await start(core, "john")
    ended = await core.sessions.end(stay.id, EndReason.OPERATOR, "Come back tomorrow")
    assert (ended.state, ended.end_reason) == (ENDED, EndReason.OPERATOR)
    await until(lambda: bool(stay.outlet.ends))
    assert stay.outlet.ends == [(EndReason.OPERATOR, "Come back tomorrow")]
    assert core.hub.get(stay.id) is None
    story = (await core.sessions.show(stay.id)).story
    assert [(entry.kind, entry.reason, entry.detail) for entry in story] == [
        (StoryKind.STARTED, "", "by guest"),
        (StoryKind.ENDED, "operator", "Come back tomorrow"),
    ]
    assert not other.outlet.ends
    assert not (await core.users.by_name(await core.applications.get("default"), "jane")).online


async def test_a_session_ends_once(core: Core) -> None:
    stay = await start(core, "jane")
    results = await asyncio.gather(
        *(core.sessions.end(stay.id, EndReason.OPERATOR) for _ in range(5)), return_exceptions=True
    )
    assert sum(isinstance(result, Conflict) for result in results) == 4
    with pytest.raises(Conflict):
        await core.sessions.end(stay.id, EndReason.OPERATOR)
    with pytest.raises(NotFound):
        await core.sessions.end(999, EndReason.OPERATOR)
    with pytest.raises(NotFound):
        await core.sessions.show(999)
    await until(lambda: bool(stay.outlet.ends))
    assert len(stay.outlet.ends) == 1
    assert core.metrics.session_ends.value("operator") == 1
    # The client's own goodbye comes too late to change the reason.
    await core.sessions.end_live(stay.live, EndReason.CLIENT)
    assert (await core.sessions.show(stay.id)).session.end_reason is EndReason.OPERATOR


async def test_ending_all_takes_as_many_batches_as_it_needs(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "BATCH", 4)
    application = await core.applications.get("default")
    stays = [await start(core, f"user-{number}") for number in range(10)]
    spared = await start(core, "jane", (await core.applications.create("other"))[0])
    where = SessionFilter(application_id=application.id)
    assert await core.sessions.end_all(where, EndReason.OPERATOR, "Closing time") == 10
    await until(lambda: all(stay.outlet.ends for stay in stays))
    assert {end for stay in stays for end in stay.outlet.ends} == {(EndReason.OPERATOR, "Closing time")}
    assert [live.id for live in core.hub] == [spared.id]
    assert await core.sessions.end_all(where, EndReason.OPERATOR) == 0
    assert core.metrics.session_ends.value("operator") == 10


async def test_the_story_tells_every_step(core: Core, clock: ManualClock) -> None:
    stay = await start(core, "jane")
    clock.advance(5)
    await core.sessions.suspend(stay.live, CloseReason.PING_TIMEOUT, "40 s without a pong")
    clock.advance(5)
    back = await resume(core, stay, "jane")
    assert back is not None
    clock.advance(5)
    await core.sessions.end_live(back.live, EndReason.CLIENT)
    shown = await core.sessions.show(stay.id)
    began = shown.session.started_at
    assert [((entry.at - began).total_seconds(), entry.kind, entry.reason, entry.detail) for entry in shown.story] == [
        (0, StoryKind.STARTED, "", "by guest"),
        (5, StoryKind.SUSPENDED, "ping_timeout", "40 s without a pong"),
        (10, StoryKind.RESUMED, "", f"from {CLIENT.address}"),
        (15, StoryKind.ENDED, "client", ""),
    ]


async def test_a_newer_connection_voids_what_the_older_says(core: Core) -> None:
    old = await start(core, "jane")
    new = await resume(core, old, "jane")
    assert new is not None
    assert old.outlet.drops == [CloseReason.SUPERSEDED] and not old.outlet.ends
    await core.sessions.suspend(old.live, CloseReason.PEER_LOST)
    await core.sessions.end_live(old.live, EndReason.CLIENT)
    assert await states(core) == [ACTIVE]
    assert core.hub.get(new.id) is new.live
    assert not new.outlet.drops and not new.outlet.ends


async def test_of_two_who_resume_at_once_one_connection_is_left(core: Core) -> None:
    stay = await start(core, "jane")
    await lose(core, stay)
    found = await asyncio.gather(resume(core, stay, "jane"), resume(core, stay, "jane"))
    back = [one for one in found if one is not None]
    newest = max(back, key=lambda one: one.live.record.generation)
    assert core.hub.get(stay.id) is newest.live
    assert not newest.outlet.drops
    for one in back:
        if one is not newest:
            assert one.outlet.drops == [CloseReason.SUPERSEDED]


async def test_commands_of_other_nodes_are_followed(core: Core) -> None:
    stay = await start(core, "jane")
    generation = stay.live.record.generation
    await core.sessions.fenced_elsewhere(FenceSession(stay.id, generation))
    assert not stay.outlet.drops
    await core.sessions.fenced_elsewhere(FenceSession(stay.id, generation + 1))
    assert stay.outlet.drops == [CloseReason.SUPERSEDED] and core.hub.get(stay.id) is None
    other = await start(core, "john")
    await core.sessions.ended_elsewhere(EndSession(other.id, EndReason.OPERATOR, "bye"))
    await core.sessions.ended_elsewhere(EndSession(other.id, EndReason.OPERATOR, "bye"))
    assert other.outlet.ends == [(EndReason.OPERATOR, "bye")]


@pytest.mark.parametrize("seconds", [59.9, 60.0])
async def test_the_window_for_resuming_is_exact(core: Core, clock: ManualClock, seconds: float) -> None:
    await set_policy(core, resume_window=60.0)
    stay = await start(core, "jane")
    await lose(core, stay)
    clock.advance(seconds)
    assert (await resume(core, stay, "jane") is not None) is (seconds < 60)


async def test_nobody_resumes_what_they_may_not(core: Core, application: Application) -> None:
    stay = await start(core, "jane")
    await lose(core, stay)
    assert await resume(core, stay, "Jane") is None
    other, _ = await core.applications.create("other")
    token = core.sessions.token_of(stay.live)
    assert await core.sessions.resume(other, "jane", token, CLIENT, Outlet()) is None
    assert await states(core) == [SUSPENDED]
    await core.users.set_enabled(application, "jane", False)
    await core.users.set_enabled(application, "jane", True)
    with pytest.raises(AccessDenied, match="disabled"):
        await resume(core, stay, "jane")


async def test_who_was_sent_away_and_did_not_hear_it_stays_away(core: Core) -> None:
    stay = await start(core, "jane")
    await lose(core, stay)
    await core.sessions.end(stay.id, EndReason.OPERATOR, "bye")
    with pytest.raises(AccessDenied):
        await resume(core, stay, "jane")
    assert await states(core) == [ENDED]
    # Whoever asks anew is asked anew.
    await start(core, "jane")
    assert await states(core) == [ENDED, ACTIVE]


async def test_who_went_away_by_itself_starts_afresh(core: Core) -> None:
    stay = await start(core, "jane")
    await core.sessions.end(stay.id, EndReason.CLIENT)
    assert await resume(core, stay, "jane") is None


@contextlib.contextmanager
def unavailable(data_dir: Path) -> Iterator[None]:
    """While this lasts, the database fails on every change of a session."""
    with contextlib.closing(sqlite3.connect(data_dir / "offhook.db", isolation_level=None)) as other:
        other.execute("CREATE TRIGGER broken BEFORE UPDATE ON sessions BEGIN INSERT INTO missing VALUES (1); END")
        yield
        other.execute("DROP TRIGGER broken")


async def test_a_suspension_that_the_store_does_not_take_is_tried_again(core: Core, tmp_path: Path) -> None:
    stay, witness = await start(core, "jane"), await start(core, "john")
    stays = [await start(core, "jane") for _ in range(3)]
    with unavailable(tmp_path):
        await asyncio.gather(*(lose(core, one) for one in [stay, *stays]))
    assert await states(core) == [ACTIVE] * 4
    assert set(core.sessions.unsaved) == {stay.id, *(one.id for one in stays)}
    await core.reaper.start()
    await core.reaper.stop()
    assert core.sessions.unsaved == {}
    assert await states(core) == [SUSPENDED] * 4
    assert await states(core, "john") == [ACTIVE] and core.hub.get(witness.id) is witness.live


async def test_a_node_ends_in_time_though_the_store_stays_away(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    stays = [await start(core, "jane") for _ in range(5)]
    tries = 0

    async def away(work: object) -> object:
        nonlocal tries
        tries += 1
        raise Unavailable("away")

    await core.reaper.start()
    monkeypatch.setattr(core.store, "transact", away)
    await asyncio.gather(*(lose(core, stay) for stay in stays))
    tries = 0
    await core.reaper.stop()
    # Each try takes as long as the store may take to say that it is away.
    assert tries == 1
    assert set(core.sessions.unsaved) == {stay.id for stay in stays}


async def test_a_session_that_is_resumed_during_the_retry_stops_nothing(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = await start(core, "jane"), await start(core, "john")
    transact = core.store.transact

    async def away(work: object) -> object:
        raise Unavailable("away")

    await core.reaper.start()
    with monkeypatch.context() as patch:
        patch.setattr(core.store, "transact", away)
        await asyncio.gather(lose(core, first), lose(core, second))

    async def slow(work: object) -> object:
        monkeypatch.setattr(core.store, "transact", transact)
        assert await resume(core, second, "john") is not None
        return await transact(work)  # type: ignore[arg-type]

    monkeypatch.setattr(core.store, "transact", slow)
    await core.reaper.stop()
    assert core.sessions.unsaved == {}
    assert await states(core, "jane") == [SUSPENDED] and await states(core, "john") == [ACTIVE]


async def test_who_comes_back_before_the_retry_stays(core: Core, tmp_path: Path) -> None:
    stay = await start(core, "jane")
    with unavailable(tmp_path):
        await lose(core, stay)
    assert set(core.sessions.unsaved) == {stay.id}
    back = await resume(core, stay, "jane")
    assert back is not None and core.sessions.unsaved == {}
    await core.reaper.start()
    await core.reaper.stop()
    assert await states(core) == [ACTIVE]


async def test_a_function_is_asked_at_the_start_and_not_when_resuming(tmp_path: Path, clock: ManualClock) -> None:
    asked: list[str] = []
    registry = Registry()

    async def authenticate(event: StartSessionAttempted, context: Context) -> dict[str, object]:
        asked.append(event.username)
        if event.auth_params.get("key") != "open sesame":
            raise AccessDenied("No")
        return {"display_name": "Jane Doe", "properties": {"visits": len(asked)}}

    registry.add(None, authenticate)
    async with open_core(Settings(data_dir=tmp_path, durability="normal"), registry) as core:
        await core.applications.create("default")
        stay = await start(core, "jane", key="open sesame")
        assert (stay.live.user.display_name, stay.live.user.properties) == ("Jane Doe", {"visits": 1})
        await lose(core, stay)
        assert await resume(core, stay, "jane") is not None
        assert asked == ["jane"]
        again = await start(core, "jane", key="open sesame")
        assert again.live.user.properties == {"visits": 2}
        with pytest.raises(AccessDenied):
            await start(core, "jane")
        assert await states(core) == [ACTIVE, ACTIVE]
