from __future__ import annotations

import json

import pytest

from offhook.errors import InvalidInput
from offhook.functions import StartSessionAttempted, verify_signature
from offhook.functions.answers import DENIED, profile_from, public_message
from offhook.functions.signature import sign
from offhook.functions.tracebacks import describe
from offhook.ports import Profile


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, Profile()),
        ({}, Profile()),
        ({"display_name": "Jane"}, Profile("Jane")),
        ({"displayName": "Jane", "properties": None}, Profile("Jane")),
        ({"display_name": None, "properties": {"plan": "pro"}}, Profile(None, {"plan": "pro"})),
        ({"properties": {"tags": ("a", "b")}}, Profile(None, {"tags": ["a", "b"]})),
    ],
)
def test_answers(answer: object, expected: Profile) -> None:
    assert profile_from(answer) == expected


@pytest.mark.parametrize(
    "answer",
    [
        True,
        False,
        "yes",
        1,
        [],
        object(),
        {"allowed": False},
        {1: 2},
        {"display_name": ""},
        {"display_name": 5},
        {"display_name": "a\nb"},
        {"display_name": "x" * 256},
        {"display_name": "a", "displayName": "b"},
        {"properties": []},
        {"properties": {1: "a"}},
        {"properties": {"a": object()}},
        {"properties": {"a": float("nan")}},
        {"properties": {"a": "x" * 20_000}},
        {"properties": json.loads('{"a":' * 100 + "1" + "}" * 100)},
    ],
)
def test_nonsense_is_refused(answer: object) -> None:
    with pytest.raises(InvalidInput):
        profile_from(answer)


def test_a_profile_is_a_copy() -> None:
    properties = {"tags": ["a"]}
    profile = profile_from({"properties": properties})
    properties["tags"].append("b")
    assert profile.properties == {"tags": ["a"]}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Wrong password", "Wrong password"),
        ("a\r\nb\0c", "a b c"),
        ("", DENIED),
        (" \n", DENIED),
        ("é" * 999, "é" * 300),
    ],
)
def test_public_messages_are_one_short_line(text: str, expected: str) -> None:
    assert public_message(text) == expected


def test_descriptions_hold_no_credentials() -> None:
    params = {
        "pin": "hunter2\n",
        "n": 4711,
        "deep": [{"x": "s3cret"}],
        "short": "q",
        "none": None,
        "empty": "",
    }
    try:
        try:
            int("hunter2\n")
        except ValueError as error:
            raise RuntimeError("s3cret 4711 q") from error
    except RuntimeError as error:
        text = describe(error, params)  # type: ignore[arg-type]
    messages = [line for line in text.splitlines() if line.startswith(("ValueError", "RuntimeError"))]
    assert len(messages) == 2, text
    for secret in ("hunter2", "s3cret", "4711", " q"):
        assert all(secret not in line for line in messages), messages
    assert "[redacted]" in text
    assert "test_answers.py" in text


def test_the_event_does_not_show_its_credentials() -> None:
    assert "hunter2" not in repr(StartSessionAttempted("jane", {"password": "hunter2"}, "kandy", "::1"))


def test_signatures() -> None:
    body = b'{"a":1}'
    signature = sign("secret", 1000, body)
    # As ``openssl dgst -sha256 -hmac secret`` makes it of ``1000.{"a":1}``.
    assert signature == "v1=79735020b7448fd0956ae8a025e12d8e8e654b3b2d7757e722076546bb0f8e3b"
    assert verify_signature("secret", "1000", body, signature, now=1000)
    assert verify_signature("secret", "1000", body, f"v1=00, {signature}", now=1299)
    assert verify_signature("secret", "1000", body, signature, 10, now=990)


@pytest.mark.parametrize(
    ("secret", "timestamp", "body", "signature", "now"),
    [
        ("other", "1000", b"x", None, 1000),
        ("secret", "1001", b"x", None, 1000),
        ("secret", "1000", b"y", None, 1000),
        ("secret", "1000", b"x", None, 1301),
        ("secret", "1000", b"x", None, 699),
        ("secret", "1000", b"x", "", 1000),
        ("secret", "1000", b"x", "v1=é", 1000),
        ("secret", "1e3", b"x", None, 1000),
        ("secret", "١٠٠٠", b"x", None, 1000),
        ("secret", "", b"x", None, 1000),
        ("secret", "9" * 400, b"x", None, 1000),
    ],
)
def test_wrong_signatures(secret: str, timestamp: str, body: bytes, signature: str | None, now: float) -> None:
    given = sign("secret", 1000, b"x") if signature is None else signature
    assert not verify_signature(secret, timestamp, body, given, now=now)
