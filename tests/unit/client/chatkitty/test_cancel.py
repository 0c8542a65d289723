"""Calls that are cancelled, and clients that are closed, at every moment: nothing of them is left on either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path

import pytest
from tests.served import Site, served, until
from tests.unit.client.chatkitty.people import kitty_at, live_sessions, other_tasks, sessions, started
from tests.unit.client.chatkitty.test_other_servers import Scripted

from offhook.chatkitty import ChatKitty, Failed, NoActiveSessionError, Reconnect, SessionEndedError
from offhook.domain.sessions import SessionState
from offhook.testing import FaultProxy


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path) as site:
        yield site


async def _ticks(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def _cancelled_after(ticks: int, work: Coroutine[object, object, object]) -> bool:
    """Lets it run for some ticks of the loop and cancels it. Returns whether it was done before."""
    task = asyncio.ensure_future(work)
    await _ticks(ticks)
    done = task.done()
    task.cancel()
    await asyncio.wait({task})
    return done


async def test_a_cancelled_start_leaves_nothing(site: Site) -> None:
    async with kitty_at(site) as (kitty, ears):
        ticks, done = 0, False
        while not done:
            before = len(other_tasks())
            done = await _cancelled_after(ticks, kitty.start_session(f"jane-{ticks}"))
            if done:
                break
            assert (kitty.session, kitty.is_online, ears.all) == (None, False, [])
            await until(lambda: not site.core.hub, seconds=5)
            assert await live_sessions(site) == []
            # What the server, in the same loop, does for a connection that is gone may take it a moment.
            await until(lambda before=before: len(other_tasks()) <= before)  # type: ignore[misc]
            ticks += 1
        assert ticks > 10
        assert kitty.is_online


async def test_a_start_during_which_the_client_is_closed_ends_at_once(site: Site) -> None:
    for ticks in range(0, 60, 3):
        async with kitty_at(site) as (kitty, _):
            start = asyncio.ensure_future(kitty.start_session("jane"))
            await _ticks(ticks)
            async with asyncio.timeout(2):
                await kitty.close()
            try:
                result = await start
            except Exception as error:
                assert ticks == 0 and type(error).__name__ == "ClientClosed"
            else:
                assert result.succeeded or isinstance(result.error, SessionEndedError)
            assert kitty.session is None
        await until(lambda: not site.core.hub, seconds=5)
    assert await live_sessions(site) == []


async def test_a_cancelled_request_is_forgotten_alone(site: Site) -> None:
    async with started(site, "jane") as (kitty, _):
        stay = kitty._stay
        assert stay is not None
        for ticks in range(12):
            kept = asyncio.ensure_future(kitty.list_users_count())
            await _cancelled_after(ticks, kitty.retrieve_current_user())
            await _cancelled_after(ticks, kitty.update_current_user(lambda user: user))
            assert (await kept).succeeded
            assert (len(stay._answers), stay._stompx.unanswered) == (0, 0)
        assert kitty.is_online


async def test_a_cancelled_end_still_ends(site: Site) -> None:
    for ticks in range(12):
        async with kitty_at(site) as (kitty, _):
            (await kitty.start_session("jane")).unwrap()
            before = len(other_tasks())
            await _cancelled_after(ticks, kitty.end_session())
            if ticks:
                assert kitty.session is None and not kitty.is_online
                await until(lambda before=before: len(other_tasks()) < before)  # type: ignore[misc]
            await kitty.end_session()
            assert (await kitty.start_session("jane")).succeeded


async def test_closing_in_the_middle_of_everything(site: Site) -> None:
    """Clients that are closed while they start, ask, act, lose their connection and come back."""
    before = len(other_tasks())
    proxy = FaultProxy("{}:{}".format(*site.address))
    await proxy.accept()
    for ticks in range(0, 80, 4):
        async with kitty_at(proxy.host) as (kitty, _):
            await kitty.start_session("jane")
            work: list[asyncio.Future[object]] = [
                asyncio.ensure_future(kitty.list_users_count()),
                asyncio.ensure_future(kitty.update_current_user(lambda user: user.replace(display_name="J"))),
            ]
            proxy.cut()
            await _ticks(ticks)
            await asyncio.gather(kitty.close(), kitty.end_session(), kitty.close())
            for result in await asyncio.gather(*work, return_exceptions=True):
                assert not isinstance(result, BaseException) or isinstance(result, NoActiveSessionError)
                assert not isinstance(result, Failed) or result.error.retryable or result.error.code == "session_ended"
            assert kitty.session is None
    await proxy.close()
    await until(lambda: len(other_tasks()) <= before)


async def test_a_handler_may_end_the_session(site: Site) -> None:
    async with kitty_at(site) as (kitty, ears):
        ended = asyncio.Event()

        async def leave(event: object) -> None:
            await kitty.end_session()
            ended.set()

        kitty.on_current_user_online(leave)
        await kitty.start_session("jane")
        async with asyncio.timeout(5):
            await ended.wait()
        assert kitty.session is None
        (session,) = await sessions(site, "jane")
        assert session.state is SessionState.ENDED
        assert ears.kinds[-1] == "CurrentUserChanged"


async def test_clients_that_never_started_close(site: Site) -> None:
    kitty = ChatKitty("key-default", host="{}:{}".format(*site.address), is_secure=False)
    await kitty.close()
    await kitty.close()


async def test_an_end_that_is_cancelled_while_the_connection_comes_back_leaves_nothing() -> None:
    server = Scripted()
    async with server.open() as host:
        for ticks in range(0, 100, 3):
            serving = other_tasks()
            async with kitty_at(host) as (kitty, _):
                (await kitty.start_session("jane")).unwrap()
                await server.sockets[-1].close(1011)
                await _ticks(ticks)
                await _cancelled_after(ticks % 7 + 1, kitty.end_session())
                assert (kitty.session, kitty.is_online) == (None, False)
                await until(lambda serving=serving: other_tasks() <= serving)  # type: ignore[misc]
                assert (await kitty.start_session("jane")).succeeded


async def test_what_waits_for_a_connection_ends_with_the_session() -> None:
    server = Scripted()
    slow = Reconnect(initial=60, maximum=60)
    async with server.open() as host, kitty_at(host, reconnect=slow) as (kitty, _):
        (await kitty.start_session("jane")).unwrap()
        page = (await kitty.list_users()).unwrap().paginator
        await server.sockets[-1].close(1011)
        await until(lambda: not kitty.is_online)
        question = asyncio.create_task(kitty.retrieve_current_user())
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await kitty.end_session()
            result = await question
        assert isinstance(result, Failed) and isinstance(result.error, SessionEndedError)
        # What the page knows of is over as well, although another session begins.
        (await kitty.start_session("jane")).unwrap()
        assert not page.has_next_page and kitty.is_online
