from __future__ import annotations

import asyncio
import json
import socket
import time

import pytest
from structlog.testing import capture_logs
from tests.unit.functions.http_receiver import Answer, Receiver, Request, always, receiving, response
from tests.unit.functions.support import SECRET, application, attempt, registry, running

from offhook.domain.accounts import WebhookPolicy
from offhook.errors import AccessDenied
from offhook.functions import verify_signature
from offhook.functions.answers import DENIED, FAILED, TOO_LONG, Denial
from offhook.functions.webhook import MAX_RESPONSE, Webhooks
from offhook.ports import Profile


async def ask(receiver: Receiver, timeout: float = 5.0, webhooks: Webhooks | None = None) -> Profile:
    hooks = webhooks or Webhooks(lambda application: SECRET)
    try:
        return await hooks.authenticate(
            application(), WebhookPolicy(receiver.url, timeout), attempt(password="hunter2", n=1)
        )
    finally:
        if webhooks is None:
            await hooks.close()
            await hooks.close()


async def test_posts_the_signed_event() -> None:
    async with receiving(always(response(204))) as receiver:
        assert await ask(receiver) == Profile()
    [request] = receiver.requests
    assert request.method == "POST"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "type": "user.attempted.start_session",
        "username": "jane",
        "authParams": {"password": "hunter2", "n": 1},
        "protocol": "chatkitty",
        "address": "203.0.113.7",
        "application": "shop",
    }
    timestamp, signature = request.headers["offhook-timestamp"], request.headers["offhook-signature"]
    assert abs(int(timestamp) - time.time()) < 60
    assert verify_signature(SECRET, timestamp, request.body, signature)
    assert not verify_signature("another secret", timestamp, request.body, signature)
    assert not verify_signature(SECRET, timestamp, request.body + b" ", signature)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (response(200), Profile()),
        (response(200, b"OK", "text/plain"), Profile()),
        (response(200, b"null"), Profile()),
        (response(201, b"{}"), Profile()),
        (
            response(200, b'{"displayName":"Jane","properties":{"plan":"pro"}}'),
            Profile("Jane", {"plan": "pro"}),
        ),
        (response(200, b'{"display_name":"J"}', "application/problem+json; charset=utf-8"), Profile("J")),
    ],
)
async def test_any_2xx_allows(answer: bytes, expected: Profile) -> None:
    async with receiving(always(answer)) as receiver:
        assert await ask(receiver) == expected


@pytest.mark.parametrize(
    ("answer", "message", "event"),
    [
        (response(403, b'{"message":"Wrong\\r\\npassword"}'), "Wrong password", None),
        (response(403, json.dumps({"message": "x" * 5000}).encode()), "x" * 300, None),
        (response(403, b'{"message":5}'), DENIED, None),
        (response(403, b"[]"), DENIED, None),
        (response(403, b"[" * 60_000), DENIED, None),
        (response(403), DENIED, None),
        (response(401, b'{"message":"inner detail"}'), FAILED, "webhook_failed"),
        (response(500, b'{"message":"inner detail"}'), FAILED, "webhook_failed"),
        (response(302, extra="Location: /elsewhere\r\n"), FAILED, "webhook_failed"),
        (response(200, b"false"), FAILED, "webhook_answered_nonsense"),
        (response(200, b'{"allowed":false}'), FAILED, "webhook_answered_nonsense"),
        (response(200, b"{"), FAILED, "webhook_answered_nonsense"),
        (response(200, b"\xff"), FAILED, "webhook_answered_nonsense"),
        (response(200, b"[" * 60_000), FAILED, "webhook_answered_nonsense"),
        (response(200, b'{"properties":{"a":NaN}}'), FAILED, "webhook_answered_nonsense"),
        (response(200, b" " * (MAX_RESPONSE + 1)), FAILED, "webhook_answer_too_large"),
        (b"this is not HTTP\r\n\r\n", FAILED, "webhook_unreachable"),
    ],
)
async def test_anything_else_denies(answer: bytes, message: str, event: str | None) -> None:
    async with receiving(always(answer)) as receiver:
        with capture_logs() as logs, pytest.raises(Denial) as caught:
            await ask(receiver)
    assert caught.value.message == message
    assert [entry["event"] for entry in logs] == ([event] if event else [])
    assert "hunter2" not in str(logs)
    assert len(receiver.requests) == 1, "neither a redirect nor a failure is tried again"


def failing_first(failures: int, then: bytes) -> Answer:
    left = [failures]

    async def answer(request: Request) -> bytes:
        left[0] -= 1
        return b"" if left[0] >= 0 else then

    return answer


async def test_a_reset_connection_is_tried_once_more() -> None:
    async with receiving(failing_first(1, response(200))) as receiver:
        assert await ask(receiver) == Profile()
    assert len(receiver.requests) == 2
    async with receiving(failing_first(9, response(200))) as receiver:
        with pytest.raises(AccessDenied, match=FAILED):
            await ask(receiver)
    assert len(receiver.requests) == 2


async def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        receiver = Receiver(always(b""), free.getsockname()[1])
        with capture_logs() as logs, pytest.raises(AccessDenied, match=FAILED):
            await ask(receiver)
    assert [entry["event"] for entry in logs] == ["webhook_unreachable"]


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "nonsense", "http://[", "http://user:pw@127.0.0.1:1/?key=s3"])
async def test_useless_urls_deny_and_the_log_holds_no_secret_of_them(url: str) -> None:
    webhooks = Webhooks(lambda application: SECRET)
    with capture_logs() as logs, pytest.raises(AccessDenied, match=FAILED):
        await webhooks.authenticate(application(), WebhookPolicy(url), attempt())
    await webhooks.close()
    assert "pw" not in str(logs)
    assert "s3" not in str(logs)


async def test_a_slow_webhook_is_given_up_even_if_it_drips() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not writer.is_closing():
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    began = time.monotonic()
    with capture_logs() as logs, pytest.raises(AccessDenied, match=TOO_LONG):
        await ask(Receiver(always(b""), server.sockets[0].getsockname()[1]), timeout=0.2)
    assert 0.2 <= time.monotonic() - began < 2
    assert [entry["event"] for entry in logs] == ["webhook_too_slow"]
    server.close()


async def test_one_slow_attempt_delays_no_other() -> None:
    release = asyncio.Event()

    async def answer(request: Request) -> bytes:
        if json.loads(request.body)["username"] == "slow":
            await release.wait()
        return response(200)

    async with receiving(answer) as receiver, running(registry()) as runner:
        app = application(webhook=WebhookPolicy(receiver.url))
        assert runner.authenticates(app)
        slow = asyncio.create_task(runner.authenticate(app, attempt("slow")))
        quick = [runner.authenticate(app, attempt(f"user{number}")) for number in range(100)]
        assert await asyncio.wait_for(asyncio.gather(*quick), 4) == [Profile()] * 100
        assert not slow.done()
        release.set()
        assert await slow == Profile()
    assert len(receiver.requests) == 101


async def test_a_closed_client_denies() -> None:
    webhooks = Webhooks(lambda application: SECRET)
    await webhooks.close()
    async with receiving(always(response(200))) as receiver:
        with pytest.raises(AccessDenied, match=FAILED):
            await ask(receiver, webhooks=webhooks)
    assert receiver.requests == []
