"""Bodies of requests."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offhook.protocols.kandy.presence import Activity, Status, WatchAction
from offhook.protocols.kandy.requests import (
    MAX_CORRELATOR,
    MAX_NOTE,
    MAX_SERVICE,
    MAX_SERVICES,
    MAX_TEXT,
    MAX_USER,
    MAX_USERS,
    InstantMessage,
    PresenceUpdate,
    RequestError,
    SubscribeRequest,
    WatchRequest,
    decode_message,
    decode_presence,
    decode_subscribe,
    decode_watch,
)
from offhook.protocols.kandy.status import StatusCode

DECODERS: list[Callable[[bytes], object]] = [decode_subscribe, decode_presence, decode_watch, decode_message]
words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


def subscribe(**members: object) -> SubscribeRequest:
    return decode_subscribe(json.dumps({"subscribeRequest": {"service": ["call"], **members}}).encode())


def refused(decoder: Callable[[bytes], object], value: object) -> tuple[str, StatusCode]:
    with pytest.raises(RequestError) as caught:
        decoder(json.dumps(value).encode())
    assert caught.value.message
    return caught.value.field, caught.value.status


def test_a_subscription_as_clients_send_it() -> None:
    body = b"""{"subscribeRequest":{
       "expires":3600,
       "service":["call","Presence","IM"],
       "localization":"English_US",
       "useTurn":true,
       "notificationType":"WebSocket",
       "supported":["RingingFeedback"],
       "forceLogOut":"true",
       "clientCorrelator":"abc123"}}"""
    assert decode_subscribe(body) == SubscribeRequest(
        expires=3600,
        services=("call", "Presence", "IM"),
        localization="English_US",
        use_turn=True,
        notification_type="WebSocket",
        supported=("RingingFeedback",),
        force_logout=True,
        client_correlator="abc123",
    )


def test_a_subscription_with_the_least() -> None:
    assert decode_subscribe(b'{"subscribeRequest":{"service":"call","new":{"a":[1]}},"more":1}') == SubscribeRequest(
        expires=None,
        services=("call",),
        localization=None,
        use_turn=True,
        notification_type="WebSocket",
        supported=(),
        force_logout=False,
        client_correlator=None,
    )


@given(st.lists(words, min_size=1, max_size=MAX_SERVICES))
def test_services_are_kept_in_order_and_once(services: list[str]) -> None:
    assert subscribe(service=services).services == tuple(dict.fromkeys(services))


@pytest.mark.parametrize(
    ("value", "seconds"), [(60, 60), (60.5, 60.5), ("3600", 3600), (" 60 ", 60), ("0.5", 0.5), ("", None), (None, None)]
)
def test_expires_is_a_number_or_one_in_text(value: object, seconds: float | None) -> None:
    assert subscribe(expires=value).expires == seconds


@pytest.mark.parametrize("value", ["inf", "nan", "1e9", "-5", "soon", -1])
def test_other_values_of_expires_are_refused(value: object) -> None:
    body = {"subscribeRequest": {"service": ["call"], "expires": value}}
    assert refused(decode_subscribe, body) == ("subscribeRequest.expires", StatusCode.INVALID_VALUE)


@pytest.mark.parametrize(
    ("value", "flag"), [("true", True), ("True", True), (True, True), ("false", False), (False, False), (None, False)]
)
def test_flags_are_booleans_or_text(value: object, flag: bool) -> None:
    assert subscribe(forceLogOut=value).force_logout is flag
    assert subscribe(useTurn=value).use_turn is (True if value is None else flag)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"service": ["x"] * (MAX_SERVICES + 1)}, "service"),
        ({"service": ["x" * (MAX_SERVICE + 1)]}, "service"),
        ({"service": [""]}, "service"),
        ({"service": []}, "service"),
        ({"supported": ["x" * (MAX_SERVICE + 1)]}, "supported"),
        ({"clientCorrelator": "x" * (MAX_CORRELATOR + 1)}, "clientCorrelator"),
        ({"localization": "x" * (MAX_SERVICE + 1)}, "localization"),
        ({"notificationType": "x" * (MAX_SERVICE + 1)}, "notificationType"),
    ],
)
def test_values_out_of_bounds_are_named(members: dict[str, object], field: str) -> None:
    body = {"subscribeRequest": {"service": ["call"], **members}}
    assert refused(decode_subscribe, body) == (f"subscribeRequest.{field}", StatusCode.INVALID_VALUE)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], ""),
        (None, ""),
        ({}, "subscribeRequest"),
        ({"subscribeRequest": None}, "subscribeRequest"),
        ({"subscribeRequest": {}}, "subscribeRequest.service"),
        ({"subscribeRequest": {"service": None}}, "subscribeRequest.service"),
        ({"subscribeRequest": {"service": ["call", 1]}}, "subscribeRequest.service"),
        ({"subscribeRequest": {"service": "call", "expires": True}}, "subscribeRequest.expires"),
        ({"subscribeRequest": {"service": "call", "clientCorrelator": 5}}, "subscribeRequest.clientCorrelator"),
    ],
)
def test_members_of_other_types_are_named(body: object, field: str) -> None:
    assert refused(decode_subscribe, body) == (field, StatusCode.INVALID_BODY)


def test_presence() -> None:
    body = b'{"presenceRequest":{"status":"open","activity":"on-the-phone","note":"back at 3"}}'
    assert decode_presence(body) == PresenceUpdate(Status.OPEN, Activity.ON_THE_PHONE, "back at 3")
    body = b'{"presenceRequest":{"status":"closed","activity":"away"}}'
    assert decode_presence(body) == PresenceUpdate(Status.CLOSED, Activity.AWAY, None)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"status": "online"}, "status"),
        ({"activity": "Busy"}, "activity"),
        ({"note": "x" * (MAX_NOTE + 1)}, "note"),
    ],
)
def test_other_words_of_presence_are_refused(members: dict[str, str], field: str) -> None:
    body = {"presenceRequest": {"status": "open", "activity": "active", **members}}
    assert refused(decode_presence, body) == (f"presenceRequest.{field}", StatusCode.INVALID_VALUE)


def test_watches_keep_the_spelling() -> None:
    body = b'{"presenceWatcherRequest":{"userList":["Bob@Example.com","carol","carol"],"action":"watch"}}'
    assert decode_watch(body) == WatchRequest(("Bob@Example.com", "carol"), WatchAction.WATCH)
    body = b'{"presenceWatcherRequest":{"userList":"bob","action":"stopwatch"}}'
    assert decode_watch(body) == WatchRequest(("bob",), WatchAction.STOP)
    body = b'{"presenceWatcherRequest":{"userList":[],"action":"get"}}'
    assert decode_watch(body) == WatchRequest((), WatchAction.GET)


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"userList": ["u"] * (MAX_USERS + 1)}, "userList"),
        ({"userList": ["u" * (MAX_USER + 1)]}, "userList"),
        ({"action": "stare"}, "action"),
    ],
)
def test_other_watches_are_refused(members: dict[str, object], field: str) -> None:
    body = {"presenceWatcherRequest": {"userList": ["bob"], "action": "watch", **members}}
    assert refused(decode_watch, body) == (f"presenceWatcherRequest.{field}", StatusCode.INVALID_VALUE)


def test_a_message_as_clients_send_it() -> None:
    body = b'{"imRequest":{"charset":"UTF-8","toUrl":"bob@example.com","message":"hello","type":"A2"}}'
    assert decode_message(body) == InstantMessage("bob@example.com", "hello", "UTF-8", "A2")
    assert decode_message(b'{"imRequest":{"toUrl":"b","message":""}}') == InstantMessage("b", "", "UTF-8", "A2")


@pytest.mark.parametrize("scheme", ["", "sip:", "SIP:", "sips:", "tel:", " sip: "])
def test_the_scheme_of_a_receiver_is_dropped(scheme: str) -> None:
    body = {"imRequest": {"toUrl": f"{scheme}bob@example.com", "message": "x"}}
    assert decode_message(json.dumps(body).encode()).to == "bob@example.com"


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"toUrl": "sip:"}, "toUrl"),
        ({"toUrl": "u" * (MAX_USER + 1)}, "toUrl"),
        ({"message": "x" * (MAX_TEXT + 1)}, "message"),
        ({"charset": "x" * 200}, "charset"),
        ({"type": "x" * 200}, "type"),
    ],
)
def test_other_messages_are_refused(members: dict[str, str], field: str) -> None:
    body = {"imRequest": {"toUrl": "bob", "message": "x", **members}}
    assert refused(decode_message, body) == (f"imRequest.{field}", StatusCode.INVALID_VALUE)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"{",
        b"\xff",
        b'{"subscribeRequest":{"service":["\xff"]}}',
        b'{"imRequest":{"toUrl":"\\ud800","message":""}}',
        b"[" * 100_000,
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_no_body_is_refused(decoder: Callable[[bytes], object], body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        decoder(body)
    assert caught.value.status is StatusCode.INVALID_BODY


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
members = st.dictionaries(
    st.sampled_from(
        ["expires", "service", "useTurn", "supported", "forceLogOut", "status", "activity", "userList", "toUrl"]
    ),
    json_values,
)


@pytest.mark.parametrize("decoder", DECODERS)
@given(st.sampled_from(["subscribeRequest", "presenceRequest", "presenceWatcherRequest", "imRequest"]), members)
def test_nothing_but_the_documented_error_is_raised(
    decoder: Callable[[bytes], object], wrapper: str, inner: dict[str, object]
) -> None:
    with contextlib.suppress(RequestError):
        decoder(json.dumps({wrapper: inner}).encode())


@pytest.mark.parametrize("decoder", DECODERS)
@given(st.binary(max_size=60))
def test_any_bytes(decoder: Callable[[bytes], object], body: bytes) -> None:
    with contextlib.suppress(RequestError):
        decoder(body)
