"""What two nodes on one PostgreSQL database do at the same time, seen from the services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from tests.databases import a_database, execute, under_way
from tests.unit.services.kandy import ALICE, connected, user_of
from tests.unit.services.support import CLIENT, lose, resume, start, story_of

from offhook.codes import EndReason
from offhook.core import Core, open_core
from offhook.domain.accounts import UserChanges
from offhook.domain.events import UserUpdated, user_topic
from offhook.domain.sessions import SessionState, StoryKind
from offhook.domain.subscriptions import CALL, CALL_ME
from offhook.errors import NotSubscribed, SessionLimitReached
from offhook.ports import Command, EndSession, SessionFilter, Transaction
from offhook.services import subscriptions as subscriptions_module
from offhook.services.credentials import Identity
from offhook.services.starting import ended_with_story
from offhook.services.subscriptions import Wanted, Watching
from offhook.settings import Settings


@pytest.fixture
def url() -> Iterator[str]:
    with a_database() as url:
        yield url


@pytest.fixture
async def nodes(url: str, tmp_path: Path) -> AsyncIterator[tuple[Core, Core]]:
    """Two nodes that hear nothing of each other, with the application ``default``."""
    async with AsyncExitStack() as stack:
        cores = [
            await stack.enter_async_context(
                open_core(Settings(data_dir=tmp_path / name, database_url=url, secret_key="k" * 32))
            )
            for name in ("one", "other")
        ]
        await cores[0].applications.create("default", domain="example.com", api_key="key-default")
        yield cores[0], cores[1]


async def somebody_waits(url: str) -> None:
    """Returns once a transaction waits for what another holds."""
    sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
    async with asyncio.timeout(3):
        while not (await execute(sql, url.rpartition("/")[2]))[0][0]:
            await asyncio.sleep(0.01)


async def test_ending_many_ends_each_as_it_is_by_then(
    nodes: tuple[Core, Core], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = nodes
    jane, john = [await start(one, name) for name in ("jane", "john")]
    sent: list[tuple[str, Command]] = []

    async def send(node: str, command: Command) -> bool:
        sent.append((node, command))
        return True

    monkeypatch.setattr(one.broker, "send", send)

    def resumed_and_ended(tx: Transaction) -> None:
        session = tx.sessions.get(jane.id)
        assert session is not None
        tx.sessions.save(replace(session, generation=2, node="elsewhere"))
        session = tx.sessions.get(john.id)
        assert session is not None
        tx.sessions.save(*ended_with_story(session, other.clock.now(), EndReason.CLIENT, ""))

    async with under_way(other.store, resumed_and_ended):
        ending = asyncio.create_task(one.sessions.end_all(SessionFilter(), EndReason.OPERATOR))
        await somebody_waits(url)
    assert await ending == 1
    session = (await one.sessions.show(jane.id)).session
    assert (session.state, session.generation, session.node) == (SessionState.ENDED, 2, "elsewhere")
    assert sent == [("elsewhere", EndSession(jane.id, EndReason.OPERATOR))]
    assert (await one.sessions.show(john.id)).session.end_reason is EndReason.CLIENT
    assert await story_of(one, john.id) == [StoryKind.STARTED, StoryKind.ENDED]


async def test_what_a_client_saw_elsewhere_counts_not_what_it_saw_here_before(nodes: tuple[Core, Core]) -> None:
    """There, here, and there again: the first connection was sent more than the client got."""
    one, other = nodes
    stay = await start(one, "jane")
    topic = user_topic(stay.live.user_id)
    application = await one.applications.get("default")
    for name in ("A", "B"):
        await one.users.change(application, stay.live.user_id, UserChanges(display_name=name))
    head = (await one.broker.position(topic)).offset
    stay.live.acked[topic] = head
    away = await resume(other, stay, "jane")
    assert away is not None and one.hub.get(stay.id) is stay.live
    away.live.acked[topic] = head - 1
    await lose(other, away)
    back = await resume(one, away, "jane")
    assert back is not None and back.live.recovered
    assert back.live.acked[topic] == head - 1
    assert back.outlet.names(UserUpdated) == ["B"]


async def test_positions_that_are_saved_late_replace_no_newer_ones(nodes: tuple[Core, Core], url: str) -> None:
    one, other = nodes
    jane, john = [await start(one, name) for name in ("jane", "john")]
    topic = user_topic(john.live.user_id)
    john.live.acked[topic] = 5
    for stay in (jane, john):
        one.reaper.acked(stay.live)
    async with under_way(other.store, lambda tx: tx.sessions.get(jane.id)):
        saving = asyncio.create_task(one.reaper.save_positions())
        await somebody_waits(url)
        john.live.acked[topic] = 9
        await lose(one, john)
    await saving
    assert (await one.sessions.show(john.id)).session.positions[topic] == 9


async def test_callers_without_an_account_never_exceed_their_limit(
    nodes: tuple[Core, Core], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriptions_module, "MAX_ANONYMOUS", 15)
    application = await nodes[0].applications.get("default")
    names = [f"user-{number}@example.com" for number in range(24)]
    for name in names:
        await nodes[0].users.create(application, name)
    calls = [
        nodes[number % 2].subscriptions.create_anonymous(
            application, name, Wanted((CALL_ME,)), replace(CLIENT, address=f"192.0.2.{number % 3 // 2}")
        )
        for number, name in enumerate(names)
    ]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    made = [outcome.session.client.address for outcome in outcomes if not isinstance(outcome, BaseException)]
    refused = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert {type(error) for error in refused} == {SessionLimitReached}, refused
    assert made.count("192.0.2.0") <= 10 and len(made) == 15


async def test_who_gives_presence_up_elsewhere_watches_nobody(nodes: tuple[Core, Core], url: str) -> None:
    one, other = nodes
    line = await connected(one)
    identity = Identity(await user_of(one), session_id=line.id)

    def without_presence(tx: Transaction) -> None:
        subscription = tx.subscriptions.get(line.id)
        assert subscription is not None
        tx.subscriptions.save(replace(subscription, services=(CALL,), version=subscription.version + 1))

    async with under_way(other.store, without_presence):
        watching = asyncio.create_task(one.subscriptions.watch(identity, "", [ALICE], Watching.WATCH))
        await somebody_waits(url)
    with pytest.raises(NotSubscribed):
        await watching
