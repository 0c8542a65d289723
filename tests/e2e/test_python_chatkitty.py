"""The Python client against the real server: every operation, and every way a start can go (protocol notes, 5, 9)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.served import API_KEY, WAIT, Site, served, until
from tests.support import ServerProcess, free_port
from tests.unit.client.chatkitty.people import kitty_at, rename, sessions, started, user_named

from offhook.chatkitty import (
    AccessDeniedError,
    Blocking,
    ChatKitty,
    ChatKittyConnectionError,
    ChatKittyError,
    ChatKittyTimedOut,
    ClientClosed,
    CurrentUserChanged,
    CurrentUserOffline,
    CurrentUserOnline,
    ExternalFile,
    Failed,
    File,
    InvalidRequestError,
    NoActiveSessionError,
    PageOutOfBoundsError,
    RateLimitedError,
    ResourceNotFoundError,
    SessionActiveError,
    SessionEnded,
    SessionEndedError,
    UserBlocked,
    UserDeleted,
    UserFilter,
    UserPresenceChanged,
    UserUnblocked,
    UserUpdated,
)
from offhook.codes import EndReason
from offhook.domain.sessions import SessionState

FUNCTIONS = """
from offhook.functions import AccessDenied, on

@on.user_attempted_start_session
async def authenticate(event, context):
    if event.auth_params.get("ticket") != "ä€7":
        raise AccessDenied("This ticket is void")
    return {"display_name": "Seat 7", "properties": {"row": 7}}
"""


PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


class Result(Protocol):
    """Any result."""

    def unwrap(self) -> object: ...


def _state(kitty: ChatKitty) -> tuple[object, object, bool]:
    return kitty.session, kitty.current_user, kitty.is_online


def _error(result: Result) -> ChatKittyError:
    assert isinstance(result, Failed), result
    return result.error


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path) as site:
        yield site


# --- starting and ending ---------------------------------------------------------------------------------------------


async def test_a_guest_starts_and_ends_a_session(site: Site) -> None:
    async with kitty_at(site) as (kitty, ears):
        assert _state(kitty) == (None, None, False)
        result = await kitty.start_session("jane: at home")
        assert result.succeeded and not result.failed
        user = result.session.user
        assert (user.name, user.display_name, user.is_guest) == ("jane: at home", "jane: at home", True)
        assert user.presence.online and user.presence.status == "AVAILABLE"
        assert kitty.current_user == user and kitty.session == result.session and kitty.is_online
        assert ears.all == [CurrentUserChanged(user), CurrentUserOnline(user)]
        (session,) = await sessions(site, "jane: at home")
        assert session.client.agent.startswith("Offhook-Python/")

        await kitty.end_session()
        assert _state(kitty) == (None, None, False)
        assert ears.all[2:] == [CurrentUserOffline(user), CurrentUserChanged(None)]
        (session,) = await sessions(site, "jane: at home")
        assert (session.state, session.end_reason) == (SessionState.ENDED, EndReason.CLIENT)
        await kitty.end_session()
        assert (await kitty.start_session("jane: at home")).succeeded


async def test_credentials_are_needed_where_there_are_some(site: Site) -> None:
    application = await site.core.applications.get("default")
    await site.core.users.create(application, "jane", password="right ä€")
    async with kitty_at(site) as (kitty, ears):
        for params in (None, {"password": "wrong"}):
            result = await kitty.start_session("jane", auth_params=params)
            assert not result.succeeded
            assert isinstance(result.error, AccessDeniedError)
            assert (result.error.error, bool(result.error.message)) == ("AccessDeniedError", True)
            assert result.error.timestamp is not None
            with pytest.raises(AccessDeniedError):
                result.unwrap()
        assert ears.all == [] and kitty.session is None
        assert (await kitty.start_session(username="jane", auth_params={"password": "right ä€"})).succeeded


async def test_an_application_decides_by_its_function(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, functions=FUNCTIONS)
    await asyncio.to_thread(server.start)
    try:
        api_key = await asyncio.to_thread(lambda: server.api_key)
        async with kitty_at(server.http_host, api_key=api_key) as (kitty, _):
            refused = _error(await kitty.start_session("jane", {"ticket": "void"}))
            assert (refused.error, refused.message) == ("AccessDeniedError", "This ticket is void")
            user = (await kitty.start_session("jane", {"ticket": "ä€7"})).unwrap().session.user
            assert (user.display_name, user.properties) == ("Seat 7", {"row": 7})
    finally:
        await asyncio.to_thread(server.stop)


async def test_starts_that_cannot_be(site: Site) -> None:
    async with kitty_at(site, api_key="a wrong/one&x=y") as (kitty, _):
        assert isinstance(_error(await kitty.start_session("jane")), AccessDeniedError)
    async with kitty_at("127.0.0.1:1") as (kitty, _):
        assert isinstance(_error(await kitty.start_session("jane")), ChatKittyConnectionError)
    async with kitty_at("{}:{}/nowhere".format(*site.address)) as (kitty, _):
        error = _error(await kitty.start_session("jane"))
        assert isinstance(error, ChatKittyConnectionError) and error.status == 404
    async with kitty_at(site) as (kitty, _):
        assert isinstance(_error(await kitty.start_session("")), AccessDeniedError)
        with pytest.raises(ValueError, match="line ends"):
            _ = kitty.start_session("jane\nStompX-User:john")


async def test_a_server_that_says_nothing_is_given_up() -> None:
    gone = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(listen, "127.0.0.1", 0) as silent:
        host = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        async with kitty_at(host, timeout=0.2) as (kitty, _):
            assert isinstance(_error(await kitty.start_session("jane")), ChatKittyTimedOut)
            async with asyncio.timeout(WAIT):
                await gone.wait()


async def test_one_session_at_a_time(site: Site) -> None:
    async with kitty_at(site) as (kitty, _):
        first = asyncio.create_task(kitty.start_session("jane"))
        late = kitty.start_session("jane")
        await asyncio.sleep(0)
        with pytest.raises(SessionActiveError):
            _ = kitty.start_session("john")
        with pytest.raises(SessionActiveError):
            await late
        assert (await first).succeeded
        with pytest.raises(SessionActiveError):
            _ = kitty.start_session("john")


async def test_calls_without_a_session_are_wrong(site: Site) -> None:
    async with kitty_at(site) as (kitty, _):
        for call in (kitty.retrieve_current_user, kitty.list_users, kitty.list_users_count):
            with pytest.raises(NoActiveSessionError):
                call()
        with pytest.raises(NoActiveSessionError):
            _ = kitty.retrieve_user(1)
    with pytest.raises(ClientClosed):
        _ = kitty.start_session("jane")
    await kitty.close()


async def test_many_wrong_passwords_are_answered_with_patience(tmp_path: Path) -> None:
    async with served(tmp_path, denial_burst=1, denial_rate=0.2) as site, kitty_at(site) as (kitty, _):
        application = await site.core.applications.get("default")
        await site.core.users.create(application, "jane", password="right")
        assert isinstance(_error(await kitty.start_session("jane", {"password": "wrong"})), AccessDeniedError)
        error = _error(await kitty.start_session("jane", {"password": "right"}))
        assert isinstance(error, RateLimitedError)
        assert error.cool_off is not None and 0 < error.cool_off < 10


# --- the current user ------------------------------------------------------------------------------------------------


async def test_the_current_user_changes(site: Site) -> None:
    async with started(site, "jane") as (kitty, ears), started(site, "jane") as (tab, tab_ears):
        before = kitty.current_user
        assert before is not None and (await kitty.retrieve_current_user()).unwrap().user == before
        result = await kitty.update_current_user(
            lambda user: user.replace(display_name="Jane ✨", properties={"mood": ["good"]}, status="DO_NOT_DISTURB")
        )
        user = result.unwrap().user
        assert (user.display_name, user.properties) == ("Jane ✨", {"mood": ["good"]})
        assert (user.presence.status, user.presence.online) == ("DO_NOT_DISTURB", True)
        assert kitty.current_user == user
        assert [event.user for event in ears.of(CurrentUserChanged)] == [before, user]
        await until(lambda: tab.current_user == user)
        assert [event.user for event in tab_ears.of(CurrentUserChanged)] == [before, user]

        failed = await kitty.update_current_user(lambda user: user.replace(display_name="x" * 10_000))
        assert not failed.succeeded
        assert isinstance(failed.error, InvalidRequestError)
        assert (failed.error.error, failed.error.field) == ("ClientError", "displayName")
        assert kitty.current_user == user


async def test_pictures_are_uploaded_and_named(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    path.write_bytes(PNG)
    async with started(site, "jane") as (kitty, ears):
        urls = []
        for file in (File(PNG, "me.png"), path, ExternalFile("https://pics.example/1.png", "1.png", "image/png", 7)):
            result = await kitty.update_current_user_display_picture(file)
            user = result.unwrap().user
            assert kitty.current_user == user
            urls.append(user.display_picture_url)
        assert urls[2] == "https://pics.example/1.png"
        assert urls[0] is not None
        await until(lambda: [e.user.display_picture_url for e in ears.of(CurrentUserChanged) if e.user][-1] == urls[2])

        bad = await kitty.update_current_user_display_picture(File(b"no picture", "me.png"))
        assert isinstance(_error(bad), InvalidRequestError)
        worse = await kitty.update_current_user_display_picture(ExternalFile("ftp://x", "1.png", "image/png", 7))
        assert not worse.succeeded and worse.error.field == "url"
        with pytest.raises(FileNotFoundError):
            await kitty.update_current_user_display_picture(tmp_path / "none.png")


async def test_users_can_delete_themselves(site: Site) -> None:
    async with started(site, "john") as (_, john_ears), started(site, "jane") as (jane, jane_ears):
        john = await user_named(jane, "john")
        assert isinstance(_error(await jane.delete_user(john)), AccessDeniedError)
        assert jane.current_user is not None
        assert (await jane.delete_user(jane.current_user)).unwrap().user.name == "jane"
        (ended,) = await jane_ears.hear(SessionEnded)
        assert isinstance(ended.error, AccessDeniedError) and jane.session is None
        (deleted,) = await john_ears.hear(UserDeleted)
        assert deleted.user.name == "jane"
        with pytest.raises(NoActiveSessionError):
            _ = jane.list_users()


# --- others ----------------------------------------------------------------------------------------------------------


async def test_lists_come_in_pages(site: Site) -> None:
    application = await site.core.applications.get("default")
    for number in range(60):
        await site.core.users.create(application, f"user-{number:02}", display_name=f"Number {number:02}: {number % 2}")
    async with started(site, "jane") as (kitty, _):
        everybody = [f"user-{number:02}" for number in range(60)]
        listed = (await kitty.list_users()).unwrap()
        pages = [listed.users]
        page = listed.paginator
        assert not page.has_prev_page and page.numbers.total_elements == 60
        with pytest.raises(PageOutOfBoundsError):
            _ = page.prev_page()
        while page.has_next_page:
            turned = (await page.next_page()).unwrap()
            page = turned.paginator
            pages.append(turned.items)
        assert [user.name for users in pages for user in users] == everybody and len(pages) == 3
        with pytest.raises(PageOutOfBoundsError):
            _ = page.next_page()
        assert (await page.prev_page()).unwrap().items == pages[1]
        assert [user.name async for user in listed.paginator] == everybody

        odd = (await kitty.list_users(UserFilter(display_name=": 1"))).unwrap()
        assert [user.name async for user in odd.paginator] == everybody[1::2] and odd.paginator.has_next_page
        assert (await kitty.list_users_count()).unwrap().count == 60
        assert (await kitty.list_users_count(UserFilter(name="user-10", online=False))).unwrap().count == 1
        assert (await kitty.list_users(UserFilter(online=True))).unwrap().users == ()
        one = (await kitty.retrieve_user(pages[0][3].id)).unwrap().user
        assert one == pages[0][3]
        assert isinstance(_error(await kitty.retrieve_user(10**9)), ResourceNotFoundError)


async def test_others_come_change_and_go(site: Site) -> None:
    async with started(site, "jane") as (_, ears):
        async with started(site, "john") as (john, _):
            await rename(john, "John II")
        await ears.hear(UserPresenceChanged, 2)
    told = [
        (type(event), event.user.display_name, event.user.presence.online)
        for event in ears.all
        if isinstance(event, UserPresenceChanged | UserUpdated)
    ]
    assert told == [
        (UserPresenceChanged, "john", True),
        (UserUpdated, "John II", True),
        (UserPresenceChanged, "John II", False),
    ]


async def test_blocks(site: Site) -> None:
    async with started(site, "john"), started(site, "jane") as (jane, ears), started(site, "jane") as (_, tab_ears):
        john = await user_named(jane, "john")
        assert (await jane.block_user(john)).unwrap().user.id == john.id
        (record,) = (await jane.list_user_blocked_records()).unwrap().items
        assert record.user.id == john.id and record.created_time is not None
        assert (await jane.list_users()).unwrap().users == ()
        for heard in (ears, tab_ears):
            (blocked,) = await heard.hear(UserBlocked)
            assert blocked.record.user.id == john.id
        assert (await jane.delete_user_blocked_record(record)).unwrap().user.id == john.id
        for heard in (ears, tab_ears):
            (unblocked,) = await heard.hear(UserUnblocked)
            assert unblocked.user.id == john.id
        assert (await jane.list_user_blocked_records()).unwrap().items == ()
        assert not (await jane.delete_user_blocked_record(record)).succeeded


# --- what else a server does -----------------------------------------------------------------------------------------


async def test_relays_that_come_too_fast_are_asked_again(tmp_path: Path) -> None:
    async with served(tmp_path, request_rate=20.0, request_burst=5) as site, started(site, "jane") as (kitty, _):
        results = await asyncio.gather(*(kitty.list_users_count() for _ in range(20)))
        assert all(result.succeeded for result in results)
        updates = await asyncio.gather(*(kitty.update_current_user(lambda user: user) for _ in range(20)))
        errors = [result.error for result in updates if not result.succeeded]
        assert errors and all(isinstance(error, RateLimitedError) and error.cool_off for error in errors)


@pytest.mark.parametrize("how", ["operator", "password", "disabled"])
async def test_whoever_is_sent_away_is_told_why(site: Site, how: str) -> None:
    application = await site.core.applications.get("default")
    await site.core.users.create(application, "jane")
    async with started(site, "jane") as (kitty, ears):
        (session,) = await sessions(site, "jane")
        if how == "operator":
            await site.core.sessions.end(session.id, EndReason.OPERATOR, "Come back on Monday")
        elif how == "password":
            await site.core.users.set_password(application, "jane", "new")
        else:
            await site.core.users.set_enabled(application, "jane", False)
        (ended,) = await ears.hear(SessionEnded)
        assert isinstance(ended.error, AccessDeniedError) and ended.error.message
        if how == "operator":
            assert ended.error.message == "Come back on Monday"
        assert ears.kinds[-3:] == ["CurrentUserOffline", "CurrentUserChanged", "SessionEnded"]
        assert (kitty.session, kitty.is_online) == (None, False)
        again = await kitty.start_session("jane", {"password": "new"} if how == "password" else None)
        assert again.succeeded is (how != "disabled")


async def test_handlers_come_off_and_streams_end_with_the_client(site: Site) -> None:
    async with started(site, "jane") as (jane, _):
        heard: list[UserPresenceChanged] = []
        remove = jane.on_user_presence_changed(heard.append)
        stream = jane.events("user.presence.changed", "user.updated")
        async with started(site, "john") as (john, _):
            first = await anext(stream)
            assert isinstance(first, UserPresenceChanged) and heard == [first]
            remove()
            await rename(john, "John II")
            assert isinstance(await anext(stream), UserUpdated)
        assert isinstance(await anext(stream), UserPresenceChanged) and heard == [first]
    assert [event async for event in stream] == []


async def test_waits_end_with_the_session(site: Site) -> None:
    async with started(site, "jane") as (kitty, _):
        calls = [asyncio.create_task(kitty.list_users_count()) for _ in range(5)]
        await asyncio.sleep(0)
        await kitty.end_session()
        for result in await asyncio.gather(*calls):
            assert result.succeeded or isinstance(result.error, SessionEndedError)


def test_it_runs_in_programs_that_are_not_asynchronous(tmp_path: Path) -> None:
    with Blocking() as blocking:
        site = blocking.enter(served(tmp_path))
        host = "{}:{}".format(*site.address)
        jane = blocking.enter(ChatKitty("key-default", host=host, is_secure=False))
        john = blocking.enter(ChatKitty("key-default", host=host, is_secure=False))
        blocking.run(jane.start_session("jane")).unwrap()
        events = blocking.iterate(jane.events("user.presence.changed"))
        blocking.run(john.start_session("john")).unwrap()
        event = next(events)
        assert isinstance(event, UserPresenceChanged) and event.user.name == "john"
        with pytest.raises(ChatKittyError):
            blocking.run(jane.retrieve_user(10**9)).unwrap()


async def test_over_tls(tmp_path: Path) -> None:
    port = free_port()
    async with served(tmp_path, tls_dev=True, tls_port=port):
        authority = tmp_path / "tls" / "authority.pem"
        async with ChatKitty(API_KEY, host=f"localhost:{port}", verify=authority) as kitty:
            session = (await kitty.start_session("jane")).unwrap().session
            assert session.user.display_name == "jane"
        # Who trusts nobody of that kind does not get as far as to say who they are.
        async with ChatKitty(API_KEY, host=f"localhost:{port}") as kitty:
            result = await kitty.start_session("jane")
            assert result.failed and isinstance(result.error, ChatKittyConnectionError)
            assert "certificate" in result.error.message
