"""The load generator's frames are what the server reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.bench import wire
from offhook.protocols import stomp
from offhook.protocols.chatkitty.destinations import parse_user_topic
from offhook.protocols.websocket import Message, Receiver, accept_response, parse_request


def read_by_server(data: bytes) -> list[stomp.Frame]:
    """The STOMP frames that the server finds in a client's bytes."""
    receiver = Receiver(1 << 20)
    decoder = stomp.Decoder()
    found: list[stomp.Frame] = []
    for event in receiver.feed(data):
        assert isinstance(event, Message)
        found += decoder.feed(event.data)
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
def test_a_client_frame_of_any_size_is_read_by_the_server(size: int) -> None:
    payload = b"x" * size
    (message,) = Receiver(1 << 20).feed(wire.client_frame(payload))
    assert isinstance(message, Message)
    assert message.data == payload


def test_the_upgrade_is_accepted() -> None:
    request = parse_request(wire.upgrade("localhost:1", "key with space", bytes(16)))
    assert request.path == "/rtm/websocket"
    assert request.query == "api-key=key%20with%20space"
    assert accept_response(request, "v12.stomp").startswith(b"HTTP/1.1 101")


def test_the_bootstrap_is_that_of_a_client_of_the_second_generation() -> None:
    said = [wire.connect("jane", "secret"), *wire.GREETING, *wire.topics(12)]
    frames = read_by_server(b"".join(said))
    assert len(frames) == 15
    assert frames[0].headers["StompX-User"] == "jane"
    assert [frame.command for frame in frames[1:]] == ["SUBSCRIBE"] * 14
    topics = [parse_user_topic(frame.headers["destination"]) for frame in frames[5:]]
    assert topics == [(12, key) for key in wire.USER_TOPICS]
    assert len({frame.headers["receipt"] for frame in frames[5:]}) == 10


def test_a_session_is_named_to_be_resumed() -> None:
    (frame,) = read_by_server(wire.connect("jane", session="token-1"))
    assert frame.headers["StompX-Auth-Session-ID"] == "token-1"
    assert "StompX-Auth-Params" not in frame.headers


def test_an_action_carries_its_body() -> None:
    (frame,) = read_by_server(wire.send(wire.relay("user.update"), "r-1", b'{"a":1}'))
    assert (frame.command, frame.headers["destination"], frame.body) == (
        "SEND",
        "/application/v1/user.update",
        b'{"a":1}',
    )


def test_an_event_is_acknowledged_and_nothing_else_is() -> None:
    event = stomp.message_prefix("sub-1", "/topic/x") + stomp.message_tail("a-7", b"{}", ack="a-7")
    answer = wire.acknowledge(event)
    assert answer is not None
    (ack,) = read_by_server(answer)
    assert ack.headers == {"id": "a-7", "subscription": "sub-1"}
    assert wire.acknowledge(stomp.encode_receipt("r-1")) is None


@given(st.lists(st.sampled_from([b"", b"\n", b"x" * 125, b"y" * 126, b"z" * 65536]), max_size=6), st.data())
def test_server_frames_are_split_wherever_the_bytes_are(payloads: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(wire.server_frame(payload) for payload in payloads)
    cut = data.draw(st.integers(0, len(whole)))
    first, rest = wire.split_frames(whole[:cut])
    second, rest = wire.split_frames(rest + whole[cut:])
    assert [payload for _, payload in first + second] == payloads
    assert rest == b""
