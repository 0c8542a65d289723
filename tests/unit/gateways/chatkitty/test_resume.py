"""Lost connections: resumed with all that was missed, in order and once, or told to start over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.unit.gateways.chatkitty.conftest import Client, Connect

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import Application, SessionPolicy, UserChanges
from offhook.domain.events import Position, Topic, application_topic
from offhook.domain.limits import Rate
from offhook.domain.sessions import SessionState, StoryKind
from offhook.domain.values import PageRequest
from offhook.errors import Unavailable
from offhook.gateways.background import settle
from offhook.ports import Publication, SessionFilter, Transaction
from offhook.services.applications import ApplicationChanges
from offhook.services.reaper import Reaper
from offhook.settings import Settings


async def comes_back(connect: Connect, old: Client, name: str = "jane") -> Client:
    """Resumes as the SDKs do: the error queue and all topics by their old ids and receipts, then the user."""
    client = connect()
    answer = await client.connect(name, **{"StompX-Auth-Session-ID": old.session})
    assert answer.command == "CONNECTED", answer
    client.user = old.user
    client.send("SUBSCRIBE", {"id": "errors", "destination": "/user/queue/v1/errors"})
    topics = old.user["_topics"]
    assert isinstance(topics, dict)
    for key in ("self", "channels", "contacts", "users"):
        client.send(
            "SUBSCRIBE",
            {"id": f"t-{key}", "destination": topics[key], "receipt": f"r-{key}", "ack": "client-individual"},
        )
    return client


async def names_of(client: Client, count: int, *, ack: bool = True) -> list[str]:
    """The display names of the next events about users."""
    names: list[str] = []
    while len(names) < count:
        frame = await client.frame()
        if frame.command == "MESSAGE":
            names.append(json.loads(frame.body)["resource"]["displayName"])
            if ack:
                client.send("ACK", {"id": frame.headers["ack"], "subscription": frame.headers["subscription"]})
    return names


async def rename(core: Core, application: Application, name: str, *display_names: str) -> None:
    user = await core.users.by_name(application, name)
    for display_name in display_names:
        await core.users.change(application, user.id, UserChanges(display_name=display_name))


async def test_missed_events_come_in_order_and_once(connect: Connect, core: Core, application: Application) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await rename(core, application, "john", "A", "B")
    assert await names_of(jane, 2) == ["A", "B"]
    await jane.lose()
    await rename(core, application, "john", "C", "D")
    await rename(core, application, "jane", "Jane II")
    back = await comes_back(connect, jane)
    await rename(core, application, "john", "E")
    names = await names_of(back, 4)
    # Each topic's own order is kept.
    assert sorted(names) == ["C", "D", "E", "Jane II"]
    assert [name for name in names if name in "CDE"] == ["C", "D", "E"]
    assert (await back.relay("/application/v1/user.relay"))["displayName"] == "Jane II"
    assert back.nothing_more()
    (session,) = (await core.sessions.list(SessionFilter(user_name="jane"), PageRequest())).items
    assert (session.state, session.resumes, session.generation) == (SessionState.ACTIVE, 1, 2)


async def test_what_was_sent_but_not_acknowledged_comes_again_by_the_same_name(
    connect: Connect, core: Core, application: Application
) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await rename(core, application, "john", "A", "B")
    first, second = await jane.frame("MESSAGE"), await jane.frame("MESSAGE")
    jane.send("ACK", {"id": first.headers["ack"], "subscription": "t-contacts"})
    await jane.lose()
    back = await comes_back(connect, jane)
    while (frame := await back.frame()).command != "MESSAGE":
        pass
    assert frame.headers["message-id"] == second.headers["message-id"]
    assert frame.body == second.body


async def test_a_client_that_need_not_acknowledge_gets_nothing_twice(
    connect: Connect, core: Core, application: Application
) -> None:
    await core.users.create(application, "john")
    jane = connect()
    await jane.connect("jane")
    jane.user = await jane.relay("/application/v1/user.relay")
    topics = jane.user["_topics"]
    assert isinstance(topics, dict)
    for key in ("self", "contacts", "users"):
        jane.send("SUBSCRIBE", {"id": f"t-{key}", "destination": topics[key]})
    await asyncio.sleep(0.01)
    await rename(core, application, "john", "A")
    await jane.frame("MESSAGE")
    await jane.lose()
    await rename(core, application, "john", "B")
    back = await comes_back(connect, jane)
    assert await names_of(back, 1) == ["B"]
    await back.relay("/application/v1/user.relay")
    assert back.nothing_more()


async def test_the_function_is_not_asked_again_and_the_token_is_renewed(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    await jane.lose()
    back = await comes_back(connect, jane)
    assert back.session != jane.session
    await back.lose()
    # The newest token may have been lost with the connection, so the one before it is good as well; older are not.
    third = await comes_back(connect, jane)
    assert third.session
    await third.lose()
    fourth = connect()
    answer = await fourth.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    assert answer.headers["recovered"] == "lost"


@pytest.mark.parametrize("token", ["undefined", "null", "", "1-1", "1-1.AAAA", "x" * 5000, "é-1.x", "1-1.é"])
async def test_tokens_that_are_not_ours_mean_a_new_session(connect: Connect, core: Core, token: str) -> None:
    await connect().bootstrap("jane")
    other = connect()
    answer = await other.connect("jane", **{"StompX-Auth-Session-ID": token})
    assert answer.command == "CONNECTED" and "recovered" not in answer.headers
    assert len(core.hub) == 2


async def test_no_session_is_resumed_by_another_user(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    await jane.lose()
    john = connect()
    await john.connect("john", **{"StompX-Auth-Session-ID": jane.session})
    assert (await john.relay("/application/v1/user.relay"))["name"] == "john"
    sessions = (await core.sessions.list(SessionFilter(), PageRequest())).items
    assert {session.user_name: session.state for session in sessions} == {
        "jane": SessionState.SUSPENDED,
        "john": SessionState.ACTIVE,
    }


async def test_a_newer_connection_fences_the_older_off(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    back = await comes_back(connect, jane)
    assert await jane.closing() is CloseReason.SUPERSEDED
    await settle()
    (session,) = (await core.sessions.list(SessionFilter(), PageRequest())).items
    assert session.state is SessionState.ACTIVE
    assert core.hub.get(session.id) is not None
    back.skip()
    await back.relay("/application/v1/user.relay")


async def test_two_resumes_at_once_leave_one_connection(connect: Connect, core: Core) -> None:
    jane = await connect().bootstrap("jane")
    await jane.lose()
    twins = [connect(), connect()]
    for twin in twins:
        twin.send("CONNECT", {"StompX-User": "jane", "accept-version": "1.2", "StompX-Auth-Session-ID": jane.session})
    answers = [await twin.frame() for twin in twins]
    assert "CONNECTED" in {answer.command for answer in answers}
    await settle()
    assert len([twin for twin in twins if twin.socket.closed is None]) == 1
    assert len(core.hub) == 1
    (session,) = (await core.sessions.list(SessionFilter(), PageRequest())).items
    await core.sessions.end(session.id, EndReason.OPERATOR)
    for twin in twins:
        await twin.closing()


async def test_many_missed_events_wait_for_a_slow_reader(
    connect: Connect, core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offhook.services.hub.HISTORY_PAGE", 10)
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await jane.lose()
    await rename(core, application, "john", *(f"{number}" for number in range(30)))
    back = connect()
    back.socket.congested = True
    await back.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    topics = jane.user["_topics"]
    assert isinstance(topics, dict)
    for key in ("self", "contacts", "users"):
        back.send("SUBSCRIBE", {"id": key, "destination": topics[key], "ack": "client"})
    assert await names_of(back, 10) == [f"{number}" for number in range(10)]
    await asyncio.sleep(0.05)
    assert back.nothing_more()
    await rename(core, application, "john", "live")
    back.socket.congested = False
    assert await names_of(back, 21) == [*(f"{number}" for number in range(10, 30)), "live"]


async def test_who_acknowledges_is_not_limited(connect: Connect, core: Core, application: Application) -> None:
    await core.users.create(application, "john")
    jane = await connect(frames=Rate(0.001, 30)).bootstrap("jane")
    await rename(core, application, "john", *(f"{number}" for number in range(50)))
    assert len(await names_of(jane, 50)) == 50
    assert jane.socket.closed is None


async def test_a_replayed_event_does_not_turn_the_user_back(
    connect: Connect, core: Core, application: Application, reaper: Reaper
) -> None:
    await core.applications.change("default", ApplicationChanges(sessions=SessionPolicy(leave_grace=0.0)))
    jane = await connect().bootstrap("jane")
    await jane.lose()
    await reaper.sweep()
    await rename(core, application, "jane", "Jane II")
    back = await comes_back(connect, jane)
    while (frame := await back.frame()).command != "MESSAGE":
        pass
    assert json.loads(frame.body)["resource"]["presence"] == {"status": "AVAILABLE", "online": True}
    user = await back.relay("/application/v1/user.relay")
    assert user["displayName"] == "Jane II"
    assert user["presence"] == {"status": "AVAILABLE", "online": True}


async def test_a_gap_in_the_history_is_told(
    connect: Connect, core: Core, application: Application, tmp_path: Path
) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await jane.lose()
    session = (await core.sessions.list(SessionFilter(), PageRequest())).items[0]
    # As if the topic's early events had been pruned long ago.
    for _ in range(3):
        await asyncio.gather(*(rename(core, application, "john", f"{n}", f"{n}b") for n in range(100)))
    assert session.state is SessionState.SUSPENDED
    client = connect()
    answer = await client.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    assert answer.headers["recovered"] == "lost"
    assert core.metrics.dropped == 1


async def test_sessions_end_when_nobody_resumes_them(connect: Connect, core: Core, reaper: Reaper) -> None:
    await core.applications.change(
        "default", ApplicationChanges(sessions=SessionPolicy(leave_grace=0.0, resume_window=0.0))
    )
    witness = await connect().bootstrap("john")
    jane = await connect().bootstrap("jane")
    witness.skip()
    await jane.lose()
    await reaper.sweep()
    resource = (await witness.body())["resource"]
    assert isinstance(resource, dict) and resource["presence"] == {"status": "UNAVAILABLE", "online": False}
    (session,) = (await core.sessions.list(SessionFilter(user_name="jane"), PageRequest())).items
    assert session.end_reason is EndReason.LEASE_EXPIRED
    story = (await core.sessions.show(session.id)).story
    assert [entry.kind for entry in story] == [StoryKind.STARTED, StoryKind.SUSPENDED, StoryKind.ENDED]
    late = connect()
    answer = await late.connect("jane", **{"StompX-Auth-Session-ID": jane.session})
    assert answer.headers["recovered"] == "lost"


async def test_a_reload_is_not_seen_and_a_real_leave_is_seen_once(connect: Connect, core: Core, reaper: Reaper) -> None:
    await core.applications.change("default", ApplicationChanges(sessions=SessionPolicy(leave_grace=0.2)))
    witness = await connect().bootstrap("john")
    jane = await connect().bootstrap("jane")
    witness.skip()
    await jane.lose()
    again = await connect().bootstrap("jane")
    await asyncio.sleep(0.25)
    await reaper.sweep()
    assert witness.nothing_more()
    await again.lose()
    async with asyncio.timeout(5):
        while witness.nothing_more():
            await reaper.sweep()
            await asyncio.sleep(0.01)
    assert (await witness.body())["type"] == "contact.presence.changed"
    await reaper.sweep()
    assert witness.nothing_more()


@pytest.fixture
async def reaper(core: Core) -> Reaper:
    return core.reaper


async def test_another_node_finds_the_sessions_of_a_dead_one(tmp_path: Path, connect: Connect, core: Core) -> None:
    await connect().bootstrap("jane")
    # The first node never took its lease, as if it had run out; the second one looks after its sessions.
    async with open_core(Settings(data_dir=tmp_path)) as second:
        await second.reaper.bury_nodes()
        (session,) = (await second.sessions.list(SessionFilter(), PageRequest())).items
        assert session.state is SessionState.SUSPENDED
        story = (await second.sessions.show(session.id)).story
        assert story[-1].detail == "its server died"


async def test_sessions_and_events_survive_a_restart(tmp_path: Path) -> None:
    from tests.unit.gateways.chatkitty.restart import started

    async with started(tmp_path) as (core, connect):
        application, _ = await core.applications.create("default", api_key="key-default")
        await core.users.create(application, "john")
        jane = await connect().bootstrap("jane")
        await rename(core, application, "john", "A")
        assert await names_of(jane, 1) == ["A"]
        await core.reaper.save_positions()
        await rename(core, application, "john", "B")
    async with started(tmp_path) as (core, connect):
        await rename(core, application, "john", "C")
        back = await comes_back(connect, jane)
        assert await names_of(back, 2) == ["B", "C"]
        await back.relay("/application/v1/user.relay")
        assert back.nothing_more()


async def test_what_a_fenced_connection_had_seen_is_saved(
    connect: Connect, core: Core, application: Application
) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await rename(core, application, "john", "A")
    assert await names_of(jane, 1) == ["A"]
    await comes_back(connect, jane)
    stored = (await core.sessions.list(SessionFilter(user_name="jane"), PageRequest())).items[0]
    live = core.hub.get(stored.id)
    assert live is not None and dict(stored.positions) == live.acked


async def test_a_release_that_failed_is_gone_on_with(
    connect: Connect, core: Core, application: Application, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offhook.services.hub.HISTORY_PAGE", 2)
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await jane.lose()
    await rename(core, application, "john", *"ABCDE")
    history, calls = core.broker.history, 0

    async def failing(topic: Topic, after: Position, limit: int) -> Sequence[Publication]:
        nonlocal calls
        calls += limit > 1
        if calls == 4:
            calls += 1
            raise Unavailable("away")
        return await history(topic, after, limit)

    monkeypatch.setattr(core.broker, "history", failing)
    back = await comes_back(connect, jane)
    await settle()
    live = next(iter(core.hub))
    assert live.held
    await core.hub.release(live)
    assert await names_of(back, 5, ack=False) == list("ABCDE")
    await back.relay("/application/v1/user.relay")
    assert back.nothing_more()


async def test_positions_are_saved_although_saving_failed_once(
    connect: Connect, core: Core, application: Application, reaper: Reaper, monkeypatch: pytest.MonkeyPatch
) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await reaper.start()
    transact, failures = core.store.transact, 0

    async def failing(work: Callable[[Transaction], object]) -> object:
        nonlocal failures
        if failures == 0 and "save_positions" in work.__qualname__:
            failures += 1
            raise RuntimeError("a defect")
        return await transact(work)

    monkeypatch.setattr(core.store, "transact", failing)
    await rename(core, application, "john", "A")
    assert await names_of(jane, 1) == ["A"]
    live = next(iter(core.hub))
    async with asyncio.timeout(5):
        while dict((await core.sessions.show(live.id)).session.positions) != live.acked:
            await asyncio.sleep(0.01)
    assert failures == 1
    await reaper.stop()


async def test_an_event_that_was_read_before_it_was_delivered_comes_once(
    connect: Connect, core: Core, application: Application
) -> None:
    await core.users.create(application, "john")
    jane = await connect().bootstrap("jane")
    await jane.lose()
    await rename(core, application, "john", *"ABC")
    back = await comes_back(connect, jane)
    assert await names_of(back, 3) == list("ABC")
    await settle()
    # The delivery of a commit may come after somebody has read in the history what it stored.
    topic = application_topic(application.id)
    position = await core.broker.position(topic)
    (late,) = await core.broker.history(topic, Position(position.epoch, position.offset - 1), 1)
    core.hub.publish(late)
    await rename(core, application, "john", "D")
    assert await names_of(back, 1) == ["D"]
    assert back.nothing_more()
