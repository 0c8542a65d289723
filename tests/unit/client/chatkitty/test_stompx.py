"""The sans-I/O part, with the frames of a scripted server (ChatKitty protocol notes, 2 and 3)."""

from __future__ import annotations

import base64
import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from offhook.client.chatkitty.errors import (
    ChatKittyBadAnswer,
    ChatKittyConnectionLost,
    ChatKittyError,
    InvalidRequestError,
    RateLimitedError,
    ResourceNotFoundError,
)
from offhook.client.chatkitty.stompx import (
    ERROR_QUEUE,
    REMEMBERED,
    Acknowledge,
    Answered,
    Broken,
    Confirmed,
    Heard,
    Opened,
    Outcome,
    Refused,
    StompX,
)
from offhook.client.errors import ConnectionLost
from offhook.protocols import stomp
from offhook.services.hub import MAX_REPLAY

CONNECTED = {"version": "1.2", "session": "s-1", "heart-beat": "8000,20000"}


class Server:
    """Writes what a server would, to a client that has subscribed to two topics."""

    def __init__(self) -> None:
        self.client = StompX("test/1", (10_000, 10_000))
        self.sent = [self.client.connect("jane", None)]
        self.client.feed(stomp.encode("CONNECTED", CONNECTED))
        self.sent += [self.client.subscribe(key, f"/topic/v1.users.1.{key}") for key in ("self", "users")]
        frames = [self.frame(data) for data in self.client.subscriptions()]
        self.ids = {frame.headers["destination"]: frame.headers["id"] for frame in frames}

    @staticmethod
    def frame(data: bytes) -> stomp.Frame:
        (frame,) = stomp.Decoder().feed(data)
        return frame

    def event(self, key: str, kind: str, number: int, receipt: str | None = None) -> bytes:
        destination = f"/topic/v1.users.1.{key}"
        extra = {} if receipt is None else {"receipt-id": receipt}
        body = json.dumps({"type": kind, "version": "v1", "resource": {"number": number}}).encode()
        prefix = stomp.message_prefix(self.ids[destination], destination)
        return prefix + stomp.message_tail(f"u-{number}", body, ack=f"u-{number}", extra=extra)

    def reply(self, request: str, resource: object) -> bytes:
        return stomp.message_prefix(request, "/x") + stomp.message_tail(
            "r", json.dumps({"resource": resource}).encode()
        )

    def error(self, **headers: str) -> bytes:
        body = b'{"error":"ClientError","message":"Wrong","field":"name","timestamp":"2024-05-01T12:00:00Z"}'
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return stomp.message_prefix(self.ids[ERROR_QUEUE], ERROR_QUEUE) + stomp.message_tail("e", body, extra=names)


def answers(outcomes: list[Outcome]) -> list[Answered]:
    return [outcome for outcome in outcomes if isinstance(outcome, Answered)]


def test_connect_carries_what_servers_read() -> None:
    client = StompX("test/1", (10_000, 5_000))
    frame = Server.frame(client.connect("jane: ä\\n", {"password": "ä€", "n": 1}))
    params = frame.headers.pop("StompX-Auth-Params")
    assert json.loads(base64.b64decode(params).decode("ascii")) == {"password": "ä€", "n": 1}
    assert frame.headers == {
        "StompX-User": "jane: ä\\n",
        "StompX-User-Agent": "test/1",
        "accept-version": "1.2",
        "heart-beat": "10000,5000",
    }
    with pytest.raises(ValueError, match="unescaped"):
        client.connect("jane\nreceipt:1", None)


def test_connected_tells_the_session_and_its_recovery() -> None:
    client = StompX("test/1", (10_000, 10_000))
    client.connect("jane", None)
    (opened,) = client.feed(stomp.encode("CONNECTED", CONNECTED))
    assert opened == Opened("s-1", stomp.HeartBeat(10_000, 20_000), False)
    assert Server.frame(client.connect("jane", None)).headers["StompX-Auth-Session-ID"] == "s-1"
    (opened,) = client.feed(stomp.encode("CONNECTED", {"version": "1.2", "recovered": "complete"}))
    assert opened == Opened(None, stomp.HeartBeat(0, 0), True)
    assert "StompX-Auth-Session-ID" not in Server.frame(client.connect("jane", None)).headers


def test_subscriptions_keep_their_names() -> None:
    server = Server()
    again = server.client.subscriptions()
    assert again[1:] == server.sent[1:] and again == server.client.subscriptions()
    frames = [server.frame(data) for data in again]
    assert [frame.headers["destination"].rpartition(".")[2] for frame in frames[1:]] == ["self", "users"]
    assert "receipt" not in frames[0].headers and "ack" not in frames[0].headers
    assert len({frame.headers["receipt"] for frame in frames[1:]}) == 2
    goodbye, receipt = server.client.goodbye()
    assert [server.frame(data).command for data in goodbye] == ["UNSUBSCRIBE", "UNSUBSCRIBE", "DISCONNECT"]
    assert server.client.feed(stomp.encode_receipt(receipt)) == [Confirmed(receipt)]


def test_a_relay_is_answered_once() -> None:
    server = Server()
    name, data = server.client.relay("/application/x", {"name": "a:b\n"})
    assert server.frame(data).headers == {"name": "a:b\n", "id": name, "destination": "/application/x"}
    assert server.client.repeat() == [data]
    assert server.client.feed(server.reply(name, [1])) == [Answered(name, [1])]
    assert server.client.feed(server.reply(name, [2])) == []
    assert server.client.feed(server.error(subscription_id=name)) == []
    assert server.client.repeat() == []


def test_an_action_is_answered_by_its_event_whatever_the_receipt() -> None:
    for receipt_first in (True, False):
        server = Server()
        name, _ = server.client.action("/application/x", {"a": 1})
        event, receipt = server.event("users", "user.user.blocked", 1, name), stomp.encode_receipt(name)
        outcomes = server.client.feed(receipt + event if receipt_first else event + receipt)
        assert answers(outcomes) == [Answered(name, {"number": 1})]
        assert Confirmed(name) in outcomes
        assert Heard("users", "user.user.blocked", {"number": 1}) in outcomes


def test_an_action_may_wait_for_certain_events() -> None:
    server = Server()
    name, _ = server.client.action("/application/x", {}, frozenset({"user.self.deleted"}))
    assert answers(server.client.feed(server.event("self", "user.self.updated", 1, name))) == []
    assert answers(server.client.feed(server.event("self", "user.self.deleted", 2, name))) != []


@pytest.mark.parametrize("header", ["receipt_id", "subscription_id"])
def test_errors_find_their_request(header: str) -> None:
    server = Server()
    relay, _ = server.client.relay("/application/x")
    other, _ = server.client.relay("/application/x")
    action, _ = server.client.action("/application/x", {})
    name = action if header == "receipt_id" else relay
    ((request, error),) = [(a.request, a.answer) for a in answers(server.client.feed(server.error(**{header: name})))]
    assert request == name and isinstance(error, InvalidRequestError)
    assert (error.error, error.message, error.field) == ("ClientError", "Wrong", "name")
    assert error.timestamp is not None and error.timestamp.year == 2024
    assert answers(server.client.feed(server.error(**{header: name}))) == []
    assert server.client.unanswered == 2 and other


def test_an_error_that_names_nobody_fails_all_actions() -> None:
    server = Server()
    relay, _ = server.client.relay("/application/x")
    actions = [server.client.action("/application/x", {})[0] for _ in range(3)]
    assert [answer.request for answer in answers(server.client.feed(server.error()))] == actions
    assert answers(server.client.feed(server.reply(relay, 1))) == [Answered(relay, 1)]


def test_events_are_told_once_and_acknowledged_each_time() -> None:
    server = Server()
    event = server.event("self", "user.self.updated", 7)
    heard, ack = server.client.feed(event)
    assert heard == Heard("self", "user.self.updated", {"number": 7}) and isinstance(ack, Acknowledge)
    assert server.frame(ack.frame).headers == {"id": "u-7", "subscription": server.ids["/topic/v1.users.1.self"]}
    assert server.client.feed(event) == [ack]
    # The same name on another topic is another message.
    assert len(server.client.feed(server.event("users", "user.user.blocked", 7))) == 2
    for number in range(8, 8 + REMEMBERED):
        server.client.feed(server.event("self", "user.self.updated", number))
    assert len(server.client.feed(event)) == 2


def test_a_new_session_may_use_names_again() -> None:
    for recovered, told in (("complete", 0), ("lost", 1)):
        server = Server()
        server.client.feed(server.event("self", "user.self.updated", 7))
        server.client.connect("jane", None)
        server.client.feed(stomp.encode("CONNECTED", {**CONNECTED, "recovered": recovered}))
        outcomes = server.client.feed(server.event("self", "user.self.updated", 7))
        assert sum(isinstance(outcome, Heard) for outcome in outcomes) == told


def test_a_lost_connection_fails_actions_and_keeps_relays() -> None:
    server = Server()
    relay, data = server.client.relay("/application/x")
    action, _ = server.client.action("/application/x", {})
    ((request, error),) = [(a.request, a.answer) for a in server.client.lost(ConnectionLost(1012, "restart"))]
    assert request == action and isinstance(error, ChatKittyConnectionLost)
    assert (error.close_code, error.reason) == (1012, "restart")
    assert server.client.lost(ConnectionLost()) == [] and server.client.repeat() == [data]
    server.client.forget(relay)
    assert server.client.repeat() == []


def test_what_servers_should_not_send() -> None:
    server = Server()
    name, _ = server.client.relay("/application/x")
    ((_, error),) = [
        (a.request, a.answer)
        for a in answers(server.client.feed(stomp.message_prefix(name, "/x") + stomp.message_tail("r", b"no json")))
    ]
    assert isinstance(error, ChatKittyBadAnswer)
    prefix = stomp.message_prefix(server.ids["/topic/v1.users.1.self"], "/x")
    (ack,) = server.client.feed(prefix + stomp.message_tail("m", b'{"type":7}', ack="m"))
    assert isinstance(ack, Acknowledge)
    assert server.client.feed(stomp.message_prefix("nobody", "/x") + stomp.message_tail("m", b"{}")) == []
    (refused,) = server.client.feed(stomp.encode_error("no", b"<html>"))
    assert isinstance(refused, Refused) and refused.error.error == "UnknownChatKittyError"
    (refused,) = server.client.feed(
        stomp.encode_error("no", b'{"error":"RateLimitedError","message":"x","coolOffDuration":"PT2.5S"}')
    )
    assert isinstance(refused, Refused) and isinstance(refused.error, RateLimitedError)
    assert refused.error.cool_off == 2.5
    first, broken = server.client.feed(stomp.encode_receipt("r") + b"NONSENSE\n\n\0")
    assert first == Confirmed("r") and isinstance(broken, Broken)
    (broken,) = server.client.feed(stomp.encode_receipt("r"))
    assert isinstance(broken, Broken)


ANSWERS = st.sampled_from(["reply", "error", "event", "receipt", "unnamed", "twice", "forget"])


@settings(deadline=None)
@given(st.data())
def test_every_request_is_settled_exactly_once(data: st.DataObject) -> None:
    """Any requests, answered in any order and way, cut anywhere, with connections that are lost in between."""
    server = Server()
    client = server.client
    waiting: dict[str, bool] = {}
    settled: Counter[str] = Counter()
    forgotten: set[str] = set()
    stream = b""

    def settle(outcomes: list[Outcome]) -> None:
        for answer in answers(outcomes):
            assert answer.request not in forgotten
            settled[answer.request] += 1

    for number in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["relay", "action", "answer", "feed", "lose"]))
        if step == "relay":
            waiting[client.relay("/application/x")[0]] = True
        elif step == "action":
            waiting[client.action("/application/x", {})[0]] = False
        elif step == "answer" and waiting:
            name = data.draw(st.sampled_from(sorted(waiting)))
            relay, how = waiting[name], data.draw(ANSWERS)
            if how == "forget":
                client.forget(name)
                if not settled[name]:
                    forgotten.add(name)
            elif how == "receipt":
                stream += stomp.encode_receipt(name)
            elif how == "unnamed":
                stream += server.error()
            elif how == "error":
                stream += server.error(subscription_id=name) if relay else server.error(receipt_id=name)
            else:
                one = server.reply(name, number) if relay else server.event("self", "user.self.updated", number, name)
                stream += one + (one if how == "twice" else b"")
        elif step == "feed":
            cut = data.draw(st.integers(0, len(stream)))
            settle(client.feed(stream[:cut]))
            stream = stream[cut:]
        elif step == "lose":
            settle(list(client.lost(ConnectionLost())))
            stream = b""
            client.connect("jane", None)
            client.feed(stomp.encode("CONNECTED", CONNECTED))
    settle(client.feed(stream))
    for name, relay in waiting.items():
        settle(client.feed(server.error(subscription_id=name) if relay else server.error(receipt_id=name)))
    assert settled == Counter(waiting.keys() - forgotten)
    assert client.unanswered == 0


def test_error_objects_of_every_name() -> None:
    server = Server()
    for name, kind in (("ResourceNotFoundError", ResourceNotFoundError), ("SomethingNewError", ChatKittyError)):
        request, _ = server.client.relay("/application/x")
        body = json.dumps({"error": name, "message": "m", "coolOffDuration": "P1D", "timestamp": 7}).encode()
        prefix = stomp.message_prefix(server.ids[ERROR_QUEUE], ERROR_QUEUE)
        tail = stomp.message_tail("e", body, extra={"subscription-id": request})
        (answer,) = answers(server.client.feed(prefix + tail))
        assert isinstance(answer.answer, kind) and type(answer.answer) is kind
        assert (answer.answer.error, answer.answer.cool_off, answer.answer.timestamp) == (name, None, None)


def test_all_that_the_server_may_deliver_again_is_known() -> None:
    server = Server()
    events = [server.event("self", "user.self.updated", number) for number in range(MAX_REPLAY)]
    for event in events:
        assert len(server.client.feed(event)) == 2
    server.client.connect("jane", None)
    server.client.feed(stomp.encode("CONNECTED", {**CONNECTED, "recovered": "complete"}))
    for event in events:
        (only,) = server.client.feed(event)
        assert isinstance(only, Acknowledge)
