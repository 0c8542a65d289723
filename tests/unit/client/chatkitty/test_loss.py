"""Connections that are lost, on a real server behind a network that breaks (ChatKitty protocol notes, 2.5 and 2.7)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.served import Site, served, until
from tests.support import ServerProcess
from tests.unit.client.chatkitty.people import kitty_at, rename, sessions, started

from offhook.chatkitty import (
    AccessDeniedError,
    ChatKitty,
    ChatKittyConnectionError,
    ChatKittyConnectionLost,
    ChatKittyTimedOut,
    CurrentUserOffline,
    CurrentUserOnline,
    CurrentUserResult,
    Failed,
    Reconnect,
    Resumed,
    SessionEnded,
    UserUpdated,
)
from offhook.codes import EndReason
from offhook.domain.sessions import SessionState
from offhook.testing import FaultProxy


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path) as site:
        yield site


@contextlib.asynccontextmanager
async def proxied(upstream: Site | str) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(upstream if isinstance(upstream, str) else "{}:{}".format(*upstream.address))
    await proxy.accept()
    try:
        yield proxy
    finally:
        await proxy.close()


async def _renamed(kitty: ChatKitty, name: str) -> CurrentUserResult:
    return await kitty.update_current_user(lambda user: user.replace(display_name=name))


async def test_what_was_missed_comes_in_order_and_once(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, ears), started(site, "john") as (john, _):
        await rename(john, "One")
        await ears.hear(UserUpdated)
        for _ in range(3):
            proxy.go_away()
            await until(lambda: not jane.is_online)
            for name in ("Two", "Three", "Four"):
                await rename(john, name)
            await proxy.accept()
            await until(lambda: jane.is_online)
            await rename(john, "Five")
        await ears.hear(UserUpdated, 13)
        assert [event.user.display_name for event in ears.of(UserUpdated)] == [
            "One",
            *["Two", "Three", "Four", "Five"] * 3,
        ]
        assert ears.of(Resumed) == [Resumed(True)] * 3
        assert (len(ears.of(CurrentUserOnline)), len(ears.of(CurrentUserOffline))) == (4, 3)
        (session,) = await sessions(site, "jane")
        assert (session.state, session.resumes) == (SessionState.ACTIVE, 3)


async def test_an_event_that_was_not_acknowledged_is_told_once(site: Site) -> None:
    """The acknowledgements are held back, so that the server sends everything again."""
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, ears), started(site, "john") as (john, _):
        upstream = _Upstream(proxy)
        upstream.hold()
        for name in ("One", "Two", "Three"):
            await rename(john, name)
        await ears.hear(UserUpdated, 3)
        proxy.cut()
        upstream.release()
        await ears.hear(Resumed)
        await rename(john, "Four")
        await ears.hear(UserUpdated, 4)
        assert (await jane.retrieve_current_user()).succeeded
        assert [event.user.display_name for event in ears.of(UserUpdated)] == ["One", "Two", "Three", "Four"]


class _Upstream:
    """Holds back what a client sends, by filling in for the proxy's way to the server."""

    def __init__(self, proxy: FaultProxy) -> None:
        self._links = list(proxy._links)
        self._writes = [(link.upstream, link.upstream.write) for link in self._links if link.upstream is not None]

    def hold(self) -> None:
        for stream, _ in self._writes:
            stream.write = lambda data: None  # type: ignore[method-assign]

    def release(self) -> None:
        for stream, write in self._writes:
            stream.write = write  # type: ignore[method-assign]


async def test_what_is_begun_offline_waits(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, _):
        proxy.go_away()
        await until(lambda: not jane.is_online)
        question = asyncio.create_task(jane.list_users_count())
        action = asyncio.create_task(_renamed(jane, "Far away"))
        await asyncio.sleep(0)
        await proxy.accept()
        assert (await question).succeeded and (await action).succeeded
        assert jane.current_user is not None and jane.current_user.display_name == "Far away"


async def test_what_is_begun_offline_is_given_up_in_time(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane", timeout=0.3) as (jane, _):
        proxy.go_away()
        await until(lambda: not jane.is_online)
        result = await jane.list_users_count()
        assert isinstance(result, Failed) and isinstance(result.error, ChatKittyTimedOut)
        await jane.end_session()
        assert jane.session is None


async def test_questions_are_asked_again_and_actions_fail(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, ears):
        proxy.stall()
        question = asyncio.create_task(jane.list_users_count())
        action = asyncio.create_task(_renamed(jane, "Perhaps"))
        await until(lambda: len(jane._stay._answers) == 2 if jane._stay else False)
        proxy.cut()
        failed = await action
        assert isinstance(failed, Failed) and isinstance(failed.error, ChatKittyConnectionLost)
        assert failed.error.close_code == 1006
        proxy.flow()
        assert (await question).succeeded
        assert ears.of(Resumed) == [Resumed(True)]


async def test_sessions_that_cannot_be_resumed_begin_anew(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, ears), started(site, "john") as (john, _):
        proxy.go_away()
        await until(lambda: not jane.is_online)
        (session,) = await sessions(site, "jane")
        await site.core.sessions.end(session.id, EndReason.LEASE_EXPIRED)
        await rename(john, "Missed")
        await proxy.accept()
        assert await ears.hear(Resumed) == [Resumed(False)]
        await rename(john, "Heard")
        assert [event.user.display_name for event in await ears.hear(UserUpdated)] == ["Heard"]
        newest, _ = await sessions(site, "jane")
        assert newest.state is SessionState.ACTIVE


async def test_access_that_was_taken_away_ends_the_session(site: Site) -> None:
    application = await site.core.applications.get("default")
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, ears):
        proxy.go_away()
        await until(lambda: not jane.is_online)
        await site.core.users.set_enabled(application, "jane", False)
        await proxy.accept()
        (ended,) = await ears.hear(SessionEnded)
        assert isinstance(ended.error, AccessDeniedError) and jane.session is None
        result = await jane.start_session("jane")
        assert isinstance(result, Failed) and isinstance(result.error, AccessDeniedError)


async def test_a_policy_that_gives_up_ends_the_session(site: Site) -> None:
    policy = Reconnect(initial=0.01, maximum=0.01, attempts=2)
    async with proxied(site) as proxy, kitty_at(proxy.host, reconnect=policy) as (jane, ears):
        (await jane.start_session("jane")).unwrap()
        proxy.go_away()
        (ended,) = await ears.hear(SessionEnded)
        assert isinstance(ended.error, ChatKittyConnectionError) and jane.session is None
        await proxy.accept()
        assert (await jane.start_session("jane")).succeeded


async def test_closing_while_the_connection_is_lost_waits_for_nothing(site: Site) -> None:
    async with proxied(site) as proxy, started(proxy.host, "jane") as (jane, _):
        proxy.go_away()
        await until(lambda: not jane.is_online)
        async with asyncio.timeout(1):
            await jane.close()


@pytest.mark.parametrize("death", ["restart", "kill"])
async def test_servers_come_back(tmp_path: Path, death: str) -> None:
    server = ServerProcess(tmp_path, settings={"durability": "normal"})
    await asyncio.to_thread(server.start)
    try:
        api_key = await asyncio.to_thread(lambda: server.api_key)
        async with (
            kitty_at(server.http_host, api_key=api_key) as (jane, ears),
            kitty_at(server.http_host, api_key=api_key) as (john, _),
        ):
            (await jane.start_session("jane")).unwrap()
            (await john.start_session("john")).unwrap()
            await rename(john, "Before")
            await ears.hear(UserUpdated)
            if death == "kill":
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            else:
                await asyncio.to_thread(server.restart)
            assert await ears.hear(Resumed) == [Resumed(True)]
            await rename(john, "After")
            updates = await ears.hear(UserUpdated, 2)
            assert [event.user.display_name for event in updates] == ["Before", "After"]
            assert jane.is_online and ears.of(SessionEnded) == []
    finally:
        await asyncio.to_thread(server.stop)
