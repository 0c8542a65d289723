"""Every message is judged by who sends it: other users' topics, other tenants, and the admin API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from tests.served import Client, Site, served

from offhook.core import SystemClock
from offhook.domain.accounts import User, UserFilter
from offhook.domain.sessions import SessionState
from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter
from offhook.protocols.chatkitty.destinations import USER_TOPICS, user_topic
from offhook.services.signing import Grant

CONTACTS = "/application/v1/user/contacts.relay.page.0.size..sort."
BLOCKS = "/application/v1/user/blocked_records.relay.page.0.size..sort."


@dataclass
class Scene:
    """A client, and users it has no business with: one of its application, one of another."""

    site: Site
    mallory: Client
    neighbour: User
    stranger: User


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with served(tmp_path) as site:
        other, _ = await site.core.applications.create("other", api_key="key-other")
        neighbour = await site.core.users.create(await site.core.applications.get("default"), "neighbour")
        stranger = await site.core.users.create(other, "stranger", display_name="Secret Stranger")
        async with site.client("mallory") as mallory:
            yield Scene(site, mallory, neighbour, stranger)


async def test_nobody_hears_anothers_topics(scene: Scene) -> None:
    mallory = scene.mallory
    for victim in (scene.neighbour, scene.stranger):
        for key in USER_TOPICS:
            await mallory.send("SUBSCRIBE", {"id": f"{victim.id}-{key}", "destination": user_topic(victim.id, key)})
            assert (await mallory.body())["error"] == "ResourceNotFoundError"
    for destination in (
        "/topic/v1.users.*.self",
        "/topic/v1.users.#",
        "/topic/>",
        "/topic/v1.applications.1",
        "application.1",
        "user.1",
        "/user/1/queue/v1/errors",
        "/queue/x",
        f"/topic/v1.users.{scene.neighbour.id}.self/../../v1.users.{mallory.user['id']}.self",
        "",
    ):
        await mallory.send("SUBSCRIBE", {"id": "wild", "destination": destination})
        assert (await mallory.body())["error"] == "ResourceNotFoundError", destination
    (connection,) = scene.site.server._chatkitty.connections()
    assert set(connection._subscriptions) == {"errors", "self", "contacts", "users"}
    # What happens to the others on their own topics does not come by.
    async with scene.site.client("stranger", api_key="key-other") as other:
        await other.act("/application/v1/user.update", {"displayName": "Changed"})
        answer = await mallory.ask("/application/v1/user/contacts.count.relay")
        assert answer["resource"] == {"count": 1}


@pytest.mark.parametrize("verb", ["update", "update_display_picture", "create_channel", "delete", "nothing"])
async def test_nobody_acts_as_another(scene: Scene, verb: str) -> None:
    for victim in (scene.neighbour, scene.stranger):
        for destination in (f"/application/v1/users/{victim.id}.{verb}", f"/application/users/{victim.id}.{verb}"):
            answer = await scene.mallory.act(destination, {"displayName": "Owned", "id": victim.id})
            assert answer["error"] in ("AccessDeniedError", "ResourceNotFoundError"), destination
    core = scene.site.core
    for victim, name in ((scene.neighbour, "default"), (scene.stranger, "other")):
        application = await core.applications.get(name)
        assert await core.users.by_name(application, victim.name) == victim


async def test_an_update_reaches_oneself_whatever_id_it_names(scene: Scene) -> None:
    body = {"id": scene.neighbour.id, "name": "neighbour", "isGuest": False, "displayName": "Me", "enabled": False}
    answer = await scene.mallory.act("/application/v1/user.update", body)
    resource = answer["resource"]
    assert isinstance(resource, dict)
    assert (resource["name"], resource["isGuest"], resource["displayName"]) == ("mallory", True, "Me")
    application = await scene.site.core.applications.get("default")
    assert await scene.site.core.users.by_name(application, "neighbour") == scene.neighbour


async def test_other_tenants_are_unknown_on_every_relay_and_action(scene: Scene) -> None:
    mallory, stranger = scene.mallory, scene.stranger
    for destination in (
        f"/application/v1/users/{stranger.id}.relay",
        f"/application/users/{stranger.id}.relay",
        f"/application/v1/users/{stranger.id}.channel_member.relay",
    ):
        assert (await mallory.ask(destination))["error"] == "ResourceNotFoundError"
    for action in (
        f"/application/v1/users/{stranger.id}.block",
        f"/application/v1/user/blocked_records/{stranger.id}.delete",
    ):
        assert (await mallory.act(action))["error"] == "ResourceNotFoundError"
    for parameters in ({}, {"name": "stranger"}, {"displayName": "Secret"}, {"online": "false"}):
        page = await mallory.ask(CONTACTS, **parameters)
        assert "Secret" not in str(page)
    for parameters in ({"name": "stranger"}, {"displayName": "Secret"}):
        assert await mallory.relay("/application/v1/user/contacts.count.relay", **parameters) == {"count": 0}
    assert (await mallory.relay(BLOCKS))["page"] == {
        **{"size": 25, "totalElements": 0, "totalElement": 0},
        **{"totalPages": 0, "number": 0},
    }


async def test_the_unknown_and_the_foreign_cannot_be_told_apart(scene: Scene) -> None:
    texts = []
    for user_id in (scene.stranger.id, 999_999):
        answer = await scene.mallory.ask(f"/application/v1/users/{user_id}.relay")
        texts.append(str(answer["message"]).replace(str(user_id), "N"))
    assert texts[0] == texts[1]


async def test_sessions_are_resumed_by_their_own_user_in_their_own_application(scene: Scene) -> None:
    site = scene.site
    token = {"StompX-Auth-Session-ID": scene.mallory.session}
    for name, api_key in (("eve", "key-default"), ("mallory", "key-other"), ("MALLORY", "key-default")):
        async with site.client(name, api_key=api_key, **token) as client:
            assert client.user["name"] == name
    live = (await site.core.sessions.list(SessionFilter(user_name="mallory", application_id=1), PageRequest())).items
    assert [(session.state, session.resumes) for session in live] == [(SessionState.ACTIVE, 0)]
    assert scene.mallory.socket.close_code is None


async def test_files_are_uploaded_for_oneself_alone(scene: Scene) -> None:
    grant = str((await scene.mallory.relay("/application/v1/user.write_file_access_grant.relay"))["grant"])
    for victim in (scene.neighbour, scene.stranger):
        url = f"{scene.site.url}/v1/streams/users/{victim.id}/display-picture"
        files = {"file": ("x.png", b"\x89PNG\r\n\x1a\nx", "image/png")}
        answer = await scene.site.http.post(url, headers={"Grant": grant}, files=files)
        assert answer.status_code == 403
        # Nor does a grant for the right user count in the wrong application.
        mixed = Grant.issue("w", 3 - victim.application_id, victim.id, SystemClock().now())
        answer = await scene.site.http.post(url, headers={"Grant": mixed.encode(scene.site.core.signer)}, files=files)
        assert answer.status_code == 404


ADMIN = [
    ("GET", "applications"),
    ("POST", "applications"),
    ("GET", "applications/default"),
    ("GET", "applications/default?secrets=true"),
    ("PATCH", "applications/default"),
    ("DELETE", "applications/default"),
    ("POST", "applications/default/rotate-key"),
    ("GET", "applications/default/users"),
    ("POST", "applications/default/users"),
    ("GET", "applications/default/users/mallory"),
    ("PATCH", "applications/default/users/mallory"),
    ("DELETE", "applications/default/users/mallory"),
    ("GET", "sessions"),
    ("GET", "sessions/1"),
    ("POST", "sessions/1/end"),
    ("POST", "sessions/end"),
    ("GET", "nothing"),
    ("GET", ""),
]


@pytest.mark.parametrize(("method", "path"), ADMIN)
async def test_the_admin_api_is_closed_to_everybody_else(scene: Scene, method: str, path: str) -> None:
    site = scene.site
    grant = str((await scene.mallory.relay("/application/v1/user.write_file_access_grant.relay"))["grant"])
    url = f"{site.url}/admin/v1/{path}"
    before = await site.core.applications.list()
    for header in (None, "Bearer", "Bearer undefined", f"Bearer {grant}", f"Bearer {scene.mallory.session}", "Basic x"):
        headers = {"Origin": "https://evil.test", **({} if header is None else {"Authorization": header})}
        answer = await site.http.request(method, url, headers=headers, json={"name": "x", "application": "default"})
        assert answer.status_code == 401
        # And no page may read it, whatever its origin.
        assert "access-control-allow-origin" not in answer.headers
    async with httpx.AsyncClient(cookies={"token": site.admin_token}) as http:
        assert (
            await http.request(method, f"{url}{'&' if '?' in url else '?'}token={site.admin_token}")
        ).status_code == 401
    assert await site.core.applications.list() == before
    assert await site.core.users.count(before[0], UserFilter()) == 2
    assert len(site.core.hub) == 1 and scene.mallory.socket.close_code is None


async def test_the_admin_token_does_open_it(scene: Scene) -> None:
    site = scene.site
    headers = {"Authorization": f"Bearer {site.admin_token}"}
    answer = await site.http.get(f"{site.url}/admin/v1/sessions", headers=headers)
    assert answer.status_code == 200 and answer.json()["sessions"][0]["user"] == "mallory"
    assert (site.core.settings.data_dir / "admin.token").stat().st_mode & 0o077 == 0
    assert (site.core.settings.data_dir / "secret.key").stat().st_mode & 0o077 == 0


async def test_blocked_users_are_out_of_reach_both_ways(scene: Scene) -> None:
    async with scene.site.client("victim") as victim:
        await victim.act(f"/application/v1/users/{scene.mallory.user['id']}.block")
        for one, other in ((scene.mallory, victim), (victim, scene.mallory)):
            relay = f"/application/v1/users/{other.user['id']}.relay"
            async with asyncio.timeout(5):
                while "error" not in (answer := await one.ask(relay)):
                    await asyncio.sleep(0.005)
            assert answer["error"] == "ResourceNotFoundError"
            assert str(other.user["name"]) not in str(await one.ask(CONTACTS))
