"""Servers, handlers and moments that are out to break a client: what each of them must not be able to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.served import Site, served, until
from tests.unit.client.chatkitty.people import kitty_at, live_sessions, other_tasks, started
from tests.unit.client.chatkitty.test_other_servers import ME, Scripted
from websockets.asyncio.server import ServerConnection

from offhook.chatkitty import (
    AccessDeniedError,
    ChatKitty,
    CurrentUserChanged,
    CurrentUserOffline,
    CurrentUserOnline,
    Failed,
    Reconnect,
    Resumed,
    SessionEnded,
    Transport,
    UserPresenceChanged,
)
from offhook.client.chatkitty.pictures import refusal
from offhook.client.chatkitty.session import Terms
from offhook.client.transport import Answer
from offhook.protocols import stomp

SELF = {**ME, "_actions": {"update": "/somewhere/update"}}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path) as site:
        yield site


class Brief(Scripted):
    """Lets everybody in again, and drops them as soon as they are."""

    async def _answer(self, socket: ServerConnection, frame: stomp.Frame) -> None:
        await super()._answer(socket, frame)
        if len(self.sockets) > 1 and frame.headers.get("destination") == "/application/v1/user.relay":
            await socket.close(1011)


class LastWords(Scripted):
    """Answers an action, and ends the session with the same breath."""

    async def _answer(self, socket: ServerConnection, frame: stomp.Frame) -> None:
        if frame.command != "SEND":
            await super()._answer(socket, frame)
            return
        subscribed = next(f for f in self.said("SUBSCRIBE") if f.headers["destination"] == "/somewhere/self")
        body = json.dumps({"type": "user.self.updated", "resource": {**SELF, "displayName": "Done"}}).encode()
        answer = stomp.message_prefix(subscribed.headers["id"], "/somewhere/self") + stomp.message_tail(
            "m", body, ack="a", extra={"receipt-id": frame.headers["receipt"]}
        )
        error = stomp.encode_error("Enough", json.dumps({"error": "AccessDeniedError", "message": "Enough"}).encode())
        await socket.send((answer + error).decode())


async def test_a_server_that_drops_whoever_it_lets_in_is_not_stormed() -> None:
    server = Brief()
    policy = Reconnect(initial=0.005, maximum=5, attempts=3)
    async with server.open() as host, kitty_at(host, reconnect=policy) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        await server.sockets[0].close(1011)
        await ears.hear(SessionEnded)
        assert len(server.sockets) == 1 + 3
        assert kitty.session is None


async def test_connections_that_lasted_count_as_successes() -> None:
    server = Scripted()
    loop = asyncio.get_running_loop()
    policy = Reconnect(initial=0.01, maximum=0.02, attempts=1)
    async with server.open() as host, kitty_at(host, reconnect=policy) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        for resumed in range(1, 4):
            await server.sockets[-1].close(1011)
            await ears.hear(Resumed, resumed)
            since = loop.time()
            await until(lambda since=since: loop.time() - since > 0.03)  # type: ignore[misc]
        assert kitty.is_online and ears.of(SessionEnded) == []


async def test_a_cancelled_end_leaves_neither_socket_nor_task(site: Site) -> None:
    for ticks in range(1, 14):
        async with kitty_at(site) as (kitty, _):
            before = other_tasks()
            (await kitty.start_session("jane")).unwrap()
            ending = asyncio.create_task(kitty.end_session())
            for _ in range(ticks):
                await asyncio.sleep(0)
            ending.cancel()
            await asyncio.wait({ending})
            assert kitty.session is None
            await until(lambda: not site.core.hub)
            await until(lambda before=before: other_tasks() <= before)  # type: ignore[misc]
        assert await live_sessions(site) == []


async def test_an_answer_that_came_is_given_although_the_session_ends_with_it() -> None:
    server = LastWords()
    server.resources["/application/v1/user.relay"] = SELF
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        result = await kitty.update_current_user(lambda user: user.replace(display_name="Done"))
        assert result.succeeded, result
        assert result.user.display_name == "Done"
        (ended,) = await ears.hear(SessionEnded)
        assert isinstance(ended.error, AccessDeniedError)


async def test_an_end_is_told_before_the_next_session_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.client.chatkitty.session.GOODBYE", 0.5)
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        server.sockets[0].transport.pause_reading()
        ending = asyncio.create_task(kitty.end_session())
        await asyncio.sleep(0)
        assert (await kitty.start_session("jane")).succeeded
        await ending
        server.sockets[0].transport.resume_reading()
        assert ears.kinds == [
            "CurrentUserChanged",
            "CurrentUserOnline",
            "CurrentUserOffline",
            "CurrentUserChanged",
            "CurrentUserChanged",
            "CurrentUserOnline",
        ]
        assert ears.of(CurrentUserChanged)[-1].user == kitty.current_user


async def test_a_handler_that_lets_a_cancellation_out_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Scripted()
    given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    given_up.cancel()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        kitty.on_user_presence_changed(lambda _: given_up.result())
        await until(lambda: len(server.said("SUBSCRIBE")) == 5)
        await server.tell("m-1")
        await server.tell("m-2")
        await ears.hear(UserPresenceChanged, 2)
        assert (await kitty.retrieve_current_user()).succeeded
    assert "A handler of events" in caplog.text


@pytest.mark.parametrize("host", ["127.0.0.1:1#part", "", "name@127.0.0.1:1", "me:s3cret@127.0.0.1:1"])
async def test_failures_hold_no_secrets(host: str) -> None:
    async with ChatKitty("s3cret", host=host, is_secure=False) as kitty:
        result = await kitty.start_session("jane", {"password": "s3cret"})
        assert isinstance(result, Failed)
        assert "s3cret" not in str(result) + repr(result.error) + repr(vars(result.error))


def test_values_show_no_secrets() -> None:
    assert "s3cret" not in repr(Terms("ws://host/rtm/websocket?api-key=s3cret", "agent", (0, 0), 1, Reconnect()))


async def test_a_server_that_always_asks_for_no_patience_is_not_stormed() -> None:
    server = Scripted()
    at_once = {"error": "RateLimitedError", "message": "Too fast", "coolOffDuration": "PT0S"}
    server.failures["/somewhere/count"] = [at_once] * 10_000
    async with server.open() as host, kitty_at(host, timeout=0.5) as (kitty, _):
        (await kitty.start_session("jane")).unwrap()
        result = await kitty.list_users_count()
        assert isinstance(result, Failed) and result.error.retryable
        assert 10_000 - len(server.failures["/somewhere/count"]) <= 6


def test_a_refused_upload_says_how_long_to_wait() -> None:
    plain = refusal(Answer(503, {"retry-after": "7"}, b"<html>"))
    assert (plain.code, plain.cool_off) == ("bad_answer", 7)
    body = {"error": "RateLimitedError", "message": "Slow", "coolOffDuration": "PT2S"}
    assert refusal(Answer(429, {"retry-after": "7"}, json.dumps(body).encode())).cool_off == 2
    del body["coolOffDuration"]
    assert refusal(Answer(429, {"retry-after": "7"}, json.dumps(body).encode())).cool_off == 7


# --- handlers that call back into the client -------------------------------------------------------------------------


async def test_a_session_is_started_again_by_who_hears_of_its_end() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        again = asyncio.Event()

        async def start(_: SessionEnded) -> None:
            (await kitty.start_session("jane")).unwrap()
            again.set()

        kitty.on_session_ended(start)
        (await kitty.start_session("jane")).unwrap()
        error = json.dumps({"error": "AccessDeniedError", "message": "Out"}).encode()
        await server.sockets[0].send(stomp.encode_error("Out", error).decode())
        async with asyncio.timeout(5):
            await again.wait()
        assert kitty.is_online and len(ears.of(CurrentUserOnline)) == 2


@pytest.mark.parametrize("way", ["end_session", "close"])
@pytest.mark.parametrize("where", ["coroutine", "task", "stream", "offline"])
async def test_a_client_is_left_from_wherever_events_are_heard(where: str, way: str) -> None:
    server = Scripted()
    before = other_tasks()
    async with server.open() as host:
        serving = other_tasks()
        async with kitty_at(host) as (kitty, _):
            left = asyncio.Event()

            async def leave(_: object) -> None:
                await getattr(kitty, way)()
                left.set()

            tasks: list[asyncio.Task[None]] = []
            stream = kitty.events("user.presence.changed")

            async def follow() -> None:
                async for event in stream:
                    await leave(event)
                    return

            (await kitty.start_session("jane")).unwrap()
            if where == "coroutine":
                kitty.on_user_presence_changed(leave)
            elif where == "task":
                kitty.on_user_presence_changed(lambda event: tasks.append(asyncio.create_task(leave(event))))
            elif where == "stream":
                tasks.append(asyncio.create_task(follow()))
            else:
                kitty.on_current_user_offline(leave)
            await until(lambda: len(server.said("SUBSCRIBE")) == 5)
            if where == "offline":
                await server.sockets[0].close(1011)
            else:
                await server.tell("m-1")
            async with asyncio.timeout(5):
                await left.wait()
                await asyncio.gather(*tasks)
            assert kitty.session is None and len(server.sockets) == 1
        await until(lambda: other_tasks() <= serving)
    await until(lambda: other_tasks() <= before)


# --- what a server may say -------------------------------------------------------------------------------------------

ODD_BODIES = (
    b"", b"null", b"[]", b"{", b'"text"', b"\xff\xfe", b'{"type":7,"resource":{}}', b'{"resource":{}}',
    b'{"type":"contact.presence.changed"}', b'{"type":"contact.presence.changed","resource":null}',
    b'{"type":"contact.presence.changed","resource":{"id":"x","name":1}}',
    b'{"type":"user.self.updated","resource":[1]}', b'{"type":"user.self.updated","resource":{"id":1e400}}',
    b'{"type":"user.user_blocklist_item.created","resource":{"user":null,"createdTime":"yesterday"}}',
    b'{"type":"contact.presence.changed","resource":' + b"[" * 2000 + b"]" * 2000 + b"}",
)  # fmt: skip


async def test_odd_events_and_errors_do_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        await until(lambda: len(server.said("SUBSCRIBE")) == 5)
        ids = [frame.headers["id"] for frame in server.said("SUBSCRIBE")]
        count = 0
        for subscription in [*ids, "unknown"]:
            for body in ODD_BODIES:
                count += 1
                tail = stomp.message_tail(f"o-{count}", body, ack=f"a-{count}", extra={"receipt-id": "r"})
                await server.sockets[0].send(stomp.message_prefix(subscription, "/x") + tail, text=True)
        await server.sockets[0].send(stomp.encode("RECEIPT", {}).decode())
        await server.sockets[0].send(stomp.encode("CONNECTED", {"heart-beat": "0,0"}).decode())
        await server.tell("m-1")
        await ears.hear(UserPresenceChanged)
        assert (await kitty.retrieve_current_user()).succeeded
        assert len(server.sockets) == 1 and ears.of(CurrentUserOffline) == []
    assert "failed" not in caplog.text


@pytest.mark.parametrize("resource", [None, [], 7, "x", {}, {"id": None}, {"_embedded": []}, {"_relays": {"next": 1}}])
async def test_odd_answers_fail(resource: object) -> None:
    server = Scripted()
    server.resources["/application/v1/users/2.relay"] = resource
    server.resources["/somewhere/contacts"] = resource
    server.resources["/somewhere/count"] = resource
    server.resources["/somewhere/me"] = resource
    async with server.open() as host, kitty_at(host) as (kitty, _):
        (await kitty.start_session("jane")).unwrap()
        for call in (kitty.retrieve_user(2), kitty.list_users_count(), kitty.retrieve_current_user()):
            result = await call
            assert isinstance(result, Failed) and result.error.code == "bad_answer"
        listed = await kitty.list_users()
        assert (listed.succeeded and listed.users == ()) or isinstance(listed, Failed)
        assert kitty.is_online


@pytest.mark.parametrize(
    "said", [b"\0", b"SEND\n\n\0", b"MESSAGE\nx\n\n\0", b"HTTP/1.1 200 OK\r\n\r\n\0", b"A" * 70_000]
)
async def test_what_is_no_stomp_counts_as_a_loss(said: bytes) -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        await server.sockets[0].send(said + b"\n\0", text=True)
        await ears.hear(Resumed)
        assert kitty.is_online


async def test_two_clients_share_a_transport(site: Site) -> None:
    host = "{}:{}".format(*site.address)
    async with Transport() as transport:
        async with ChatKitty("key-default", host=host, is_secure=False, transport=transport) as jane:
            (await jane.start_session("jane")).unwrap()
            async with ChatKitty("key-default", host=host, is_secure=False, transport=transport) as john:
                (await john.start_session("john")).unwrap()
            assert (await jane.retrieve_current_user()).succeeded
        await transport.close()
        async with ChatKitty("key-default", host=host, is_secure=False, transport=transport) as jane:
            assert (await jane.start_session("jane")).succeeded


async def test_what_is_told_right_after_a_start_is_heard(site: Site) -> None:
    async with started(site, "john") as (john, _):
        for number in range(20):
            async with kitty_at(site) as (jane, ears):
                (await jane.start_session("jane")).unwrap()
                name = f"Name {number}"
                (await john.update_current_user(lambda user, name=name: user.replace(display_name=name))).unwrap()  # type: ignore[misc]
                await until(lambda ears=ears: len(ears.all) > 2, seconds=2)  # type: ignore[misc]


async def test_what_is_wrong_with_a_call_is_raised_by_the_call(site: Site) -> None:
    async with started(site, "jane") as (jane, _):
        with pytest.raises(TypeError):
            _ = jane.update_current_user(lambda user: user.replace(properties={"x": object()}))
        assert (await jane.retrieve_current_user()).succeeded


async def test_operations_have_the_time_that_they_were_given() -> None:
    """Uploads too, which the client's own transport bounds."""
    for timeout in (0.2, 90.0):
        async with ChatKitty("key", timeout=timeout) as kitty:
            assert kitty._transport.timeout == timeout
