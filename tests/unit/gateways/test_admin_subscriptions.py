"""Kandy's subscriptions, as operators see and end them: on a real server, with real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.served import WAIT, Site, served
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from offhook.codes import EndReason

ALICE, BOB, PASSWORD = "alice@example.com", "bob@example.com", "correct horse"
AGENT = "link-js-sdk/5.2.0"


class Line(msgspec.Struct, frozen=True):
    """A line of a session's story."""

    kind: str
    reason: str | None
    text: str


class Terms(msgspec.Struct, frozen=True):
    """What a session has beyond that as a subscription."""

    product: str
    services: list[str]
    lifetime: float
    localization: str
    correlator: str | None
    watched: int


class Shown(msgspec.Struct, frozen=True):
    """A session as operators see it."""

    id: int
    user: str
    protocol: str
    state: str
    client: str
    end_reason: str | None
    expires_at: str | None
    subscription: Terms | None
    story: list[Line] = []
    explanation: str = ""


class _List(msgspec.Struct):
    sessions: list[Shown]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path / "data") as site:
        application = await site.core.applications.get("default")
        await site.core.users.create(application, ALICE, password=PASSWORD)
        yield site


async def subscribe(site: Site, *services: str, **more: object) -> str:
    """Makes a subscription of alice's; returns the path of its notification channel."""
    asked = {"expires": 3600, "service": list(services), **more}
    answer = await site.http.post(
        f"{site.url}/rest/version/1/user/{ALICE}/subscription",
        json={"subscribeRequest": asked},
        auth=httpx.BasicAuth(ALICE, PASSWORD),
        headers={"X-Cpaas-Agent": AGENT},
    )
    assert answer.status_code == 200, answer.text
    return str(answer.json()["subscribeResponse"]["subscriptionParams"]["notificationChannel"])


@contextlib.asynccontextmanager
async def socket_of(site: Site, channel: str) -> AsyncIterator[ClientConnection]:
    async with connect(site.websocket(channel, ""), compression=None, proxy=None, close_timeout=1) as socket:
        yield socket


async def ask(site: Site, method: str, path: str, body: object = None) -> httpx.Response:
    answer = await site.http.request(
        method, f"{site.url}/admin/v1/{path}", json=body, headers={"Authorization": f"Bearer {site.admin_token}"}
    )
    assert answer.status_code == 200, answer.text
    return answer


async def sessions(site: Site) -> list[Shown]:
    return msgspec.json.decode((await ask(site, "GET", "sessions")).content, type=_List).sessions


async def shown(site: Site, session_id: int, state: str) -> Shown:
    """A session, once it is in this state."""
    async with asyncio.timeout(WAIT):
        while True:
            answer = await ask(site, "GET", f"sessions/{session_id}")
            session = msgspec.json.decode(answer.content, type=Shown)
            if session.state == state:
                return session
            await asyncio.sleep(0.01)


async def test_a_subscription_is_shown_with_its_terms(site: Site) -> None:
    await subscribe(site, "call", "Presence", "nonsense", clientCorrelator="tablet", localization="Deutsch")
    (listed,) = await sessions(site)
    session = await shown(site, listed.id, "starting")
    assert (session.user, session.protocol, session.client) == (ALICE, "kandy", AGENT)
    assert session.subscription == listed.subscription
    assert session.subscription == Terms("link", ["call", "Presence"], 3600.0, "Deutsch", "tablet", 0)
    assert session.expires_at is not None and session.expires_at == listed.expires_at
    assert session.explanation == "The session waits for its client's first connection."


async def test_sessions_of_other_kinds_have_no_terms(site: Site) -> None:
    async with site.client("joe"):
        (listed,) = await sessions(site)
    assert (listed.protocol, listed.subscription, listed.expires_at) == ("chatkitty", None, None)


async def test_a_subscription_tells_its_story(site: Site) -> None:
    channel = await subscribe(site, "Presence")
    (listed,) = await sessions(site)
    async with socket_of(site, channel):
        session = await shown(site, listed.id, "active")
        assert session.explanation == "The session is connected and never was interrupted."
    await shown(site, listed.id, "suspended")
    async with socket_of(site, channel):
        session = await shown(site, listed.id, "active")
    session = await shown(site, listed.id, "suspended")
    assert [line.kind for line in session.story] == ["started", "connected", "suspended", "resumed", "suspended"]
    assert session.story[1].text.startswith("The client opened its notification socket from 127.0.0.1")
    await site.core.sessions.end(listed.id, EndReason.NOT_RENEWED)
    session = await shown(site, listed.id, "ended")
    assert session.explanation.startswith("The subscription was not renewed in time (ended at ")
    assert " Before that: The client closed the connection without ending its session at " in session.explanation


async def test_an_operators_words_reach_the_client_and_the_story(site: Site) -> None:
    channel = await subscribe(site, "call", "Presence", "IM")
    (listed,) = await sessions(site)
    async with socket_of(site, channel) as socket:
        await shown(site, listed.id, "active")
        await ask(site, "POST", f"sessions/{listed.id}/end", {"text": "Maintenance tonight"})
        async with asyncio.timeout(WAIT):
            said = msgspec.json.decode(await socket.recv(decode=False), type=dict[str, dict[str, object]])
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
    assert said["notificationMessage"]["eventType"] == "gone"
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1000, "Maintenance tonight")
    session = await shown(site, listed.id, "ended")
    assert session.end_reason == "operator"
    assert session.explanation.endswith("They said: Maintenance tonight")


async def test_all_of_a_user_are_ended_whatever_they_are_of(site: Site) -> None:
    await subscribe(site, "IM")
    async with site.client(ALICE, **{"StompX-Auth-Params": f'{{"password": "{PASSWORD}"}}'}):
        answer = await ask(site, "POST", "sessions/end", {"application": "default", "user": ALICE})
    assert answer.json() == {"ended": 2}


async def test_the_turn_servers_secret_is_the_one_that_credentials_are_made_with(site: Site) -> None:
    answer = (await ask(site, "GET", "turn")).json()
    assert answer == {"secret": site.core.signer.derive("turn", ""), "derived": True, "lifetime": 86400.0}
