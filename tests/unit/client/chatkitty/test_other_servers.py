"""Servers that know nothing of Offhook's additions, or behave oddly: scripted, behind a real socket (2.3 to 2.7)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from tests.served import until
from tests.unit.client.chatkitty.people import kitty_at, user_named
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from offhook.chatkitty import (
    ChatKittyBadAnswer,
    ChatKittyError,
    CurrentUserChanged,
    CurrentUserOffline,
    Failed,
    InternalServerError,
    NotOfferedError,
    Resumed,
    SessionEnded,
    SessionEndedError,
    UserPresenceChanged,
)
from offhook.client.chatkitty.deadlines import Deadlines
from offhook.protocols import stomp

ME = {
    "id": 1,
    "name": "jane",
    "displayName": "Jane",
    "_relays": {"self": "/somewhere/me", "contacts": "/somewhere/contacts", "contactsCount": "/somewhere/count"},
    "_topics": {"self": "/somewhere/self", "contacts": "/somewhere/others", "users": "/somewhere/users"},
    "_actions": {},
    "_streams": {},
}
JOHN = {"id": 2, "name": "john", "presence": {"online": True, "status": "AVAILABLE"}}


class Scripted:
    """A minimal server. What it does at each connection can be replaced."""

    def __init__(self) -> None:
        self.connected: list[dict[str, str]] = [{"version": "1.2", "session": "s", "heart-beat": "10000,10000"}]
        """The CONNECTED of each connection; the last one counts for all that follow."""
        self.errors: list[dict[str, str]] = []
        """What refuses the next connections."""
        self.mute_relays = 0
        """So many connections break when the user is asked for."""
        self.resources: dict[str, object] = {
            "/application/v1/user.relay": ME,
            "/somewhere/me": ME,
            "/somewhere/contacts": {"_embedded": {"users": [JOHN]}, "_relays": {}},
            "/somewhere/count": {"count": 1},
        }
        self.failures: dict[str, list[dict[str, str]]] = {}
        """Errors that relays answer first."""
        self.overtaking: dict[str, object] = {}
        """Current users that are told on the topic ``self`` just before a relay is answered."""
        self.frames: list[list[stomp.Frame]] = []
        self.beats = 0
        self.sockets: list[ServerConnection] = []
        self._server: Server | None = None

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """Serves on a port of its own. Gives host and port."""
        async with serve(
            self._talk, "127.0.0.1", 0, subprotocols=[Subprotocol("v12.stomp")], compression=None, ping_interval=None
        ) as server:
            yield f"127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"

    def said(self, command: str, connection: int = -1) -> list[stomp.Frame]:
        """What the client said on a connection."""
        return [frame for frame in self.frames[connection] if frame.command == command]

    async def tell(self, name: str, *, online: bool = True, copies: int = 1) -> None:
        """Sends an event, maybe more than once."""
        john = {**JOHN, "presence": {"online": online}}
        message = self._event("/somewhere/others", name, "contact.presence.changed", john)
        await self.sockets[-1].send((message * copies).decode())

    def _event(self, destination: str, name: str, kind: str, resource: object) -> bytes:
        subscribed = next(f for f in self.said("SUBSCRIBE") if f.headers["destination"] == destination)
        body = json.dumps({"type": kind, "resource": resource}).encode()
        return stomp.message_prefix(subscribed.headers["id"], destination) + stomp.message_tail(
            name, body, ack=f"ack-{name}"
        )

    async def _talk(self, socket: ServerConnection) -> None:
        self.sockets.append(socket)
        self.frames.append([])
        decoder = stomp.Decoder()
        with contextlib.suppress(ConnectionClosed):
            async for message in socket:
                data = message.encode() if isinstance(message, str) else message
                self.beats += data == stomp.HEART_BEAT
                for frame in decoder.feed(data):
                    self.frames[-1].append(frame)
                    await self._answer(socket, frame)

    async def _answer(self, socket: ServerConnection, frame: stomp.Frame) -> None:
        headers = frame.headers
        if frame.command == "CONNECT":
            if self.errors:
                await socket.send(stomp.encode_error("no", json.dumps(self.errors.pop(0)).encode()).decode())
                return
            answer = self.connected.pop(0) if len(self.connected) > 1 else self.connected[0]
            await socket.send(stomp.encode("CONNECTED", answer).decode())
        elif frame.command == "SUBSCRIBE" and headers["destination"] in self.resources:
            destination = headers["destination"]
            if self.mute_relays and destination == "/application/v1/user.relay":
                self.mute_relays -= 1
                await socket.close(1011)
            elif self.failures.get(destination):
                body = json.dumps(self.failures[destination].pop(0)).encode()
                queue = next(f for f in self.said("SUBSCRIBE") if f.headers["destination"] == "/user/queue/v1/errors")
                tail = stomp.message_tail("e", body, extra={"subscription-id": headers["id"]})
                await socket.send((stomp.message_prefix(queue.headers["id"], "/e") + tail).decode())
            else:
                if destination in self.overtaking:
                    event = self._event("/somewhere/self", "s-1", "user.self.updated", self.overtaking[destination])
                    await socket.send(event.decode())
                body = json.dumps({"resource": self.resources[destination]}).encode()
                message = stomp.message_prefix(headers["id"], destination) + stomp.message_tail("r", body)
                await socket.send(message.decode())
        elif "receipt" in headers:
            await socket.send(stomp.encode_receipt(headers["receipt"]).decode())


async def test_a_server_that_says_nothing_of_recovery_is_not_believed_to_know() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane", {"password": "x"})).unwrap()
        await until(lambda: len(server.said("SUBSCRIBE")) == 5)
        await server.tell("m-1")
        await ears.hear(UserPresenceChanged)
        await server.sockets[0].close(1012)
        assert await ears.hear(Resumed) == [Resumed(False)]
        first, second = server.frames
        assert second[0].headers["StompX-Auth-Session-ID"] == "s"
        assert second[0].headers["StompX-Auth-Params"] == first[0].headers["StompX-Auth-Params"]
        again = {frame.headers["destination"]: frame.headers for frame in server.said("SUBSCRIBE", 1)}
        before = {frame.headers["destination"]: frame.headers for frame in server.said("SUBSCRIBE", 0)}
        for destination in ("/user/queue/v1/errors", "/somewhere/self", "/somewhere/others", "/somewhere/users"):
            assert again[destination] == before[destination]
        # Its names of messages may begin anew.
        await server.tell("m-1")
        await ears.hear(UserPresenceChanged, 2)
        assert kitty.is_online
        await kitty.end_session()
        assert [frame.command for frame in server.frames[-1][-4:]] == [*["UNSUBSCRIBE"] * 3, "DISCONNECT"]


async def test_a_gap_is_told_although_the_next_attempt_is_complete() -> None:
    server = Scripted()
    plain = server.connected[0]
    server.connected += [{**plain, "recovered": "lost"}, {**plain, "recovered": "complete"}]
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        server.mute_relays = 1
        await server.sockets[0].close(1011)
        assert await ears.hear(Resumed) == [Resumed(False)]
        assert len(server.sockets) == 3
        await server.sockets[2].close(1011)
        assert await ears.hear(Resumed, 2) == [Resumed(False), Resumed(True)]


async def test_events_are_acknowledged_and_told_once() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        await until(lambda: len(server.said("SUBSCRIBE")) == 5)
        await server.tell("m-1", copies=3)
        await server.tell("m-2", online=False)
        await until(lambda: len(server.said("ACK")) == 4)
        assert [event.user.presence.online for event in ears.of(UserPresenceChanged)] == [True, False]
        assert [frame.headers["id"] for frame in server.said("ACK")] == ["ack-m-1"] * 3 + ["ack-m-2"]


async def test_silence_counts_as_a_loss_and_heart_beats_are_sent() -> None:
    server = Scripted()
    plain = server.connected[0]
    server.connected = [{**plain, "heart-beat": "50,50"}, plain]
    async with server.open() as host, kitty_at(host, heart_beat=(20, 50)) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        await ears.hear(CurrentUserOffline)
        assert server.beats >= 1
        await ears.hear(Resumed)


async def test_starts_that_fail_leave_nothing_going_on() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host, timeout=0.5) as (kitty, ears):
        for body, kind in (
            ({"error": "InternalServerError", "message": "Oh"}, InternalServerError),
            ({"error": "SomethingElseError", "message": "Oh"}, ChatKittyError),
            ({}, ChatKittyError),
        ):
            server.errors = [body]
            result = await kitty.start_session("jane")
            assert isinstance(result, Failed) and type(result.error) is kind
        server.resources["/application/v1/user.relay"] = {"id": "no number"}
        result = await kitty.start_session("jane")
        assert isinstance(result, Failed) and isinstance(result.error, ChatKittyBadAnswer)
        assert len(server.said("DISCONNECT")) == 1
        del server.resources["/application/v1/user.relay"]
        result = await kitty.start_session("jane")
        assert isinstance(result, Failed) and result.error.code == "timed_out"
        assert ears.all == [] and len(server.sockets) == 5
        await asyncio.gather(*(socket.wait_closed() for socket in server.sockets))


async def test_a_failing_server_is_asked_again_and_again() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        server.errors = [{"error": "ServiceUnavailableError", "message": "Soon"}] * 3
        error = {"error": "RateLimitedError", "message": "Too fast", "coolOffDuration": "PT0.05S"}
        await server.sockets[0].send(stomp.encode_error("no", json.dumps(error).encode()).decode())
        await ears.hear(Resumed)
        assert len(server.sockets) == 5 and ears.of(SessionEnded) == []
        await kitty.end_session()
        assert len(server.said("DISCONNECT")) == 1


async def test_relays_wait_as_long_as_they_are_told() -> None:
    server = Scripted()
    slow = {"error": "RateLimitedError", "message": "Too fast", "coolOffDuration": "PT0.1S"}
    server.failures["/somewhere/count"] = [slow, slow]
    async with server.open() as host, kitty_at(host, timeout=2) as (kitty, _):
        (await kitty.start_session("jane")).unwrap()
        began = asyncio.get_running_loop().time()
        assert (await kitty.list_users_count()).unwrap().count == 1
        assert asyncio.get_running_loop().time() - began >= 0.2
        for duration in ("PT1H", "PT60S"):
            server.failures["/somewhere/count"] = [{**slow, "coolOffDuration": duration}]
            result = await kitty.list_users_count()
            assert isinstance(result, Failed) and result.error.error == "RateLimitedError"


async def test_what_is_not_offered_fails() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host, timeout=0.2) as (kitty, _):
        (await kitty.start_session("jane")).unwrap()
        for call in (kitty.list_user_blocked_records(), kitty.update_current_user(lambda user: user)):
            result = await call
            assert isinstance(result, Failed) and isinstance(result.error, NotOfferedError)
        await kitty.block_user(await user_named(kitty, "john"))
        assert server.said("SEND")[0].headers["destination"] == "/application/v1/users/2.block"
        server.resources["/somewhere/contacts"] = {"_embedded": {"people": []}, "_relays": {}}
        listed = await kitty.list_users()
        assert isinstance(listed, Failed) and isinstance(listed.error, ChatKittyBadAnswer)


async def test_answers_tell_of_the_user_unless_an_event_told_more() -> None:
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        server.resources["/somewhere/me"] = {**ME, "displayName": "Two"}
        assert (await kitty.retrieve_current_user()).unwrap().user == kitty.current_user
        server.overtaking["/somewhere/me"] = {**ME, "displayName": "Four"}
        server.resources["/somewhere/me"] = {**ME, "displayName": "Three"}
        assert (await kitty.retrieve_current_user()).unwrap().user.display_name == "Three"
        names = [event.user.display_name for event in ears.of(CurrentUserChanged) if event.user is not None]
        assert names == ["Jane", "Two", "Four"]


async def test_waits_that_would_begin_after_the_end_do_not() -> None:
    deadlines = Deadlines()
    async with deadlines.within(5):
        deadlines.end("It is over")
    with pytest.raises(SessionEndedError, match="over"):
        async with deadlines.within(5):
            raise AssertionError("it began")
    with pytest.raises(SessionEndedError, match="over"):
        deadlines.check()


@pytest.mark.parametrize("answering", [True, False])
async def test_ends_are_bounded(answering: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.client.chatkitty.session.GOODBYE", 0.1)
    server = Scripted()
    async with server.open() as host, kitty_at(host) as (kitty, ears):
        (await kitty.start_session("jane")).unwrap()
        if not answering:
            server.sockets[0].transport.pause_reading()
        async with asyncio.timeout(2):
            await kitty.end_session()
        assert ears.kinds[-2:] == ["CurrentUserOffline", "CurrentUserChanged"] and kitty.session is None
        if not answering:
            server.sockets[0].transport.resume_reading()
