"""Callers without an account."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.unit.gateways.kandy.conftest import ALICE, Kandy, Reply, basic, subscribe
from tests.unit.gateways.kandy.test_subscription import refused

from offhook.domain.limits import Rate
from offhook.domain.sessions import SessionState
from offhook.domain.values import PageRequest
from offhook.gateways.kandy.channels import parse_channel
from offhook.ports import SessionFilter
from offhook.services.applications import ApplicationChanges
from offhook.services.subscriptions import MAX_ANONYMOUS_AT

ROOT = f"/rest/version/1/anonymous/{ALICE}"
PATH = f"{ROOT}/subscription"
ENDED = {"subscribeResponse": {"statusCode": 0}}


async def call_me(kandy: Kandy, path: str = PATH) -> Reply:
    """Subscribes as a caller without an account, which must succeed."""
    reply = await kandy.post(path, subscribe("callMe", forceLogOut="false"))
    assert reply.status == 200, reply
    return reply


async def live(kandy: Kandy) -> int:
    """How many sessions there are."""
    return (await kandy.core.sessions.list(SessionFilter(live=True), PageRequest())).total


@pytest.mark.parametrize("account", [ALICE, f"sip:{ALICE}", "alice%40example.com"])
async def test_a_caller_subscribes_and_goes(kandy: Kandy, account: str) -> None:
    made = await call_me(kandy, f"/rest/version/1/anonymous/{account}/subscription")
    channel = str(made.params["notificationChannel"])
    session_id = parse_channel(channel, kandy.core.signer)
    assert session_id is not None
    assert made.params["service"] == ["callMe"]
    assert made.part("subscribeResponse")["statusCode"] == 0
    assert "turnCredentials" in made.params
    root, _, name = made.subscription.rpartition("/")
    assert root == f"/rest/version/1/anonymous/{account}/subscription"
    assert channel == f"/websocket/{name}"
    reply = await kandy.delete(made.subscription)
    assert (reply.status, reply.json) == (200, ENDED)
    assert (await kandy.core.sessions.show(session_id)).session.state is SessionState.ENDED
    assert (await kandy.delete(made.subscription)).json == ENDED


async def test_turn_credentials_live_as_long_as_the_subscription(kandy: Kandy) -> None:
    made = await call_me(kandy)
    turn = made.params["turnCredentials"]
    assert isinstance(turn, dict)
    assert abs(int(turn["username"].partition(":")[0]) - time.time() - float(str(made.params["expires"]))) < 60


async def test_one_address_has_few_callers(kandy: Kandy) -> None:
    for _ in range(MAX_ANONYMOUS_AT):
        await call_me(kandy)
    assert (await kandy.post(PATH, subscribe("callMe"))).status == 403
    await call_me(replace(kandy, address="198.51.100.1"))


async def test_who_is_there_to_call_is_not_to_be_guessed(kandy: Kandy) -> None:
    server = kandy.using(limits=replace(kandy.gateway.limits, guesses=Rate(0.001, 2)))
    unknown = [f"/rest/version/1/anonymous/{name}/subscription" for name in ("no@example.com", "no@example.org")]
    user, domain = [await server.post(path, subscribe("callMe")) for path in unknown]
    assert (user.status, user.json) == (domain.status, domain.json) and user.status == 404
    assert (await server.post(PATH, subscribe("callMe"))).status == 429


async def test_a_subscription_is_not_renewed_where_guests_are_no_more(kandy: Kandy) -> None:
    made = await call_me(kandy)
    changed = await kandy.core.applications.change("default", ApplicationChanges(guests=False))
    kandy.core.applications.forget(changed.id)
    refused(await kandy.put(made.subscription, subscribe("callMe")), 403, 27)


async def test_a_long_call_renews_its_subscription(kandy: Kandy) -> None:
    made = await call_me(kandy)
    renewed = await kandy.put(made.subscription, subscribe("callMe", expires=600))
    assert renewed.status == 200
    assert renewed.subscription == made.subscription
    assert renewed.params["notificationChannel"] == made.params["notificationChannel"]
    assert renewed.params["expires"] == 600 and renewed.params["service"] == ["callMe"]
    refused(await kandy.put(made.subscription, subscribe("IM")), 400, 37)
    await kandy.delete(made.subscription)
    refused(await kandy.put(made.subscription, subscribe("callMe")), 404, 39)


async def test_what_cannot_be_renewed_that_way(kandy: Kandy) -> None:
    users = str((await kandy.subscribe(ALICE)).params["notificationChannel"]).removeprefix("/websocket/")
    for name in (users, "7", "7.AAAAAAAAAAAAAAAAAAAAAA"):
        refused(await kandy.put(f"{PATH}/{name}", subscribe("callMe")), 404, 39)


async def test_nobody_can_guess_a_subscription(kandy: Kandy) -> None:
    made = await call_me(kandy)
    session_id = made.subscription.rpartition("/")[2].partition(".")[0]
    for name in (session_id, f"{session_id}.AAAAAAAAAAAAAAAAAAAAAA", "x" * 5000, "%C2%B2.x"):
        assert (await kandy.delete(f"{PATH}/{name}")).json == ENDED
    assert await live(kandy) == 1


async def test_a_users_subscription_is_not_ended_that_way(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    name = str(made.params["notificationChannel"]).removeprefix("/websocket/")
    assert (await kandy.delete(f"{PATH}/{name}")).json == ENDED
    assert await live(kandy) == 1


async def test_the_request_log_does_not_tell_the_subscription(kandy: Kandy, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = await call_me(kandy)
    name = made.subscription.rpartition("/")[2]
    with capture_logs() as logs:
        for method in ("GET", "DELETE"):
            for path in (made.subscription, made.subscription + "/"):
                await kandy.request(method, path)
    assert [entry["event"] for entry in logs].count("request") == 4
    assert name not in str(logs)


@pytest.mark.parametrize(
    ("account", "body", "status", "code"),
    [
        (ALICE, b"{}", 400, 5),
        (ALICE, subscribe("call"), 400, 37),
        (ALICE, subscribe("callMe", notificationType="apn"), 400, 37),
        ("nobody@example.com", subscribe("callMe"), 404, 42),
        ("T+o=/x", subscribe("callMe"), 404, 42),
    ],
)
async def test_a_caller_who_is_refused(
    kandy: Kandy, account: str, body: bytes | dict[str, object], status: int, code: int
) -> None:
    refused(await kandy.post(f"/rest/version/1/anonymous/{account}/subscription", body), status, code)


async def test_where_there_are_no_guests_there_are_no_callers(kandy: Kandy) -> None:
    await kandy.core.applications.change("default", ApplicationChanges(guests=False))
    refused(await kandy.post(PATH, subscribe("callMe")), 403, 27)


async def test_tokens_are_of_no_known_realm(kandy: Kandy) -> None:
    path = "/rest/version/1/anonymous/AC/T+o="
    refused(await kandy.post(f"{path}/subscription?tokenrealm=R", subscribe("callMe")), 403, 64)
    refused(await kandy.post(f"{path}/callMe?tokenrealm=R", b"{}"), 403, 64, "callControlResponse")
    assert await live(kandy) == 0


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("POST", "callMe"),
        ("PUT", "callMe/callSessions/a1"),
        ("DELETE", "callMe/callSessions/a1"),
        ("GET", "callMe/callSessions/a1"),
    ],
)
async def test_calls_are_not_offered(kandy: Kandy, method: str, tail: str) -> None:
    refused(await kandy.request(method, f"{ROOT}/{tail}", b"{}"), 403, 35, "callControlResponse")


async def test_credentials_make_no_difference(kandy: Kandy) -> None:
    made = await kandy.post(PATH, subscribe("callMe"), basic(ALICE, "wrong"))
    assert made.status == 200
