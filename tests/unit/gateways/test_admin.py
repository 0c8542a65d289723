"""The admin API, on real services and a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import quote

import httpx
import pytest
from starlette.applications import Starlette

from offhook.codes import CloseReason, EndReason
from offhook.core import Core, open_core
from offhook.domain.sessions import Client
from offhook.gateways.admin import AdminCore, admin_routes, ensure_token, read_token
from offhook.gateways.admin.fields import MAX_BODY
from offhook.ports import Publication
from offhook.services.hub import LiveSession
from offhook.settings import Settings

TOKEN = "the-admin-token-of-these-tests"
CLIENT = Client("chatkitty", "ChatKitty-JS-Core/1.3.5", "192.0.2.7")
WAITS = {"socket_wait": 5, "socket_grace": 0}


@dataclass
class RecordingOutlet:
    """A connection that keeps what it is told."""

    ends: list[tuple[EndReason, str]] = field(default_factory=list)

    def deliver(self, publication: Publication) -> None:
        """Events do not matter here."""

    async def ready(self) -> None:
        """Everything is taken at once."""

    def ended(self, reason: EndReason, text: str) -> None:
        self.ends.append((reason, text))

    def drop(self, reason: CloseReason) -> None:
        """Nobody supersedes anybody here."""

    def gap(self) -> None:
        raise AssertionError("nothing is lost here")

    def changed(self) -> None:
        """Nobody subscribes here."""

    def saved(self, proof: int) -> None:
        """Nobody proves anything here."""


@pytest.fixture
async def core(tmp_path: Path) -> AsyncIterator[Core]:
    async with open_core(Settings(data_dir=tmp_path / "data")) as core:
        yield core


@pytest.fixture
async def http(core: Core) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=admin_routes(core, TOKEN))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app),
        base_url="http://offhook/admin/v1",
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as client:
        yield client


@pytest.fixture
async def shop(http: httpx.AsyncClient) -> dict[str, object]:
    response = await http.post("applications", json={"name": "shop"})
    assert response.status_code == 201
    body: dict[str, object] = response.json()
    return body


async def start(core: Core, user: str, application: str = "shop") -> tuple[LiveSession, RecordingOutlet]:
    outlet = RecordingOutlet()
    live = await core.sessions.start(await core.applications.get(application), user, {}, CLIENT, outlet)
    return live, outlet


def names(items: Sequence[dict[str, object]]) -> list[object]:
    return [item["name"] for item in items]


# --- the door -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [None, "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer ü"])
async def test_nobody_comes_in_without_the_token(http: httpx.AsyncClient, header: str | None) -> None:
    headers = {} if header is None else {b"Authorization": header.encode()}
    if header is None:
        del http.headers["Authorization"]
    response = await http.get("applications", headers=headers)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["error"] == "unauthenticated"


async def test_guessing_is_slowed_down_but_the_right_token_still_works(http: httpx.AsyncClient) -> None:
    statuses = [
        (await http.get("applications", headers={"Authorization": f"Bearer {n}"})).status_code for n in range(30)
    ]
    assert statuses[:20] == [401] * 20
    assert statuses[-1] == 429
    last = await http.get("applications", headers={"Authorization": "Bearer no"})
    assert last.json()["error"] == "rate_limited"
    assert int(last.headers["Retry-After"]) >= 1
    assert (await http.get("applications")).status_code == 200


WRONG_REQUESTS = [
    ("GET", "nothing", 404, "not_found"),
    ("GET", "applications/", 404, "not_found"),
    ("PUT", "applications", 405, "method_not_allowed"),
    ("GET", "applications/none", 404, "not_found"),
    ("PATCH", "applications/none", 404, "not_found"),
    ("DELETE", "applications/none", 404, "not_found"),
    ("POST", "applications/none/rotate-key", 404, "not_found"),
    ("GET", "applications/none/users", 404, "not_found"),
    ("GET", "applications/shop/users/none", 404, "not_found"),
    ("DELETE", "applications/shop/users/none", 404, "not_found"),
    ("GET", "sessions/1", 404, "not_found"),
    ("GET", "sessions/one", 404, "not_found"),
    ("GET", f"sessions/{2**70}", 404, "not_found"),
    ("POST", "sessions/1/end", 404, "not_found"),
    ("GET", "sessions?application=none", 404, "not_found"),
    ("GET", "sessions?state=asleep", 400, "invalid_input"),
    ("GET", "sessions?page=-1", 400, "invalid_input"),
    ("GET", "sessions?size=501", 400, "invalid_input"),
    ("GET", "sessions?size=5&size=6", 400, "invalid_input"),
    ("GET", "sessions?usr=jane", 400, "invalid_input"),
    ("GET", "applications/shop/users?online=perhaps", 400, "invalid_input"),
]


async def test_what_is_not_there_or_not_of_its_form(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    for method, path, status, code in WRONG_REQUESTS:
        response = await http.request(method, path, json={} if method == "PATCH" else None)
        assert (response.status_code, response.json()["error"]) == (status, code), path
        assert response.json()["message"] and response.json()["timestamp"].endswith("Z")


WRONG_BODIES = [b"", b"{", b"[]", b'"x"', b"\xff", b'{"guests": NaN}', b"[" * 5000]


async def test_a_body_that_is_no_json_object(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    for body in WRONG_BODIES:
        response = await http.patch("applications/shop", content=body)
        assert (response.status_code, response.json()["error"]) == (400, "invalid_input"), body


async def test_a_body_that_is_too_large(http: httpx.AsyncClient) -> None:
    response = await http.post("applications", content=b" " * (MAX_BODY + 1))
    assert (response.status_code, response.json()["error"]) == (413, "too_large")


async def test_a_defect_tells_nothing_of_itself() -> None:
    app = Starlette(routes=admin_routes(cast(AdminCore, object()), TOKEN))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://offhook") as client:
        response = await client.get("/admin/v1/applications", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (response.status_code, response.json()["error"]) == (500, "internal")
    assert "attribute" not in response.text


# --- the token ----------------------------------------------------------------------------------------------------


def test_the_token_is_made_once_and_is_the_owners_alone(tmp_path: Path) -> None:
    assert read_token(tmp_path) is None
    token = ensure_token(tmp_path)
    assert len(token) >= 43
    assert ensure_token(tmp_path) == read_token(tmp_path) == token
    assert (tmp_path / "admin.token").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["admin.token"]


# --- applications -------------------------------------------------------------------------------------------------


async def test_an_application_that_is_made_anew_has_secrets_of_its_own(
    http: httpx.AsyncClient, shop: dict[str, object]
) -> None:
    assert (await http.delete("applications/shop")).status_code < 300
    again = (await http.post("applications", json={"name": "shop"})).json()
    for name in ("client_secret", "webhook_secret", "hmac_key", "api_key"):
        assert again[name] and again[name] != shop[name]


async def test_secrets_are_shown_once(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    application = await core.applications.get("shop")
    assert core.applications.check_secret(application, str(shop["client_secret"]))
    shown = (await http.get("applications/shop")).json()
    assert not {"client_secret", "webhook_secret", "hmac_key"} & set(shown)
    with_secrets = (await http.get("applications/shop?secrets=true")).json()
    assert with_secrets["webhook_secret"] == shop["webhook_secret"] == core.webhook_secret(application)
    assert with_secrets["hmac_key"] == shop["hmac_key"] == core.hmac_key(application)
    assert "client_secret" not in with_secrets
    assert (await http.get("applications")).json() == {"applications": [shown]}


async def test_rotating_changes_key_and_secret(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    rotated = (await http.post("applications/shop/rotate-key")).json()
    assert rotated["api_key"] != shop["api_key"] and rotated["client_secret"] != shop["client_secret"]
    assert rotated["id"] == shop["id"]
    assert (await http.get("applications/shop")).json()["api_key"] == rotated["api_key"]


async def test_an_application_with_everything(http: httpx.AsyncClient) -> None:
    wanted = {
        "name": "all",
        "domain": "all.example",
        "api_key": "my-own-key-1",
        "guests": False,
        "sessions": {"max_sessions": 2, "duplicates": "reject-new", "leave_grace": 0, "resume_window": 60} | WAITS,
        "tokens": {"algorithms": ["HS256"], "secret": "s" * 32, "issuer": "me", "username_claim": "name"},
        "webhook": {"url": "https://shop.example/hook", "timeout": 2},
    }
    made = (await http.post("applications", json=wanted)).json()
    assert made["tokens"] == {
        "algorithms": ["HS256"],
        "has_secret": True,
        "public_key": None,
        "jwks": None,
        "issuer": "me",
        "audience": None,
        "username_claim": "name",
    }
    for name in ("name", "domain", "api_key", "guests", "sessions", "webhook"):
        assert made[name] == wanted[name]
    assert "ssssssss" not in str(made)


async def test_a_change_leaves_the_rest_as_it_is(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    path = "applications/shop"
    await http.patch(path, json={"tokens": {"algorithms": ["HS256"], "secret": "k" * 32, "issuer": "me"}})
    await http.patch(path, json={"webhook": {"url": "http://127.0.0.1:9/hook"}})
    changed = (await http.patch(path, json={"tokens": {"audience": "you"}, "sessions": {"max_sessions": 3}})).json()
    assert changed["tokens"]["issuer"] == "me" and changed["tokens"]["audience"] == "you"
    assert changed["sessions"]["max_sessions"] == 3 and changed["sessions"]["leave_grace"] == 10
    assert changed["webhook"] == {"url": "http://127.0.0.1:9/hook", "timeout": 5}
    policy = (await core.applications.get("shop")).tokens
    assert policy is not None and policy.secret == "k" * 32
    cleared = (await http.patch(path, json={"tokens": {"issuer": None}, "webhook": None})).json()
    assert cleared["tokens"]["issuer"] is None and cleared["webhook"] is None
    assert (await http.patch(path, json={"tokens": None})).json()["tokens"] is None


WRONG_CHANGES: list[tuple[dict[str, object], str]] = [
    ({"gests": True}, "gests"),
    ({"guests": "yes"}, "guests"),
    ({"enabled": 1}, "enabled"),
    ({"name": "other"}, "name"),
    ({"sessions": []}, "sessions"),
    ({"sessions": {"max_sessions": 0}}, "sessions.max_sessions"),
    ({"sessions": {"max_sessions": True}}, "sessions.max_sessions"),
    ({"sessions": {"max_sessions": 1.5}}, "sessions.max_sessions"),
    ({"sessions": {"duplicates": "explode"}}, "sessions.duplicates"),
    ({"sessions": {"leave_grace": -1}}, "sessions.leave_grace"),
    ({"sessions": {"socket_wait": 0}}, "sessions.socket_wait"),
    ({"sessions": {"socket_grace": "long"}}, "sessions.socket_grace"),
    ({"sessions": {"resume_window": "long"}}, "sessions.resume_window"),
    ({"sessions": {"max": 1}}, "sessions.max"),
    ({"tokens": {"algorithms": "HS256"}}, "tokens.algorithms"),
    ({"tokens": {"algorithms": ["HS256"], "secret": 5}}, "tokens.secret"),
    ({"tokens": {"keys": "x"}}, "tokens.keys"),
    ({"webhook": {}}, "webhook.url"),
    ({"webhook": {"url": "ftp://x/"}}, "webhook.url"),
    ({"webhook": {"url": "http://"}}, "webhook.url"),
    ({"webhook": {"url": "http://x:99999/"}}, "webhook.url"),
    ({"webhook": {"url": "http://x/ y"}}, "webhook.url"),
    ({"webhook": {"url": "http://x/", "timeout": 0}}, "webhook.timeout"),
    ({"webhook": {"url": "http://x/", "method": "GET"}}, "webhook.method"),
]


async def test_a_change_that_is_not_of_its_form(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    before = (await http.get("applications/shop")).json()
    for body, field_name in WRONG_CHANGES:
        response = await http.patch("applications/shop", json=body)
        answer = response.json()
        assert (response.status_code, answer["error"], answer["field"]) == (400, "invalid_input", field_name), body
    assert (await http.get("applications/shop")).json() == before


@pytest.mark.parametrize("tokens", [{"algorithms": ["none"]}, {"algorithms": ["HS256"], "secret": "short"}, {}])
async def test_a_token_policy_that_would_not_protect(
    http: httpx.AsyncClient, shop: dict[str, object], tokens: dict[str, object]
) -> None:
    response = await http.patch("applications/shop", json={"tokens": tokens})
    assert (response.status_code, response.json()["error"]) == (400, "invalid_input")


WRONG_APPLICATIONS: list[tuple[dict[str, object], int, str | None]] = [
    ({}, 400, "name"),
    ({"name": 5}, 400, "name"),
    ({"name": " "}, 400, "name"),
    ({"name": "a\nb"}, 400, "name"),
    ({"name": "x", "api_key": "short"}, 400, "api_key"),
    ({"name": "x", "domain": ""}, 400, "domain"),
    ({"name": "shop"}, 409, None),
    ({"name": "x", "domain": "shop.local"}, 409, None),
]


async def test_an_application_that_cannot_be(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    for body, status, field_name in WRONG_APPLICATIONS:
        response = await http.post("applications", json=body)
        assert (response.status_code, response.json().get("field")) == (status, field_name), body
    assert names((await http.get("applications")).json()["applications"]) == ["shop"]


NAMES = ["a/b", "a/users", "..", "per%2Fcent", "spaces in it", "日本語", "q?x#y", "a+b&c=d"]


async def test_names_of_any_kind_in_paths(http: httpx.AsyncClient) -> None:
    for name in NAMES:
        assert (await http.post("applications", json={"name": name})).status_code == 201
        path = f"applications/{quote(name, safe='') if name.strip('.') else '%2E%2E'}"
        assert (await http.get(path)).json()["name"] == name
        assert (await http.post(f"{path}/users", json={"name": name})).status_code == 201
        user = f"{path}/users/{path.partition('/')[2]}"
        assert (await http.get(user)).json()["name"] == name
        assert (await http.delete(user)).json() == {"deleted": name}
        assert (await http.delete(path)).json() == {"deleted": name}
        assert (await http.get(path)).status_code == 404


async def test_disabling_and_deleting_end_the_sessions(
    http: httpx.AsyncClient, core: Core, shop: dict[str, object]
) -> None:
    live, _ = await start(core, "jane")
    await http.patch("applications/shop", json={"enabled": False})
    story = (await http.get(f"sessions/{live.id}")).json()
    assert (story["state"], story["end_reason"]) == ("ended", "application_closed")
    assert (await http.delete("applications/shop")).status_code == 200
    assert (await http.get("applications")).json() == {"applications": []}


# --- users --------------------------------------------------------------------------------------------------------


async def test_a_users_life(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    users = "applications/shop/users"
    made = await http.post(
        users, json={"name": "jane", "display_name": "Jane", "password": "secret", "properties": {"plan": "pro"}}
    )
    assert made.status_code == 201
    jane = made.json()
    assert (jane["has_password"], jane["guest"], jane["online"], jane["enabled"]) == (True, False, False, True)
    assert jane["properties"] == {"plan": "pro"} and "secret" not in made.text
    changed = await http.patch(f"{users}/jane", json={"display_name": "Jane D.", "properties": {}})
    assert (changed.json()["display_name"], changed.json()["properties"]) == ("Jane D.", {})
    assert (await http.patch(f"{users}/jane", json={"enabled": False})).json()["enabled"] is False
    assert (await http.patch(f"{users}/jane", json={"enabled": True})).json()["enabled"] is True
    assert (await http.put(f"{users}/jane/password", json={"password": None})).json()["has_password"] is False
    assert (await http.put(f"{users}/jane/password", json={"password": "new"})).json()["has_password"] is True
    assert (await http.delete(f"{users}/jane")).json() == {"deleted": "jane"}
    assert (await http.get(f"{users}/jane")).status_code == 404


WRONG_USERS: list[tuple[dict[str, object], int, str | None]] = [
    ({}, 400, "name"),
    ({"name": ""}, 400, "name"),
    ({"name": "x" * 256}, 400, "name"),
    ({"name": "x", "pasword": "y"}, 400, "pasword"),
    ({"name": "x", "password": 5}, 400, "password"),
    ({"name": "x", "guest": "no"}, 400, "guest"),
    ({"name": "x", "properties": [1]}, 400, "properties"),
    ({"name": "x", "properties": {"a": "b" * 20000}}, 400, "properties"),
    ({"name": "jane"}, 409, None),
]


async def test_a_user_that_cannot_be(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    await http.post("applications/shop/users", json={"name": "jane"})
    for body, status, field_name in WRONG_USERS:
        response = await http.post("applications/shop/users", json=body)
        assert (response.status_code, response.json().get("field")) == (status, field_name), body
    assert names((await http.get("applications/shop/users")).json()["users"]) == ["jane"]


async def test_a_user_that_cannot_be_changed_so(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    await http.post("applications/shop/users", json={"name": "jane"})
    before = (await http.get("applications/shop/users/jane")).json()
    for body in (
        {"display_name": " "},
        {"picture": "ftp://x/"},
        {"status": "x" * 65},
        {"properties": 1},
        {"name": "x"},
    ):
        answer = (await http.patch("applications/shop/users/jane", json=body)).json()
        (name,) = body
        assert (answer["error"], answer["field"]) == ("invalid_input", name)
        assert name in answer["message"]
    assert (await http.get("applications/shop/users/jane")).json() == before


async def test_a_password_must_be_named_to_be_removed(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    await http.post("applications/shop/users", json={"name": "jane", "password": "secret"})
    response = await http.put("applications/shop/users/jane/password", json={})
    assert (response.status_code, response.json()["field"]) == (400, "password")
    assert (await http.get("applications/shop/users/jane")).json()["has_password"] is True


async def test_users_are_listed_with_filters_and_in_pages(
    http: httpx.AsyncClient, core: Core, shop: dict[str, object]
) -> None:
    users = "applications/shop/users"
    for number in range(5):
        await http.post(users, json={"name": f"user{number}", "display_name": f"Name {number}"})
    await start(core, "user3")
    first = (await http.get(users, params={"size": 2})).json()
    assert names(first["users"]) == ["user0", "user1"]
    assert first["page"] == {"number": 0, "size": 2, "total": 5, "pages": 3}
    assert names((await http.get(users, params={"size": 2, "page": 2})).json()["users"]) == ["user4"]
    assert names((await http.get(users, params={"online": "true"})).json()["users"]) == ["user3"]
    assert len((await http.get(users, params={"online": "false"})).json()["users"]) == 4
    assert names((await http.get(users, params={"display_name": "NAME 2"})).json()["users"]) == ["user2"]
    assert names((await http.get(users, params={"name": "user4"})).json()["users"]) == ["user4"]


async def test_users_of_another_application_are_unknown(http: httpx.AsyncClient, shop: dict[str, object]) -> None:
    await http.post("applications", json={"name": "other"})
    await http.post("applications/other/users", json={"name": "jane"})
    assert (await http.get("applications/shop/users/jane")).status_code == 404
    assert (await http.delete("applications/shop/users/jane")).status_code == 404
    assert (await http.get("applications/shop/users")).json()["users"] == []


# --- sessions -----------------------------------------------------------------------------------------------------


async def test_a_session_ended_by_an_operator(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    live, outlet = await start(core, "jane")
    shown = (await http.get(f"sessions/{live.id}")).json()
    assert shown["explanation"] == "The session is connected and never was interrupted."
    assert [line["kind"] for line in shown["story"]] == ["started"]
    listed = (await http.get("sessions")).json()
    assert listed["sessions"] == [{k: v for k, v in shown.items() if k not in ("story", "explanation")}]
    assert (shown["user"], shown["application"], shown["state"]) == ("jane", "shop", "active")
    assert (shown["client"], shown["address"]) == ("ChatKitty-JS-Core/1.3.5", "192.0.2.7")
    assert (shown["authentication"], shown["resumes"], shown["end_reason"]) == ("guest", 0, None)
    ended = await http.post(f"sessions/{live.id}/end", json={"text": "Maintenance"})
    body = ended.json()
    assert (body["state"], body["end_reason"]) == ("ended", "operator")
    assert body["explanation"].startswith("An operator ended the session (ended at ")
    assert body["explanation"].endswith("They said: Maintenance")
    async with asyncio.timeout(5):
        while not outlet.ends:
            await asyncio.sleep(0)
    assert outlet.ends == [(EndReason.OPERATOR, "Maintenance")]
    again = await http.post(f"sessions/{live.id}/end")
    assert (again.status_code, again.json()["error"]) == (409, "conflict")


async def test_the_explanation_follows_the_story(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    live, _ = await start(core, "jane")
    token = core.sessions.token_of(live)
    await core.sessions.suspend(live, CloseReason.HEARTBEAT_TIMEOUT, "60 s")
    suspended = (await http.get(f"sessions/{live.id}")).json()
    assert suspended["state"] == "suspended"
    assert suspended["explanation"].startswith("The client sent no heart-beat in time at ")
    assert "can resume the session until" in suspended["explanation"]
    application = await core.applications.get("shop")
    resumed = await core.sessions.resume(application, "jane", token, CLIENT, RecordingOutlet())
    assert resumed is not None
    body = (await http.get(f"sessions/{live.id}")).json()
    assert body["explanation"].startswith("The session is connected. It was interrupted before: The client sent no")
    assert body["resumes"] == 1
    await core.sessions.suspend(resumed, CloseReason.PEER_LOST)
    await core.sessions.end(live.id, EndReason.LEASE_EXPIRED)
    body = (await http.get(f"sessions/{live.id}")).json()
    assert [line["kind"] for line in body["story"]] == ["started", "suspended", "resumed", "suspended", "ended"]
    assert [line["reason"] for line in body["story"]] == [
        None, "heartbeat_timeout", None, "peer_lost", "lease_expired",
    ]  # fmt: skip
    assert body["explanation"].startswith("The connection was lost and not resumed in time (ended at ")
    assert "Before that: The connection broke at " in body["explanation"]


async def test_sessions_are_listed_with_filters_and_in_pages(
    http: httpx.AsyncClient, core: Core, shop: dict[str, object]
) -> None:
    await http.post("applications", json={"name": "other"})
    first, _ = await start(core, "jane")
    second, _ = await start(core, "joe")
    third, _ = await start(core, "jane", "other")
    await core.sessions.end(first.id, EndReason.CLIENT)

    async def ids(**params: str | int) -> list[int]:
        answer = (await http.get("sessions", params=params)).json()
        return [session["id"] for session in answer["sessions"]]

    assert await ids() == [third.id, second.id, first.id]
    assert await ids(state="live") == [third.id, second.id]
    assert await ids(state="ended") == [first.id]
    assert await ids(user="jane") == [third.id, first.id]
    assert await ids(user="jane", application="shop") == [first.id]
    assert await ids(user="nobody") == []
    assert await ids(size=2, page=1) == [first.id]


async def test_ending_all_of_a_user_or_of_an_application(
    http: httpx.AsyncClient, core: Core, shop: dict[str, object]
) -> None:
    await http.post("applications", json={"name": "other"})
    for user in ("jane", "jane", "joe"):
        await start(core, user)
    await start(core, "jane", "other")
    assert (await http.post("sessions/end", json={"user": "jane"})).status_code == 400
    nobody = await http.post("sessions/end", json={"application": "shop", "user": "nobody"})
    assert nobody.status_code == 404
    assert (await http.post("sessions/end", json={"application": "shop", "user": "jane"})).json() == {"ended": 2}
    assert (await http.post("sessions/end", json={"application": "shop", "text": "bye"})).json() == {"ended": 1}
    live = (await http.get("sessions", params={"state": "live"})).json()
    assert [(s["user"], s["application"]) for s in live["sessions"]] == [("jane", "other")]


WRONG_WORDS: list[object] = ["", "x" * 101, "two\nlines", 5]


async def test_words_that_no_client_should_read(http: httpx.AsyncClient, core: Core, shop: dict[str, object]) -> None:
    live, _ = await start(core, "jane")
    for text in WRONG_WORDS:
        response = await http.post(f"sessions/{live.id}/end", json={"text": text})
        assert (response.status_code, response.json()["field"]) == (400, "text"), text
    assert (await http.get(f"sessions/{live.id}")).json()["state"] == "active"
