"""Subscriptions over REST: made, renewed, ended, and every way in which that is refused."""

from __future__ import annotations

import base64
import hmac
import secrets
import time
from dataclasses import replace

import pytest
from tests.unit.gateways.kandy.conftest import ALICE, BOB, PASSWORD, Kandy, Reply, base, basic, subscribe
from tests.unit.services.support import Outlet

from offhook.codes import EndReason
from offhook.domain.accounts import Application, DuplicatePolicy
from offhook.domain.sessions import Session
from offhook.domain.values import PageRequest
from offhook.gateways.kandy.channels import parse_channel
from offhook.ports import SessionFilter
from offhook.protocols.kandy import hmac_token
from offhook.protocols.kandy.hmac_token import HmacClaims
from offhook.services.applications import ApplicationChanges

PATH = f"{base(ALICE)}/subscription"


async def sessions(kandy: Kandy, name: str = ALICE) -> list[Session]:
    """A user's live sessions, newest first."""
    page = await kandy.core.sessions.list(SessionFilter(user_name=name, live=True), PageRequest())
    return list(page.items)


def refused(reply: Reply, status: int, code: int, wrapper: str = "subscribeResponse") -> str:
    """The reason for a refusal, which must be told in the wrapper and beside it."""
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "application/json"
    part = reply.part(wrapper)
    assert part["statusCode"] == code, reply
    assert (reply.json["statusCode"], reply.json["reason"]) == (part["statusCode"], part["reason"])
    assert None not in reply.json.values()
    return str(part["reason"])


# --- made -------------------------------------------------------------------------------------------------------------


async def test_the_answer_holds_all_that_clients_read(kandy: Kandy) -> None:
    reply = await kandy.post(PATH, subscribe(localization="English_US", useTurn=True), basic(ALICE))
    assert reply.status == 200
    (session,) = await sessions(kandy)
    answer = reply.part("subscribeResponse")
    assert answer["statusCode"] == 0
    assert answer["subscription"] == f"{PATH}/{session.id}"
    params = reply.params
    assert params["service"] == ["call", "Presence", "IM"]
    assert params["expires"] == 3600 and isinstance(params["expires"], int)
    assert params["notificationType"] == "WebSocket"
    channel = str(params["notificationChannel"])
    assert channel.startswith("/websocket/") and "?" not in channel
    assert parse_channel(channel, kandy.core.signer) == session.id
    assert "sessionId" not in params and "clientCorrelator" not in params


async def test_turn_credentials_are_there_unless_they_are_not_wanted(kandy: Kandy) -> None:
    assert "turnCredentials" not in (await kandy.subscribe(ALICE, useTurn=False)).params
    reply = await kandy.subscribe(ALICE)
    turn = reply.params["turnCredentials"]
    assert isinstance(turn, dict)
    expiry, _, name = turn["username"].partition(":")
    assert name == ALICE
    assert abs(int(expiry) - time.time() - 86_400) < 60
    digest = hmac.digest(b"turn-secret", turn["username"].encode(), "sha1")
    assert base64.b64decode(turn["password"]) == digest


async def test_a_service_that_is_not_offered_is_left_out(kandy: Kandy) -> None:
    reply = await kandy.subscribe(ALICE, "IM", "MWI", "call")
    assert reply.part("subscribeResponse")["statusCode"] == 2
    assert reply.params["service"] == ["IM", "call"]


async def test_what_the_client_is_called_is_kept(kandy: Kandy) -> None:
    headers = {**basic(ALICE), "x-cpaas-agent": "link-js-sdk/5.2.0"}
    await kandy.subscribe(ALICE, headers=headers)
    await kandy.subscribe(ALICE, headers={**basic(ALICE), "user-agent": "A\x07" + "b" * 300})
    second, first = await sessions(kandy)
    assert (first.client.protocol, first.client.agent) == ("kandy", "link-js-sdk/5.2.0")
    assert first.client.address == "192.0.2.7" and not first.client.secure
    assert second.client.agent == "A" + "b" * 198


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/rest/version/1/user/alice@example.com/subscription", "/rest/version/1/user/alice@example.com/subscription/"),
        ("/rest/version/v2.0/user/alice%40example.com/subscription/", "/rest/version/v2.0/user/alice%40example.com/"),
    ],
)
async def test_the_path_is_spelled_as_the_client_spells_it(kandy: Kandy, path: str, expected: str) -> None:
    reply = await kandy.post(path, subscribe(), basic(ALICE))
    assert reply.subscription.startswith(expected)
    again = await kandy.put(reply.subscription, subscribe(), basic(ALICE))
    assert again.subscription == reply.subscription


@pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "multipart/form-data", ""])
async def test_the_body_is_json_whatever_its_content_type(kandy: Kandy, content_type: str) -> None:
    headers = {**basic(ALICE), "content-type": content_type}
    assert (await kandy.post(PATH, subscribe(), headers)).status == 200


async def test_a_body_may_come_in_pieces(kandy: Kandy) -> None:
    pieces = [b'{"subscribeRequest":{"ser', b'vice":["IM"]', b"}}"]
    assert (await kandy.post(PATH, pieces, basic(ALICE))).params["service"] == ["IM"]


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "names"),
    [
        (b"", 5, ""),
        (b"no json", 5, ""),
        (b"\xff\xfe", 5, ""),
        (b"[]", 5, ""),
        (b"{}", 5, "subscribeRequest"),
        (b'{"subscribeRequest":{}}', 5, "subscribeRequest.service"),
        (b'{"subscribeRequest":{"service":7}}', 5, "subscribeRequest.service"),
        (b'{"subscribeRequest":{"service":[]}}', 37, "subscribeRequest.service"),
        (b'{"subscribeRequest":{"service":["IM"],"expires":"soon"}}', 37, "subscribeRequest.expires"),
        (b'{"subscribeRequest":{"service":["IM"],"notificationType":"apn"}}', 37, "subscribeRequest.notificationType"),
        (b'{"subscribeRequest":{"service":["MWI"]}}', 37, "service"),
    ],
)
async def test_a_bad_body_is_told(kandy: Kandy, body: bytes, code: int, names: str) -> None:
    assert names in refused(await kandy.post(PATH, body, basic(ALICE)), 400, code)
    assert await sessions(kandy) == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        basic(ALICE, "wrong"),
        {"authorization": "Basic !!!"},
        {"authorization": "Negotiate abc"},
        {"authorization": "Bearer"},
        {"authorization": "Bearer a.b.c"},
        {"x-token": "nonsense"},
        {"x-session": "7.nonsense"},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_bad_credentials_are_refused(kandy: Kandy, headers: dict[str, str], method: str) -> None:
    made = await kandy.subscribe(ALICE)
    path = PATH if method == "POST" else made.subscription
    refused(await kandy.request(method, path, subscribe(), headers), 401, 4)
    assert len(await sessions(kandy)) == 1


async def test_an_unknown_user_looks_like_a_wrong_password(kandy: Kandy) -> None:
    known = await kandy.post(PATH, subscribe(), basic(ALICE, "wrong"))
    nobody = "nobody@example.com"
    unknown = await kandy.post(f"{base(nobody)}/subscription", subscribe(), basic(nobody, "wrong"))
    assert known.json == unknown.json


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_somebody_elses_password_tells_nothing_of_a_user(kandy: Kandy, method: str) -> None:
    tail = "" if method == "POST" else "/1"
    path, nowhere = f"{base(BOB)}/subscription{tail}", f"{base('nobody@example.com')}/subscription{tail}"
    known = await kandy.request(method, path, subscribe(), basic(ALICE))
    unknown = await kandy.request(method, nowhere, subscribe(), basic(ALICE))
    refused(known, 401, 4)
    assert (known.status, known.json) == (unknown.status, unknown.json)


async def test_a_disabled_user_is_refused(kandy: Kandy, application: Application) -> None:
    await kandy.core.users.set_enabled(application, ALICE, False)
    reply = await kandy.post(PATH, subscribe(), basic(ALICE))
    assert (reply.status, reply.part("subscribeResponse")["statusCode"]) in {(401, 4), (403, 62)}


async def test_a_disabled_application_is_closed(kandy: Kandy) -> None:
    await kandy.core.applications.change("default", ApplicationChanges(enabled=False))
    refused(await kandy.post(PATH, subscribe(), basic(ALICE)), 401, 4)


async def test_who_guesses_is_locked_out(kandy: Kandy) -> None:
    reply = await kandy.post(PATH, subscribe(), basic(ALICE, "0"))
    for guess in range(30):
        reply = await kandy.post(PATH, subscribe(), basic(ALICE, str(guess)))
        if reply.status != 401:
            break
    refused(reply, 429, 63)
    retry_after = reply.part("subscribeResponse")["retryAfter"]
    assert isinstance(retry_after, int) and retry_after > 0
    assert int(reply.headers["retry-after"]) >= 1


async def connected(kandy: Kandy) -> Session:
    """Makes a subscription and opens its socket: only those that have one are ever too many."""
    await kandy.subscribe(ALICE, forceLogOut="false")
    session = (await sessions(kandy))[0]
    assert await kandy.core.sessions.attach(session.id, session.client, Outlet()) is not None
    return session


async def limit(kandy: Kandy, policy: DuplicatePolicy) -> None:
    """Lets users have one session only."""
    application = await kandy.core.applications.get("default")
    changed = replace(application.sessions, max_sessions=1, duplicates=policy)
    await kandy.core.applications.change("default", ApplicationChanges(sessions=changed))


async def test_one_session_too_many_is_refused(kandy: Kandy) -> None:
    await limit(kandy, DuplicatePolicy.REJECT_NEW)
    first = await connected(kandy)
    refused(await kandy.post(PATH, subscribe(forceLogOut="false"), basic(ALICE)), 403, 19)
    assert [session.id for session in await sessions(kandy)] == [first.id]


async def test_force_logout_ends_the_oldest(kandy: Kandy) -> None:
    await limit(kandy, DuplicatePolicy.REJECT_NEW)
    first = await connected(kandy)
    await kandy.subscribe(ALICE, forceLogOut="true")
    (second,) = await sessions(kandy)
    assert second.id != first.id
    assert (await kandy.core.sessions.show(first.id)).session.end_reason is EndReason.REPLACED


# --- other credentials ------------------------------------------------------------------------------------------------


def hmac_of(kandy: Kandy, application: Application, username: str = ALICE) -> dict[str, str]:
    """The header of a token that the application's back end made."""
    claims = HmacClaims(username, application.domain, int(time.time()), secrets.token_hex(16))
    key = kandy.core.credentials.hmac_key(application)
    return {"x-token": hmac_token.encode(key.encode(), claims)}


async def test_an_hmac_token_is_exchanged_for_a_session(kandy: Kandy, application: Application) -> None:
    made = await kandy.post(PATH, subscribe(), hmac_of(kandy, application))
    session = {"x-session": str(made.params["sessionId"])}
    renewed = await kandy.put(made.subscription, subscribe("IM"), session)
    assert renewed.params["sessionId"] == made.params["sessionId"]
    assert (await kandy.delete(made.subscription, session)).status == 200
    again = await kandy.post(PATH, subscribe(), session)
    assert again.status == 200 and again.params["sessionId"] != made.params["sessionId"]


async def test_an_hmac_token_is_good_once(kandy: Kandy, application: Application) -> None:
    headers = hmac_of(kandy, application)
    assert (await kandy.post(PATH, subscribe(), headers)).status == 200
    refused(await kandy.post(PATH, subscribe(), headers), 401, 4)
    assert len(await sessions(kandy)) == 1


async def test_an_hmac_token_is_good_for_its_user_alone(kandy: Kandy, application: Application) -> None:
    refused(await kandy.post(PATH, subscribe(), hmac_of(kandy, application, BOB)), 401, 4)


async def test_the_access_token_of_a_sign_in(kandy: Kandy) -> None:
    token = await kandy.log_in(ALICE)
    made = await kandy.post(f"{PATH}?token={token}", subscribe())
    assert made.status == 200
    assert (await kandy.put(f"{made.subscription}?token={token}", subscribe())).status == 200
    refused(await kandy.post(f"{base(BOB)}/subscription?token={token}", subscribe()), 401, 4)
    assert (await kandy.delete(f"{made.subscription}?token={token}")).status == 200


async def test_a_good_header_wins_over_a_stale_token(kandy: Kandy) -> None:
    assert (await kandy.post(f"{PATH}?token=stale", subscribe(), basic(ALICE))).status == 200


async def test_the_name_before_the_at_will_do_with_a_password(kandy: Kandy) -> None:
    assert (await kandy.post(PATH, subscribe(), basic("alice"))).status == 200


# --- renewed ----------------------------------------------------------------------------------------------------------


async def test_a_renewal_is_answered_as_completely(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    renewed = await kandy.put(made.subscription, subscribe("IM", expires=600), basic(ALICE))
    assert renewed.status == 200
    assert renewed.part("subscribeResponse")["statusCode"] == 0
    assert renewed.params["service"] == ["IM"] and renewed.params["expires"] == 600
    assert renewed.subscription == made.subscription
    assert renewed.params["notificationChannel"] == made.params["notificationChannel"]
    assert "turnCredentials" in renewed.params
    assert len(await sessions(kandy)) == 1


async def test_a_renewal_by_correlator(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE, clientCorrelator="my-tab")
    assert made.params["clientCorrelator"] == "my-tab"
    path = f"/rest/version/v2.0/user/{ALICE}/subscription/clientCorrelator/my-tab"
    renewed = await kandy.put(path, subscribe(clientCorrelator="my-tab"), basic(ALICE))
    assert renewed.params["clientCorrelator"] == "my-tab"
    assert (
        renewed.subscription == f"/rest/version/v2.0/user/{ALICE}/subscription/{made.subscription.rpartition('/')[2]}"
    )
    assert (await kandy.delete(path, basic(ALICE))).json == {"subscribeResponse": {"statusCode": 0}}
    assert await sessions(kandy) == []


async def test_a_correlator_that_fits_no_path_is_not_told(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE, clientCorrelator="a/b?c")
    assert "clientCorrelator" not in made.params
    assert (await kandy.put(made.subscription, subscribe(), basic(ALICE))).status == 200


@pytest.mark.parametrize("name", ["999999", "s-81f2", "0", "9" * 40, "-1", "%C2%B2"])
async def test_who_renews_what_is_gone_is_told_so(kandy: Kandy, name: str) -> None:
    refused(await kandy.put(f"{PATH}/{name}", subscribe(), basic(ALICE)), 404, 39)


@pytest.mark.parametrize("agent", [{}, {"x-cpaas-agent": "uc-js-sdk/5.2.0"}])
async def test_uc_is_told_so_by_another_number(kandy: Kandy, agent: dict[str, str]) -> None:
    token = await kandy.log_in(ALICE)
    refused(await kandy.put(f"{PATH}/999999?token={token}", subscribe(), agent), 404, 4)


async def test_a_link_client_with_a_token_in_the_query_is_no_uc(kandy: Kandy) -> None:
    token = await kandy.log_in(ALICE)
    headers = {"x-cpaas-agent": "link-js-sdk/4.41.2"}
    refused(await kandy.put(f"{PATH}/999999?token={token}", subscribe(), headers), 404, 39)


async def test_somebody_elses_subscription_is_unknown(kandy: Kandy) -> None:
    name = (await kandy.subscribe(BOB)).subscription.rpartition("/")[2]
    refused(await kandy.put(f"{PATH}/{name}", subscribe(), basic(ALICE)), 404, 39)
    reply = await kandy.delete(f"{PATH}/{name}", basic(ALICE))
    assert reply.json == {"subscribeResponse": {"statusCode": 0}}
    assert len(await sessions(kandy, BOB)) == 1


# --- ended ------------------------------------------------------------------------------------------------------------


async def test_the_end_is_always_good(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    for path in (
        made.subscription,
        made.subscription,
        f"{PATH}/999999",
        f"{PATH}/nonsense",
        f"{PATH}/clientCorrelator/x",
    ):
        reply = await kandy.delete(path, basic(ALICE))
        assert (reply.status, reply.json) == (200, {"subscribeResponse": {"statusCode": 0}})
    assert await sessions(kandy) == []


async def test_what_has_ended_cannot_be_renewed(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    await kandy.delete(made.subscription, basic(ALICE))
    refused(await kandy.put(made.subscription, subscribe(), basic(ALICE)), 404, 39)


async def test_after_a_password_change_the_old_one_ends_nothing(kandy: Kandy, application: Application) -> None:
    await kandy.core.users.set_password(application, ALICE, "another one")
    made = await kandy.subscribe(ALICE, headers=basic(ALICE, "another one"))
    refused(await kandy.delete(made.subscription, basic(ALICE, PASSWORD)), 401, 4)
    assert len(await sessions(kandy)) == 1
