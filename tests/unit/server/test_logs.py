"""Logs: no secret comes out, no line is forged."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from offhook.server.logs import HIDDEN, MAX_TEXT, configure_logging, get_logger, hide_text, redact

SECRET = "hunter2-S3CR3T"
KEYS = [
    "password",
    "Authorization",
    "api-key",
    "api_key",
    "apiKey",
    "authParams",
    "auth_params",
    "grant",
    "Cookie",
]
KEYS += ["session_token", "accessToken", "client_secret", "Set-Cookie", "passphrase", "StompX-Auth-Params"]


@pytest.fixture(params=["console", "json"])
def log(request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Logging set up in each form; called, it gives what was written so far."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure_logging("debug", request.param, stream)
    try:
        yield stream.getvalue
    finally:
        structlog.reset_defaults()
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.mark.parametrize(
    "text",
    [
        f"GET /files/7?grant={SECRET}&a=1 HTTP/1.1",
        f"wss://chat.example/rtm/websocket?api-key={SECRET}",
        f"/x?stompx_auth_params={SECRET}&b=2",
        f"/x?a=1&access_token={SECRET}",
        f"/x?API_KEY%3D{SECRET}",
        f"authorization: Bearer {SECRET}",
        f"Authorization: Basic {SECRET}",
        f"it said Bearer {SECRET}",
        f'body {{"password": "{SECRET}", "a": 1}}',
        f'body {{"password":"a\\"b {SECRET}"}}',
        f'escaped {{\\"password\\":\\"{SECRET}\\"}}',
        f"User(name='a', password='x {SECRET}')",
        f"User(password=b'{SECRET}')",
        f'auth_params={{"a": {{"b": 1}}, "pin": "{SECRET}"}}',
        f"StompX-Auth-Params:{SECRET} {SECRET}",
        f"postgresql://offhook:{SECRET}@db/offhook",
        f'cut "password": "{SECRET}',
        f"client_secret = {SECRET}",
    ],
)
def test_secrets_in_texts(text: str) -> None:
    assert SECRET not in hide_text(text)
    assert HIDDEN in hide_text(text)


def test_what_is_no_secret_stays() -> None:
    for text in (
        "GET /rtm/info?t=5",
        "user alice@example.com joined",
        "http://127.0.0.1:8686/x",
        "reason=client",
    ):
        assert hide_text(text) == text


values = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
wraps = st.lists(st.sampled_from(["list", "tuple", "dict", "set", "pair"]), max_size=8)


@given(values, st.sampled_from(KEYS), wraps, st.sampled_from(["dict", "pair", "text", "bytes", "json", "query"]))
def test_no_secret_planted_anywhere_comes_out(beside: object, key: str, wraps: list[str], how: str) -> None:
    planted: object = {
        "dict": {key: SECRET, "beside": beside},
        "pair": (key.encode(), SECRET.encode()),
        "text": f"{key}={SECRET}",
        "bytes": f"{key}: {SECRET}".encode(),
        "json": json.dumps({"deep": {key: SECRET}}),
        "query": f"http://x/?a=b&{key}={SECRET}#c",
    }[how]
    for wrap in wraps:
        planted = {
            "list": [beside, planted, beside],
            "tuple": (planted,),
            "dict": {"inner": planted},
            "set": [planted],
            "pair": ("name", planted),
        }[wrap]
    entry = redact(None, "info", {"event": "something", "value": planted})
    assert SECRET not in json.dumps(entry)


def test_every_way_into_the_log_is_covered(log: Callable[[], str]) -> None:
    get_logger("a").info(f"password={SECRET}", token=SECRET, headers=[(b"cookie", SECRET.encode())])
    logging.getLogger("uvicorn.error").warning("failed %s", f"?grant={SECRET}")
    logging.getLogger("asyncio").error("oops", extra={"api_key": SECRET})
    try:
        raise ValueError(f"bad password: '{SECRET}'")
    except ValueError:
        get_logger("a").exception("caught")
        logging.getLogger("sqlalchemy").exception("caught too")
    written = log()
    assert SECRET not in written
    assert written.count("Traceback") == 2
    assert all(text in written for text in ("failed", "oops", "caught too"))


def test_nobody_forges_a_line(log: Callable[[], str]) -> None:
    forged = "x\n2026-01-01T00:00:00Z [info     ] operator signed in\r\n\x1b[31mred\x00\u2028\u202e\x85y"
    get_logger("a").info("joined", user=forged, nested={forged: [forged]})
    logging.getLogger("asyncio").warning("joined %s", forged)
    lines = log().splitlines()
    assert len(lines) == 2
    assert not any(
        ord(character) < 32 or ord(character) in (0x7F, 0x85, 0x2028, 0x202E) for character in "".join(lines)
    )


def test_nobody_forges_a_line_by_an_exception(log: Callable[[], str]) -> None:
    try:
        raise ValueError("x\n2026-01-01T00:00:00Z [info     ] operator signed in\x1b[31m")
    except ValueError:
        get_logger("a").exception("caught")
    assert not any(line.startswith("2026-01-01") for line in log().splitlines())
    assert "\x1b[31m" not in log()


def test_json_entries_are_objects() -> None:
    stream = io.StringIO()
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    try:
        configure_logging("info", "json", stream)
        get_logger("a").debug("unheard")
        get_logger("a").info("heard", number=5, none=None, when=object)
        logging.getLogger("library").info("unheard")
        logging.getLogger("library").warning("heard too")
    finally:
        structlog.reset_defaults()
        logging.getLogger().handlers[:] = handlers
        logging.getLogger().setLevel(level)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["number"], first["level"]) == ("heard", 5, "info")
    assert (second["event"], second["logger"], second["level"]) == ("heard too", "library", "warning")


def test_texts_and_depth_are_bounded() -> None:
    nested: object = "x"
    for _ in range(50):
        nested = [nested]
    entry = redact(None, "info", {"event": "e", "long": "a" * 10**6, "many": list(range(10**5)), "deep": nested})
    assert len(json.dumps(entry)) < 2 * MAX_TEXT


def test_what_cannot_be_shown_does_not_fail() -> None:
    class Rude:
        def __repr__(self) -> str:
            raise RuntimeError

    assert redact(None, "info", {"event": "e", "value": Rude()})["value"] == "<Rude>"


@pytest.mark.parametrize(
    "text", ["token" * 2000, "a" * 9000, '"' * 9000, "password=" * 900, "://a:" * 2000, "{" * 9000]
)
def test_hostile_texts_cost_little(text: str) -> None:
    began = time.process_time()
    hide_text(text)
    assert time.process_time() - began < 0.25


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(ValueError):
        configure_logging("loud")
    with pytest.raises(ValueError):
        configure_logging("info", "xml")
