"""What all answers have in common, and what never reaches a resource."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from structlog.testing import capture_logs
from tests.unit.gateways.kandy.conftest import ALICE, BOB, ORIGIN, Kandy, Reply, base, basic, subscribe
from tests.unit.gateways.kandy.test_subscription import refused

from offhook.domain.limits import Rate

PATH = f"{base(ALICE)}/subscription"
UNOFFERED = [
    ("GET", "directory?criteria=bo&criteriaType=3", "directory"),
    ("GET", "addressbook", "addressBookResponse"),
    ("POST", "addressbook/contacts/", "addressBookResponse"),
    ("DELETE", "addressbook/contacts/bob", "addressBookResponse"),
    ("POST", "callControl/", "callControlResponse"),
    ("PUT", "callControl/callSessions/a1", "callControlResponse"),
    ("POST", "calldisposition", "callDispositionResponse"),
    ("GET", "logHistory", "logHistory"),
    ("DELETE", "logHistory", "logRecord"),
    ("DELETE", "logRecord/7", "logRecord"),
    ("GET", "voicemail", "mwiresponse"),
    ("POST", "eventSubscription", "eventSubscriptionResponse"),
    ("POST", "clicktocall", "clickToCallResponse"),
    ("POST", "push/apple/devices/", "appleDeviceRegistrationResponse"),
]


def readable(reply: Reply) -> None:
    """What every answer must have, so that a page of another origin can read it."""
    headers = reply.headers
    assert headers["access-control-allow-origin"] == ORIGIN
    assert headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "Retry-After"
    assert headers["vary"] == "Origin"
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    assert int(headers["content-length"]) == len(reply.body)
    assert reply.json


# --- CORS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [PATH, f"{PATH}/7", "/v2.0/auth/mk_token", "/rest/nonsense", "/v2.0/", "/rest/%ff"])
async def test_a_preflight_is_answered_on_every_path(kandy: Kandy, path: str) -> None:
    draining = kandy.using(draining=lambda: True)
    for server in (kandy, draining):
        reply = await server.request("OPTIONS", path, None, {"access-control-request-method": "PUT"})
        assert (reply.status, reply.body) == (204, b"")
        assert reply.headers["access-control-allow-origin"] == ORIGIN
        assert reply.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS"
        assert reply.headers["access-control-max-age"] == "600"
        allowed = reply.headers["access-control-allow-headers"].split(", ")
        asked = {"authorization", "content-type", "accept", "x-cpaas-agent", "x-token", "x-session", "x-requested-with"}
        assert asked <= set(allowed)


async def test_every_answer_can_be_read_by_the_page(kandy: Kandy) -> None:
    flooded = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 1)))
    await flooded.get(f"{base(ALICE)}/directory")
    replies = [
        (200, await kandy.post(PATH, subscribe(), basic(ALICE))),
        (400, await kandy.post(PATH, b"", basic(ALICE))),
        (401, await kandy.post(PATH, subscribe())),
        (403, await kandy.get(f"{base(ALICE)}/directory", basic(ALICE))),
        (404, await kandy.get("/rest/version/1/nowhere")),
        (405, await kandy.get(PATH)),
        (413, await kandy.post(PATH, b" " * 5000, basic(ALICE))),
        (429, await flooded.get(f"{base(ALICE)}/directory")),
        (500, await kandy.using(subscriptions=None).post(PATH, subscribe(), basic(ALICE))),
        (503, await kandy.using(draining=lambda: True).post(PATH, subscribe(), basic(ALICE))),
    ]
    for status, reply in replies:
        assert reply.status == status, reply
        readable(reply)


async def test_pages_of_other_origins_cannot_read_it(kandy: Kandy) -> None:
    strict = replace(kandy, origins=("https://other.example.test",))
    for reply in (await strict.get("/rest/nowhere"), await strict.request("OPTIONS", PATH)):
        assert reply.headers["vary"] == "Origin"
        assert not [name for name in reply.headers if name.startswith("access-control")]


# --- paths and methods ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/rest/",
        "/rest/version/1/user//subscription",
        f"{base(ALICE)}/Subscription",
        "/rest/version/1/user/%ff/presence",
    ],
)
async def test_an_unknown_path_is_told_in_json(kandy: Kandy, path: str) -> None:
    refused(await kandy.post(path, b"{}"), 404, 42, "errorResponse")


async def test_a_path_that_is_no_text(kandy: Kandy) -> None:
    refused(await kandy.post("/rest/version/1/user/\xff/presence", b"{}"), 404, 42, "errorResponse")


async def test_an_unknown_path_of_uc_is_told_in_its_form(kandy: Kandy) -> None:
    reply = await kandy.get("/v2.0/auth/nonsense")
    assert (reply.status, reply.part("error")["code"]) == (404, 42)
    assert reply.part("error")["human"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PATH, "POST, OPTIONS"),
        ("HEAD", PATH, "POST, OPTIONS"),
        ("PATCH", PATH, "POST, OPTIONS"),
        ("BREW", PATH, "POST, OPTIONS"),
        ("GET", f"{PATH}/7", "PUT, DELETE, OPTIONS"),
        ("HEAD", f"{base(ALICE)}/userProfileData", "GET, OPTIONS"),
    ],
)
async def test_a_method_that_is_not_known(kandy: Kandy, method: str, path: str, allowed: str) -> None:
    reply = await kandy.request(method, path)
    wrapper = "userProfileData" if "Profile" in path else "subscribeResponse"
    refused(reply, 405, 1004, wrapper)
    assert reply.headers["allow"] == allowed


async def test_a_method_that_uc_does_not_know(kandy: Kandy) -> None:
    reply = await kandy.post("/v2.0/rm/send", b"{}")
    assert reply.part("error")["code"] == 1004
    assert reply.headers["allow"] == "GET, OPTIONS"


async def test_below_a_base_path(kandy: Kandy) -> None:
    below = replace(kandy, base_path="/offhook")
    reply = await below.post(f"/offhook{PATH}", subscribe(), basic(ALICE))
    assert reply.status == 200
    assert reply.subscription.startswith(f"{PATH}/")
    refused(await below.post(f"/%6Fffhook{PATH}", subscribe(), basic(ALICE)), 404, 42, "errorResponse")


@pytest.mark.parametrize(("method", "tail", "wrapper"), UNOFFERED)
async def test_what_is_not_offered_is_refused_in_its_form(kandy: Kandy, method: str, tail: str, wrapper: str) -> None:
    path = f"{base(ALICE)}/{tail}"
    assert "not offered" in refused(await kandy.request(method, path, b"{}", basic(ALICE)), 403, 35, wrapper)
    refused(await kandy.request(method, path, b"{}"), 401, 4, wrapper)
    refused(await kandy.request(method, path, b"{}", basic(BOB)), 401, 4, wrapper)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b" " * 4097, [b" " * 4000, b" " * 97], b" " * 9000, [b" " * 4096, b" " * 4096, b" "]])
async def test_a_body_has_a_limit(kandy: Kandy, body: bytes | list[bytes]) -> None:
    reply = await kandy.post(PATH, body, basic(ALICE))
    refused(reply, 413, 37)
    announced = {**basic(ALICE), "content-length": "20000000"}
    refused(await kandy.post(PATH, subscribe(), announced), 413, 37)


async def test_a_flood_is_stopped_for_its_user_and_address(kandy: Kandy) -> None:
    server = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 2)))
    path, other = f"{base(ALICE)}/directory", f"{base(BOB)}/directory"
    for _ in range(2):
        refused(await server.get(path, basic(ALICE)), 403, 35, "directory")
    reply = await server.get(path, basic(ALICE))
    refused(reply, 429, 1004, "directory")
    assert int(reply.headers["retry-after"]) > 1
    refused(await server.get(other, basic(BOB)), 403, 35, "directory")


async def test_a_stranger_does_not_spend_what_is_the_users(kandy: Kandy) -> None:
    await kandy.subscribe(ALICE)
    server = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 2)))
    path = f"{base(ALICE)}/userProfileData"
    statuses = [(await server.get(path)).status for _ in range(3)]
    assert statuses == [401, 401, 429]
    assert (await server.get(path, basic(ALICE))).status == 200


async def test_another_token_each_time_does_not_help(kandy: Kandy) -> None:
    tokens = [await kandy.log_in(ALICE) for _ in range(3)]
    server = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 2)))
    replies = [await server.get("/v2.0/rm/threads", token=token) for token in tokens]
    assert ["error" in reply.json for reply in replies] == [False, False, True]


async def test_many_watched_are_many_requests(kandy: Kandy) -> None:
    await kandy.subscribe(ALICE)
    server = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 3)))
    names = [f"user{number}@example.com" for number in range(150)]
    body = {"presenceWatcherRequest": {"userList": names, "action": "watch"}}
    path = f"{base(ALICE)}/presenceWatcher"
    statuses = [(await server.post(path, body, basic(ALICE))).status for _ in range(2)]
    assert statuses == [200, 429]


async def test_a_flood_of_one_uc_client_is_its_own(kandy: Kandy) -> None:
    alice, bob = await kandy.log_in(ALICE), await kandy.log_in(BOB)
    server = kandy.using(limits=replace(kandy.gateway.limits, requests=Rate(0.001, 1)))
    assert (await server.get("/v2.0/rm/threads", token=alice)).json == {"success": []}
    reply = await server.get("/v2.0/rm/threads", token=alice)
    assert (reply.status, reply.part("error")["code"]) == (200, 1004)
    assert (await server.get("/v2.0/rm/threads", token=bob)).json == {"success": []}


async def test_a_query_has_a_limit(kandy: Kandy) -> None:
    many = "&".join(f"a{number}=1" for number in range(100))
    refused(await kandy.post(f"{PATH}?{many}", subscribe(), basic(ALICE)), 400, 37)
    refused(await kandy.post(f"{PATH}?token=%ff", subscribe(), basic(ALICE)), 400, 37)


# --- the server's own troubles ----------------------------------------------------------------------------------------


async def test_while_the_server_goes_away_clients_are_to_come_back(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    server = kandy.using(draining=lambda: True)
    reply = await server.post(PATH, subscribe(), basic(ALICE))
    refused(reply, 503, 26)
    assert reply.headers["retry-after"] == "5"
    assert reply.part("subscribeResponse")["retryAfter"] == 5000
    refused(await server.put(made.subscription, subscribe(), basic(ALICE)), 503, 26)
    # Elsewhere clients replace the body of a 503 by one that they then cannot read.
    message = await server.post(f"{base(ALICE)}/instantmessage", b"{}", basic(ALICE))
    refused(message, 500, 26, "imResponse")
    assert message.headers["retry-after"] == "5"
    uc = await server.get("/v2.0/rm/threads")
    assert (uc.status, uc.part("error")["code"]) == (200, 26)
    assert (await server.get("/v2.0/auth/mk_token", basic(ALICE))).status == 500


async def test_who_goes_may_go_while_the_server_does(kandy: Kandy) -> None:
    made = await kandy.subscribe(ALICE)
    server = kandy.using(draining=lambda: True)
    assert (await server.delete(made.subscription, basic(ALICE))).json == {"subscribeResponse": {"statusCode": 0}}


async def test_a_store_that_is_away_is_told(kandy: Kandy) -> None:
    await kandy.core.store.close()
    reply = await kandy.post(PATH, subscribe(), basic(ALICE))
    refused(reply, 503, 26)
    assert "retry-after" in reply.headers


async def test_a_defect_tells_nothing_and_is_logged_once(kandy: Kandy) -> None:
    broken = kandy.using(credentials=None)
    with capture_logs() as logs:
        reply = await broken.get(f"{base(ALICE)}/userProfileData", basic(ALICE))
    reason = refused(reply, 500, 26, "userProfileData")
    assert "NoneType" not in reason and "identify" not in reason
    assert len([entry for entry in logs if entry["log_level"] == "error"]) == 1
    assert kandy.core.metrics.errors.value("internal") == 1


async def test_refusals_are_counted(kandy: Kandy) -> None:
    await kandy.post(PATH, subscribe())
    await kandy.post("/rest/nowhere")
    assert kandy.core.metrics.errors.value("credentials_refused") == 1
    assert kandy.core.metrics.errors.value("no_such_path") == 1


async def test_a_client_that_goes_away_gets_no_answer(kandy: Kandy) -> None:
    assert await kandy.abandoned("POST", PATH, b'{"subscr', basic(ALICE)) == []


async def test_what_a_client_asked_for_is_done_although_others_ask(kandy: Kandy) -> None:
    replies = await asyncio.gather(*(kandy.post(PATH, subscribe(), basic(ALICE)) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.subscription for reply in replies}) == 20
