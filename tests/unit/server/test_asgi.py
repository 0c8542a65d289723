"""The application around the routes: errors, limits, health and cross-origin headers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from offhook.errors import (
    AccessDenied,
    Conflict,
    InternalError,
    InvalidInput,
    NotFound,
    OffhookError,
    RateLimited,
    SessionLimitReached,
    TooLarge,
    Unavailable,
)
from offhook.server import asgi
from offhook.server.asgi import Health, body_limit, build_app
from offhook.server.cors import credentialed, origin_allowed, public
from offhook.server.metrics import Metrics
from offhook.server.proxies import TrustedProxies

ERRORS: dict[str, tuple[Exception, int, str]] = {
    "input": (InvalidInput("bad", "name"), 400, "ClientError"),
    "large": (TooLarge("big", 5), 413, "ClientError"),
    "denied": (AccessDenied("no"), 403, "AccessDeniedError"),
    "limit": (SessionLimitReached("no"), 403, "AccessDeniedError"),
    "found": (NotFound("what"), 404, "ResourceNotFoundError"),
    "conflict": (Conflict("taken"), 409, "ClientError"),
    "rate": (RateLimited("slow", 1.2), 429, "RateLimitedError"),
    "away": (Unavailable("later", 3.0), 503, "ServiceUnavailableError"),
    "internal": (InternalError(), 500, "InternalServerError"),
    "base": (OffhookError("odd"), 500, "InternalServerError"),
    "bug": (KeyError("secret detail"), 500, "InternalServerError"),
}


async def fail(request: Request) -> Response:
    raise ERRORS[request.path_params["which"]][0]


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def ignore(request: Request) -> Response:
    return PlainTextResponse("unread")


async def break_off(request: Request) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        yield b"begun"
        raise KeyError("too late")

    return StreamingResponse(parts())


class Client(httpx.AsyncClient):
    """A client of an application of its own."""

    def __init__(self, base_path: str = "", health: Health | None = None) -> None:
        self.metrics = metrics = Metrics()
        allowed = ["https://app.example", "https://*.apps.example"]
        app = build_app(
            [
                Route("/fail/{which}", fail),
                Route("/echo", echo, methods=["POST"]),
                Route("/ignore", ignore, methods=["POST"]),
                Route("/break", break_off),
                *body_limit(1000, Route("/upload", echo, methods=["POST"])),
                *public(metrics, Route("/file/{which}", fail), Route("/stream", echo, methods=["POST"])),
                *credentialed(metrics, allowed, Route("/info", ignore), Route("/info/{which}", fail)),
                *body_limit(1000, *public(metrics, Route("/public/upload", echo, methods=["POST"]))),
            ],
            health=health or Health(started=True),
            metrics=metrics,
            proxies=TrustedProxies(),
            max_body=100,
            base_path=base_path,
        )
        super().__init__(transport=httpx.ASGITransport(app, raise_app_exceptions=True), base_url="http://offhook")


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client() as client:
        yield client


def expect_error(response: httpx.Response, status: int, error: str) -> dict[str, str]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    body: dict[str, str] = response.json()
    assert body["error"] == error and body["message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", body["timestamp"])
    return body


@pytest.mark.parametrize("path", ["/fail", "/file"])
@pytest.mark.parametrize("which", ERRORS)
async def test_errors_have_one_form(client: Client, path: str, which: str) -> None:
    error, status, name = ERRORS[which]
    with capture_logs() as logs:
        body = expect_error(await client.get(f"{path}/{which}"), status, name)
    assert "secret detail" not in body["message"]
    assert body["message"] == (
        error.message if isinstance(error, OffhookError) else "Something went wrong on the server"
    )
    assert client.metrics.errors.value(error.code if isinstance(error, OffhookError) else "internal") == 1
    assert ("request failed" in [entry["event"] for entry in logs]) == (which == "bug")


async def test_errors_that_pass_say_when_to_come_back(client: Client) -> None:
    limited = await client.get("/fail/rate")
    assert (limited.headers["retry-after"], limited.json()["coolOffDuration"]) == ("2", "PT2S")
    away = await client.get("/fail/away")
    assert away.headers["retry-after"] == "3" and "coolOffDuration" not in away.json()


async def test_unknown_routes_and_methods(client: Client) -> None:
    expect_error(await client.get("/nowhere"), 404, "ResourceNotFoundError")
    expect_error(await client.get("/healthz/"), 404, "ResourceNotFoundError")
    response = await client.get("/echo")
    expect_error(response, 405, "ClientError")
    assert response.headers["allow"] == "POST"


async def test_an_error_after_the_response_began_breaks_it_off(client: Client) -> None:
    with pytest.raises(KeyError):
        await client.get("/break")


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 10


@pytest.mark.parametrize(
    ("path", "limit"), [("/echo", 100), ("/stream", 100), ("/upload", 1000), ("/public/upload", 1000)]
)
async def test_bodies_are_bounded(client: Client, path: str, limit: int) -> None:
    assert (await client.post(path, content=b"x" * limit)).text == "x" * limit
    assert (await client.post(path, content=chunks(limit // 10))).text == "x" * limit
    expect_error(await client.post(path, content=b"x" * (limit + 1)), 413, "ClientError")
    expect_error(await client.post(path, content=chunks(limit // 10 + 1)), 413, "ClientError")


async def test_a_body_said_to_be_too_large_is_not_read(client: Client) -> None:
    read = False

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read = True
        yield b"x" * 101

    response = await client.post("/echo", content=body(), headers={"content-length": "101"})
    expect_error(response, 413, "ClientError")
    assert not read


async def test_what_a_route_does_not_read_is_not_its_error(client: Client) -> None:
    assert (await client.post("/ignore", content=b"x" * 500)).text == "unread"


async def test_health(client: Client) -> None:
    response = await client.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "alive"})
    assert (await client.get("/readyz")).status_code == 200


async def test_readiness_needs_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "CHECK_TIMEOUT", 0.05)
    broken: list[str] = []

    async def store() -> None:
        if "store" in broken:
            raise OSError("disk at /secret/place")

    async def broker() -> None:
        if "broker" in broken:
            await asyncio.Event().wait()

    health = Health({"store": store, "broker": broker})
    async with Client(health=health) as client:

        async def ask() -> tuple[int, dict[str, str]]:
            response = await client.get("/readyz")
            return response.status_code, response.json()["checks"]

        well = {"store": "ok", "broker": "ok", "started": "ok", "draining": "ok"}
        assert await ask() == (503, {**well, "started": "not yet"})
        health.started = True
        assert await ask() == (200, well)
        broken.append("store")
        assert await ask() == (503, {**well, "store": "failed"})
        broken.append("broker")
        assert await ask() == (503, {**well, "store": "failed", "broker": "timed out"})
        broken.clear()
        health.draining = True
        assert await ask() == (503, {**well, "draining": "draining"})


async def test_metrics_count_requests_without_their_paths(client: Client) -> None:
    await client.get("/fail/found?grant=abc")
    await client.request("BREW", "/pot")
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert 'offhook_http_requests_total{method="GET",status="404"} 1.0' in response.text
    assert 'offhook_http_requests_total{method="other",status="404"} 1.0' in response.text
    assert "grant" not in response.text


async def test_the_request_log_holds_no_query(client: Client) -> None:
    with capture_logs() as logs:
        await client.get("/fail/found?grant=abc")
    (entry,) = (entry for entry in logs if entry["event"] == "request")
    assert (entry["path"], entry["status"], entry["client"]) == ("/fail/found", 404, "127.0.0.1")
    assert "abc" not in json.dumps(entry)


async def test_a_base_path() -> None:
    async with Client(base_path="/off/hook") as client:
        assert (await client.get("/off/hook/healthz")).status_code == 200
        for path in ("/healthz", "/off/hook", "/off/hook/healthz/", "/off/hook/nowhere"):
            expect_error(await client.get(path), 404, "ResourceNotFoundError")
        assert (await client.post("/off/hook/upload", content=b"x" * 900)).status_code == 200


# --- cross-origin ---

PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "grant"}


async def test_public_preflight(client: Client) -> None:
    response = await client.options("/stream", headers={"origin": "https://any.example", **PREFLIGHT})
    headers = response.headers
    assert response.status_code == 204 and not response.content
    assert headers["access-control-allow-origin"] == "*"
    assert headers["access-control-allow-methods"] == "OPTIONS, POST"
    assert {"Grant", "Content-Type", "Accept"} <= set(headers["access-control-allow-headers"].split(", "))
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("which", ERRORS)
async def test_errors_of_public_routes_are_readable(client: Client, which: str) -> None:
    response = await client.get(f"/file/{which}", headers={"origin": "https://any.example"})
    assert response.headers["access-control-allow-origin"] == "*"


async def test_a_wrong_method_and_a_large_body_are_readable(client: Client) -> None:
    for response in (await client.put("/stream"), await client.post("/stream", content=b"x" * 200)):
        assert response.status_code in (405, 413)
        assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["/info", "/info/denied", "/info/bug"])
async def test_credentialed_routes_answer_allowed_origins_by_name(client: Client, path: str) -> None:
    for origin in ("https://app.example", "https://one.apps.example"):
        headers = (await client.get(path, headers={"origin": origin})).headers
        assert headers["access-control-allow-origin"] == origin
        assert headers["access-control-allow-credentials"] == "true"
        assert headers["vary"] == "Origin"


async def test_credentialed_routes_say_nothing_to_others(client: Client) -> None:
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {}):
        for response in (await client.get("/info", headers=headers), await client.options("/info", headers=headers)):
            assert not [name for name in response.headers if name.startswith("access-control")]
            assert response.headers["vary"] == "Origin"


async def test_credentialed_preflight(client: Client) -> None:
    response = await client.options("/info", headers={"origin": "https://app.example", **PREFLIGHT})
    assert response.headers["access-control-allow-origin"] == "https://app.example"
    assert "GET" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("https://app.example", True),
        ("HTTPS://APP.example", True),
        ("http://app.example", False),
        ("https://app.example:444", False),
        ("https://app.example.evil", False),
        ("https://a.b.apps.example", True),
        ("https://apps.example", False),
        ("https://.apps.example", False),
        ("https://evil.example/.apps.example", False),
        ("https://evilapps.example", False),
        ("null", False),
    ],
)
def test_origins(origin: str | None, allowed: bool) -> None:
    assert origin_allowed(origin, ["https://app.example", "https://*.apps.example"]) is allowed
    assert origin_allowed(origin, ["*"])
