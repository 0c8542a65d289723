"""Servers whose answers are of any shape: every call ends, with an error of the SDK's or without."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.client.kandy.scripted import BOB, CONFIGS, UC, Platform, play, sign_in, sign_out

from offhook import kandy

WORDS = ["subscribeResponse", "subscriptionParams", "subscription", "notificationChannel", "service", "expires"]
WORDS += ["sessionId", "statusCode", "reason", "imResponse", "messageId", "presenceResponse", "success", "error"]
WORDS += ["code", "human", "id", "txt", "when", "dir", "handle", "thread", "lastreceived", "attachments", "retryAfter"]
WORDS += ["access_token", "refresh_token", "clientCorrelator", "presenceWatcherResponse", "authorizationResponse"]
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "/x", "0", "1e999", "\n", "/\r\nx", "//x", "é", "\ud800"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner)
)
BODIES = st.one_of(
    st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=20),
)
NONE: dict[str, str] = {}
ANSWERS = st.tuples(st.sampled_from([200, 204, 401, 403, 404, 503]), st.just(NONE), BODIES)
REQUESTS = ["POST", "PUT", "DELETE", "mk_token", "refresh_token", "send", "thread", "threads"]
SCRIPTS = st.dictionaries(st.sampled_from(REQUESTS), st.lists(ANSWERS, max_size=3), max_size=6)


@CONFIGS
@given(script=SCRIPTS)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_answers_of_any_shape(
    config: dict[str, object], script: dict[str, list[tuple[int, dict[str, str], bytes]]]
) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        platform.script = script
        talk = client.conversation.create(BOB)
        for call in (
            lambda: sign_in(client),
            lambda: client.presence.update("open", "busy"),
            lambda: client.presence.fetch(BOB),
            lambda: talk.send("hello"),
            lambda: client.conversation.fetch(),
            lambda: talk.fetch_messages(),
            lambda: asyncio.sleep(4000),
            lambda: talk.delete(),
            lambda: sign_out(client),
        ):
            with contextlib.suppress(kandy.ClientError):
                await call()
        connection = client.get_connection()
        assert not connection.is_pending and not connection.is_connected

    play(config, act)


@pytest.mark.parametrize("expires", ["0", "-5", "1e300", '"soon"', "null"])
def test_lives_of_any_length(expires: str) -> None:
    async def act(platform: Platform, client: kandy.Client) -> None:
        token = f'{{"success":{{"access_token":"a","refresh_token":"r","expires":{expires}}}}}'
        platform.script["mk_token"] = [(200, {}, token.encode())]
        await sign_in(client)
        await asyncio.sleep(100)
        assert platform.methods.count("refresh_token") <= 1

    play(UC, act)
