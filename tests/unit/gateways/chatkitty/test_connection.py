"""Connections: CONNECT and its refusals, subscriptions, receipts, errors, heart-beats, the end."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from dataclasses import replace

import jwt
import pytest
from tests.unit.gateways.chatkitty.conftest import Client, Connect

from offhook.codes import CloseReason, EndReason
from offhook.core import Core
from offhook.domain.accounts import Application, DuplicatePolicy, SessionPolicy, TokenPolicy
from offhook.domain.limits import Rate
from offhook.domain.sessions import SessionState
from offhook.domain.values import PageRequest
from offhook.gateways.background import settle
from offhook.gateways.chatkitty.acceptor import ChatKittyDoor
from offhook.gateways.chatkitty.connection import Connection
from offhook.gateways.chatkitty.gateway import Gateway
from offhook.ports import SessionFilter
from offhook.protocols import stomp
from offhook.protocols.websocket import parse_request
from offhook.server.proxies import TrustedProxies
from offhook.server.websocket import Accepted, Peer
from offhook.services.applications import ApplicationChanges
from offhook.settings import Settings

USER = "/application/v1/user.relay"


async def refused(client: Client, name: str = "jane", **headers: str) -> dict[str, object]:
    answer = await client.connect(name, **headers)
    assert answer.command == "ERROR"
    await client.closing()
    body = json.loads(answer.body)
    assert set(body) >= {"error", "message", "timestamp"}
    assert isinstance(body, dict)
    return body


async def test_a_guest_starts_a_session(connect: Connect, core: Core) -> None:
    client = connect()
    answer = await client.connect("jane:doe@example.test")
    assert answer.command == "CONNECTED"
    assert answer.headers["version"] == "1.2"
    assert answer.headers["heart-beat"] == "10000,10000"
    assert not set(answer.headers["session"]) & set(":\\\n")
    user = await client.relay(USER)
    assert user["name"] == user["displayName"] == "jane:doe@example.test"
    assert user["isGuest"] is True
    assert user["presence"] == {"status": "AVAILABLE", "online": True}
    assert user["displayPictureUrl"] == "http://chat.example.test/v1/picture/jane%3Adoe%40example.test"
    listed = await core.sessions.list(SessionFilter(user_name="jane:doe@example.test"), PageRequest())
    assert [session.client.agent for session in listed.items] == ["test/1"]


@pytest.mark.parametrize("prefix", ["/application/v1/users/me", "/application/v1/user", "/application/user"])
async def test_every_generation_finds_its_relays(connect: Connect, prefix: str) -> None:
    client = connect()
    await client.connect("jane")
    assert (await client.relay(f"{prefix}.relay"))["name"] == "jane"
    for kind in ("write", "read"):
        grant = (await client.relay(f"{prefix}.{kind}_file_access_grant.relay"))["grant"]
        assert isinstance(grant, str)
        assert all(c.isalnum() or c in "._~-" for c in grant)


async def test_all_topics_are_named_and_can_be_subscribed_to(connect: Connect) -> None:
    client = connect()
    await client.connect("jane")
    client.user = await client.relay(USER)
    topics = client.user["_topics"]
    assert isinstance(topics, dict)
    assert set(topics) == {
        *("self", "elements", "features", "styles", "channels", "messages", "readReceipts", "notifications"),
        *("contacts", "participants", "users", "reactions", "threads", "calls"),
    }
    await client.subscribe(*topics)


@pytest.mark.parametrize(
    ("api_key", "name", "headers"),
    [
        ("unknown", "jane", {}),
        ("", "jane", {}),
        ("key-default", "", {}),
        ("key-default", "undefined", {}),
        ("key-default", "x" * 300, {}),
        ("key-default", "jane", {"StompX-Auth-Params": "not base64!"}),
        ("key-default", "jane", {"StompX-Auth-Params": '{"password":"x"}'}),
        ("key-default", "jane", {"StompX-Auth-Params": '{"password":7}'}),
        ("key-default", "jane", {"StompX-Auth-Params": '{"token":"x.y.z"}'}),
        ("key-default", "jane", {"StompX-Auth-Params": "[1]"}),
    ],
)
async def test_what_retrying_cannot_cure_is_access_denied(
    connect: Connect, api_key: str, name: str, headers: dict[str, str]
) -> None:
    client = connect(api_key)
    body = await refused(client, name, **headers)
    assert body["error"] == "AccessDeniedError"
    assert client.socket.closed is CloseReason.ACCESS_DENIED


async def test_passwords_are_checked(connect: Connect, core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="sécret: 1")
    latin = base64.b64encode('{"password":"sécret: 1"}'.encode("latin-1")).decode()
    assert (await connect().connect("jane", **{"StompX-Auth-Params": latin})).command == "CONNECTED"
    assert (await refused(connect(), "jane"))["message"] == "This user has a password, and none was given"
    wrong = await refused(connect(), "jane", **{"StompX-Auth-Params": '{"password":"no"}'})
    unknown = await refused(connect(), "nobody", **{"StompX-Auth-Params": '{"password":"no"}'})
    assert wrong["message"] == unknown["message"] == "The username or the password is wrong"


async def test_guests_may_be_shut_out(connect: Connect, core: Core) -> None:
    await core.applications.create("closed", api_key="key-closed", guests=False)
    assert (await refused(connect("key-closed")))["error"] == "AccessDeniedError"


async def test_disabled_users_and_applications_are_refused(
    connect: Connect, core: Core, application: Application
) -> None:
    await core.users.create(application, "jane")
    await core.users.set_enabled(application, "jane", False)
    assert (await refused(connect()))["message"] == "The user is disabled"
    await core.applications.change("default", ApplicationChanges(enabled=False))
    await asyncio.sleep(0)
    assert (await refused(connect(), "john"))["message"] == "The application is disabled"


async def test_guessing_is_slowed_down(connect: Connect) -> None:
    last = {}
    for _ in range(30):
        last = await refused(connect(), "jane", **{"StompX-Auth-Params": '{"token":"x"}'})
    assert last["error"] == "RateLimitedError"
    assert str(last["coolOffDuration"]).startswith("PT")
    # Others are not affected.
    assert (await connect().connect("john")).command == "CONNECTED"


async def test_foreign_tenants_do_not_meet(connect: Connect, core: Core) -> None:
    await core.applications.create("other", api_key="key-other")
    here = await connect().bootstrap("jane")
    there = await connect("key-other").bootstrap("jane")
    assert here.user["id"] != there.user["id"]
    there.send("SUBSCRIBE", {"id": "x", "destination": f"/application/v1/users/{here.user['id']}.relay"})
    assert (await there.frame("MESSAGE")).headers["subscription-id"] == "x"
    topics = here.user["_topics"]
    assert isinstance(topics, dict)
    there.send("SUBSCRIBE", {"id": "y", "destination": topics["self"], "receipt": "z"})
    assert (await there.body())["error"] == "ResourceNotFoundError"
    await there.frame("RECEIPT")
    token = here.session
    await here.lose()
    resumed = await connect("key-other").connect("jane", **{"StompX-Auth-Session-ID": token})
    assert resumed.command == "CONNECTED" and resumed.headers["recovered"] == "lost"


@pytest.mark.parametrize(
    ("policy", "survivors"),
    [(DuplicatePolicy.END_OLDEST, [2, 3]), (DuplicatePolicy.END_NEWEST, [1, 3]), (DuplicatePolicy.REJECT_NEW, [1, 2])],
)
async def test_duplicate_sessions(connect: Connect, core: Core, policy: DuplicatePolicy, survivors: list[int]) -> None:
    await core.applications.change(
        "default", ApplicationChanges(sessions=SessionPolicy(max_sessions=2, duplicates=policy))
    )
    clients = {1: await connect().bootstrap("jane"), 2: await connect().bootstrap("jane")}
    clients[3] = connect()
    answer = await clients[3].connect("jane")
    if policy is DuplicatePolicy.REJECT_NEW:
        assert json.loads(answer.body)["error"] == "AccessDeniedError"
    for number, client in clients.items():
        if number not in survivors:
            await client.closing()
    live = await core.sessions.list(SessionFilter(live=True), PageRequest())
    assert sorted(session.id for session in live.items) == survivors
    past = await core.sessions.list(SessionFilter(live=False), PageRequest())
    assert {session.end_reason for session in past.items} <= {EndReason.REPLACED}


async def test_a_session_left_behind_by_a_reload_blocks_nobody(connect: Connect, core: Core) -> None:
    policy = SessionPolicy(max_sessions=1, duplicates=DuplicatePolicy.REJECT_NEW)
    await core.applications.change("default", ApplicationChanges(sessions=policy))
    page = await connect().bootstrap("jane")
    await page.lose()
    assert (await connect().connect("jane")).command == "CONNECTED"


async def test_receipts_come_for_every_frame_that_asks(connect: Connect) -> None:
    client = await connect().bootstrap("jane")
    frames: list[tuple[str, dict[str, str]]] = [
        ("SUBSCRIBE", {"id": "a", "destination": "undefined"}),
        ("SUBSCRIBE", {"id": "b", "destination": "/user/queue/errors"}),
        ("UNSUBSCRIBE", {"id": "t-users"}),
        ("UNSUBSCRIBE", {"id": "never"}),
        ("SEND", {"destination": "undefined"}),
        ("ACK", {"id": "undefined"}),
        ("NACK", {"id": "a-1"}),
        ("BEGIN", {"transaction": "t"}),
        ("ABORT", {"transaction": "t"}),
    ]
    for number, (command, headers) in enumerate(frames):
        client.send(command, {**headers, "receipt": f"{number}"})
        assert (await client.frame("RECEIPT")).headers["receipt-id"] == f"{number}"
    client.send("DISCONNECT", {"receipt": "close-0"})
    assert (await client.frame("RECEIPT")).headers["receipt-id"] == "close-0"


async def test_disconnect_ends_the_session(connect: Connect, core: Core) -> None:
    client = await connect().bootstrap("jane")
    client.send("DISCONNECT", {"receipt": "close-0"})
    await client.frame("RECEIPT")
    (session,) = (await core.sessions.list(SessionFilter(), PageRequest())).items
    assert session.state is SessionState.ENDED and session.end_reason is EndReason.CLIENT
    assert not (await core.users.get(await core.applications.get("default"), 1)).online
    client.send("SUBSCRIBE", {"id": "x", "destination": USER})
    assert client.nothing_more()


@pytest.mark.parametrize(
    ("command", "headers"),
    [
        ("SUBSCRIBE", {"destination": "/topic/x"}),
        ("SUBSCRIBE", {"id": "x"}),
        ("UNSUBSCRIBE", {}),
        ("SEND", {}),
        ("CONNECT", {"accept-version": "1.2"}),
        ("MESSAGE", {}),
        ("RECEIPT", {}),
        ("COMMIT", {"transaction": "never"}),
        ("ABORT", {}),
        ("BEGIN", {}),
        ("SEND", {"destination": "/application/v1/user.update", "transaction": "never"}),
        ("ACK", {"id": "a-1", "transaction": "never"}),
    ],
)
async def test_frames_that_make_no_sense_end_the_connection_only(
    connect: Connect, core: Core, command: str, headers: dict[str, str]
) -> None:
    witness = await connect().bootstrap("john")
    client = await connect().bootstrap("jane")
    client.send(command, {**headers, "receipt": "r"} if command not in ("CONNECT", "MESSAGE", "RECEIPT") else headers)
    witness.skip()
    error = await client.frame("ERROR")
    if command in ("SUBSCRIBE", "SEND"):
        assert error.headers["receipt-id"] == "r"
    assert await client.closing() is CloseReason.PROTOCOL_ERROR
    await asyncio.sleep(0)
    assert (await witness.relay(USER))["name"] == "john"
    assert witness.socket.closed is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"NONSENSE\n\n\0", CloseReason.PROTOCOL_ERROR),
        (b"SUBSCRIBE\nno-colon\n\n\0", CloseReason.PROTOCOL_ERROR),
        (b"SUBSCRIBE\nid:\\x\n\n\0", CloseReason.PROTOCOL_ERROR),
        (b"SUBSCRIBE\nid:\xff\n\n\0", CloseReason.PROTOCOL_ERROR),
        (b"SEND\ncontent-length:x\n\n\0", CloseReason.PROTOCOL_ERROR),
        (b"SUBSCRIBE\nid:1\n\nbody\0", CloseReason.PROTOCOL_ERROR),
        (b"SEND\ndestination:/x\n\n" + b"x" * 10_000 + b"\0", CloseReason.TOO_LARGE),
        (b"SUBSCRIBE\n" + b"a:b\n" * 100 + b"\n\0", CloseReason.TOO_LARGE),
        (b"SUBSCRIBE\nid:" + b"x" * 9000 + b"\n\n\0", CloseReason.TOO_LARGE),
    ],
)
async def test_bytes_that_are_no_stomp_end_the_connection_only(
    connect: Connect, core: Core, data: bytes, reason: CloseReason
) -> None:
    client = await connect().bootstrap("jane")
    client.connection.received(data)
    assert json.loads((await client.frame("ERROR")).body)["error"] == "ClientError"
    assert await client.closing() is reason
    assert core.metrics.protocol_errors.value("malformed") + core.metrics.protocol_errors.value("too_large") == 1


async def test_the_first_frame_must_be_connect(connect: Connect) -> None:
    client = connect()
    client.send("SUBSCRIBE", {"id": "x", "destination": USER})
    await client.frame("ERROR")
    assert await client.closing() is CloseReason.PROTOCOL_ERROR


@pytest.mark.parametrize("versions", ["1.0,1.1", "2.0", ""])
async def test_only_one_version_is_spoken(connect: Connect, versions: str) -> None:
    client = connect()
    client.send("CONNECT", {"StompX-User": "jane", "accept-version": versions})
    assert (await client.frame("ERROR")).headers["version"] == "1.2"


async def test_stomp_is_connect_by_another_name(connect: Connect) -> None:
    client = connect()
    client.send("STOMP", {"StompX-User": "jane", "accept-version": "1.1,1.2"})
    await client.frame("CONNECTED")


async def test_a_client_that_says_nothing_is_sent_away(connect: Connect) -> None:
    client = connect(connect_timeout=0.05)
    await client.frame("ERROR")
    assert await client.closing() is CloseReason.CONNECT_TIMEOUT


async def test_too_many_frames_close_the_connection(connect: Connect) -> None:
    client = await connect(frames=Rate(1, 20)).bootstrap("jane")
    for _ in range(30):
        client.send("ACK", {"id": "a-1"})
    assert json.loads((await client.frame("ERROR")).body)["error"] == "RateLimitedError"
    assert await client.closing() is CloseReason.RATE_LIMITED


async def test_too_many_requests_are_refused_one_by_one(connect: Connect) -> None:
    client = await connect(requests=Rate(1, 3)).bootstrap("jane")
    bodies = []
    for number in range(4):
        client.send("SUBSCRIBE", {"id": f"{number}", "destination": USER})
        frame = await client.frame("MESSAGE")
        bodies.append(json.loads(frame.body))
    assert bodies[-1]["error"] == "RateLimitedError"
    assert bodies[-1]["coolOffDuration"].startswith("PT")
    assert client.socket.closed is None


async def test_too_many_subscriptions_are_refused_one_by_one(connect: Connect) -> None:
    client = await connect().bootstrap("jane")
    topics = client.user["_topics"]
    assert isinstance(topics, dict)
    for number in range(40):
        client.send("SUBSCRIBE", {"id": f"n{number}", "destination": topics["self"]})
    frame = await client.frame("MESSAGE")
    assert json.loads(frame.body)["message"] == "Too many subscriptions"
    assert frame.headers["subscription-id"].startswith("n")
    assert client.socket.closed is None


async def test_waiting_frames_stop_the_reading(connect: Connect) -> None:
    client = await connect(max_waiting=100).bootstrap("jane")
    for number in range(10):
        client.send("SUBSCRIBE", {"id": f"{number}", "destination": "/application/v1/user/contacts.count.relay"})
    assert client.socket.paused
    order = [(await client.frame("MESSAGE")).headers["subscription"] for _ in range(10)]
    assert order == [f"{number}" for number in range(10)]
    await asyncio.sleep(0)
    assert not client.socket.paused


async def test_duplicate_subscriptions_get_each_event_once(connect: Connect) -> None:
    client = await connect().bootstrap("jane")
    topics = client.user["_topics"]
    assert isinstance(topics, dict)
    client.send("SUBSCRIBE", {"id": "twin", "destination": topics["contacts"], "ack": "client-individual"})
    client.send("SUBSCRIBE", {"id": "errors-2", "destination": "/user/queue/v1/errors"})
    await connect().bootstrap("john")
    assert (await client.frame("MESSAGE")).headers["subscription"] == "t-contacts"
    assert client.nothing_more()
    client.send("UNSUBSCRIBE", {"id": "t-contacts"})
    await connect().bootstrap("jack")
    assert (await client.frame("MESSAGE")).headers["subscription"] == "twin"
    client.send("SUBSCRIBE", {"id": "x", "destination": "/application/v1/nothing.relay"})
    assert (await client.frame("MESSAGE")).headers["subscription"] == "errors"
    assert client.nothing_more()


async def test_transactions_hold_frames_until_they_are_committed(connect: Connect) -> None:
    client = await connect().bootstrap("jane")
    update = {"destination": client.action("update"), "transaction": "t"}
    client.send("BEGIN", {"transaction": "t"})
    client.send("SEND", {**update, "receipt": "one"}, {"displayName": "One"})
    client.send("SEND", {**update, "receipt": "two"}, {"displayName": "Two"})
    await client.relay(USER)
    assert client.nothing_more()
    client.send("COMMIT", {"transaction": "t", "receipt": "done"})
    client.send("UNSUBSCRIBE", {"id": "never", "receipt": "after"})
    receipts = [frame.headers["receipt-id"] for _ in range(6) if (frame := await client.frame()).command == "RECEIPT"]
    assert receipts == ["one", "two", "done", "after"]
    client.send("BEGIN", {"transaction": "u"})
    client.send("SEND", {"destination": client.action("update"), "transaction": "u"}, {"displayName": "Three"})
    client.send("ABORT", {"transaction": "u"})
    assert (await client.relay(USER))["displayName"] == "Two"


async def test_heart_beats_fill_the_silence(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.gateways.chatkitty.connection.BEAT_AFTER", 0.05)
    monkeypatch.setattr("offhook.gateways.chatkitty.connection.RELEASE_AFTER", 0.05)
    client = await connect().bootstrap("jane")
    async with asyncio.timeout(5):
        while client.socket.beats < 3:
            await asyncio.sleep(0.01)


async def test_a_client_that_falls_silent_is_sent_away(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offhook.gateways.chatkitty.connection.BEAT_AFTER", 0.05)
    monkeypatch.setattr("offhook.gateways.chatkitty.connection.RELEASE_AFTER", 0.05)
    monkeypatch.setattr("offhook.gateways.chatkitty.connection.MIN_TOLERANCE", 0.1)
    client = connect()
    await client.connect("jane", **{"heart-beat": "10,10000"})
    client.connection._tolerance = 0.1
    assert await client.closing() is CloseReason.HEARTBEAT_TIMEOUT


async def test_the_tolerance_is_twice_what_was_promised_and_never_small(connect: Connect) -> None:
    for promised, tolerance in (("60000,10000", 132.0), ("5000,5000", 75.0), ("0,0", 0.0)):
        client = connect()
        await client.connect("jane", **{"heart-beat": promised})
        assert client.connection._tolerance == pytest.approx(tolerance)


async def test_bad_heart_beats_are_refused(connect: Connect) -> None:
    client = connect()
    await client.connect("jane", **{"heart-beat": "soon"})
    assert await client.closing() is CloseReason.PROTOCOL_ERROR


async def test_a_client_gone_before_connected_leaves_nothing_behind(connect: Connect, core: Core) -> None:
    client = connect()
    client.connection.received(stomp.encode("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"}))
    client.connection.closed(CloseReason.PEER_LOST, "")
    async with asyncio.timeout(5):
        while not (sessions := (await core.sessions.list(SessionFilter(live=False), PageRequest())).items):
            await asyncio.sleep(0.005)
    assert sessions[0].end_reason is EndReason.CLIENT
    assert len(core.hub) == 0


async def test_a_token_takes_the_name_back_from_a_guest(connect: Connect, core: Core) -> None:
    secret = "s" * 32
    await core.applications.change(
        "default", ApplicationChanges(tokens=TokenPolicy(algorithms=("HS256",), secret=secret))
    )
    mallory = await connect().bootstrap("alice")
    token = jwt.encode({"sub": "alice", "exp": time.time() + 60}, secret, "HS256")
    alice = connect()
    assert (await alice.connect("alice", **{"StompX-Auth-Params": json.dumps({"token": token})})).command == "CONNECTED"
    mallory.skip()
    assert await mallory.closing() is CloseReason.SESSION_ENDED
    assert (await refused(connect(), "alice"))["error"] == "AccessDeniedError"


async def disabled_elsewhere(core: Core) -> Application:
    """Another node disables the application, which this one has not heard yet."""
    application = await core.applications.by_api_key("key-default")
    await core.store.transact(lambda tx: tx.applications.save(replace(application, enabled=False)))
    return application


async def test_an_application_that_is_disabled_ends_the_starts_under_way(connect: Connect, core: Core) -> None:
    client = connect()
    application = await disabled_elsewhere(core)
    client.send("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"})
    core.sessions.application_closed(application.id, True)
    assert (await client.frame()).command == "ERROR"
    await settle()
    assert not (await core.sessions.list(SessionFilter(live=True), PageRequest())).items


async def test_that_an_application_is_disabled_is_believed_only_if_it_is_so(connect: Connect, core: Core) -> None:
    """The older of two words may be heard last."""
    jane = await connect().bootstrap("jane")
    application = await core.applications.by_api_key("key-default")
    core.sessions.application_closed(application.id, True)
    assert (await connect().connect("john")).command == "CONNECTED"
    core.sessions.application_closed(application.id, True)
    await core.reconciler.reconcile()
    assert jane.socket.closed is None and len(core.hub) == 2


async def test_nothing_after_a_fatal_frame_is_done(connect: Connect) -> None:
    client = await connect().bootstrap("jane")
    update = stomp.encode("SEND", {"destination": client.action("update")}, b'{"displayName":"Changed"}')
    client.connection.received(stomp.encode("SUBSCRIBE", {}) + update)
    await client.frame("ERROR")
    await client.closing()
    await settle()
    assert (await (await connect().bootstrap("jane")).relay(USER))["displayName"] == "jane"


async def test_waiting_bytes_are_bounded_whatever_their_frames(connect: Connect) -> None:
    client = connect(max_waiting=1000)
    client.send("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"})
    client.send("SEND", {"destination": "/x"}, b"x" * 2000)
    assert client.socket.paused
    await client.frame("CONNECTED")
    await settle()
    assert not client.socket.paused


async def test_a_host_that_is_no_host_is_not_repeated(gateway: Gateway) -> None:
    door = ChatKittyDoor(gateway, Settings(), TrustedProxies())
    request = parse_request(
        b"GET /rtm/websocket HTTP/1.1\r\nHost: " + b"x" * 9000 + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    accepted = door.accept(request, Peer("127.0.0.1", 1, False))
    assert isinstance(accepted, Accepted) and isinstance(accepted.handler, Connection)
    assert accepted.handler._base_url == "http://127.0.0.1:8686"


async def test_what_happens_is_counted(connect: Connect, core: Core) -> None:
    metrics = core.metrics
    client = await connect().bootstrap("jane")
    await connect().bootstrap("john")
    # CONNECT, the user, the error queue and four topics each; CONNECTED, the user and four receipts each.
    assert metrics.frames_in == 14 and metrics.frames_out == 12
    # John is jane's contact: she was told of him, he is not told of himself.
    assert metrics.deliveries >= 1
    assert metrics.session_starts.value("started", "guest") == 2
    client.skip()
    await client.relay("/application/v1/user/contacts.count.relay")
    client.send("SUBSCRIBE", {"id": "x", "destination": "/application/v1/nothing.relay"})
    await client.frame("MESSAGE")
    client.send("SEND", {"destination": client.action("update"), "receipt": "r"}, {"displayName": 7})
    await client.frame("MESSAGE")
    await client.frame("RECEIPT")
    await settle()
    assert metrics.requests.value("relay", "ok") == 1
    assert metrics.requests.value("relay", "not_found") == 1
    assert metrics.requests.value("action", "invalid_input") == 1
    assert metrics.request_time.count("relay") == 2
    client.connection.closed(CloseReason.SLOW_CONSUMER, "")
    await settle()
    assert metrics.closes.value("slow_consumer") == 1 and metrics.slow_consumers == 1
    assert metrics.sessions_active == 1


async def test_many_starts_at_once_are_no_guessing(connect: Connect, core: Core, application: Application) -> None:
    await core.users.create(application, "jane", password="secret")
    clients = [connect() for _ in range(50)]
    for client in clients:
        client.send(
            "CONNECT",
            {"StompX-User": "jane", "accept-version": "1.2", "StompX-Auth-Params": '{"password":"secret"}'},
        )
    assert {(await client.frame()).command for client in clients} == {"CONNECTED"}


async def test_who_is_replaced_is_told_although_the_newcomer_fails(connect: Connect, core: Core) -> None:
    policy = SessionPolicy(max_sessions=1, duplicates=DuplicatePolicy.END_OLDEST)
    await core.applications.change("default", ApplicationChanges(sessions=policy))
    old = await connect().bootstrap("jane")
    application = await disabled_elsewhere(core)
    new = connect()
    new.send("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"})
    core.sessions.application_closed(application.id, True)
    assert (await new.frame()).command == "ERROR"
    await old.frame("ERROR")
    assert await old.closing() is CloseReason.SESSION_ENDED
    assert len(core.hub) == 0
