"""Who loses the right to be there is out within a second, on every connection, and does not get back in."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.served import Site, served, until
from websockets.exceptions import ConnectionClosed

from offhook.codes import ENDINGS, EndReason
from offhook.domain.accounts import SessionPolicy
from offhook.services.applications import ApplicationChanges

AUTH = {"StompX-Auth-Params": '{"password":"old"}'}


async def admin(site: Site, method: str, path: str, body: object = None) -> None:
    """Asks the admin API for something that must succeed."""
    answer = await site.http.request(
        method, f"{site.url}/admin/v1/{path}", headers={"Authorization": f"Bearer {site.admin_token}"}, json=body
    )
    assert answer.status_code == 200, answer.text


JANE = "applications/default/users/jane"

WAYS: dict[str, tuple[EndReason, Callable[[Site], Awaitable[None]]]] = {
    "password": (
        EndReason.CREDENTIALS_CHANGED,
        lambda site: admin(site, "PUT", f"{JANE}/password", {"password": "new"}),
    ),
    "disabled": (EndReason.USER_DISABLED, lambda site: admin(site, "PATCH", JANE, {"enabled": False})),
    "deleted": (EndReason.USER_DELETED, lambda site: admin(site, "DELETE", JANE)),
    "operator": (
        EndReason.OPERATOR,
        lambda site: admin(site, "POST", "sessions/end", {"application": "default", "user": "jane"}),
    ),
    "closed": (
        EndReason.APPLICATION_CLOSED,
        lambda site: admin(site, "PATCH", "applications/default", {"enabled": False}),
    ),
    "gone": (EndReason.APPLICATION_CLOSED, lambda site: admin(site, "DELETE", "applications/default")),
}


@pytest.mark.parametrize("way", WAYS)
async def test_all_connections_are_closed_within_a_second(tmp_path: Path, way: str) -> None:
    reason, revoke = WAYS[way]
    async with served(tmp_path) as site:
        default = await site.core.applications.get("default")
        await site.core.users.create(default, "jane", password="old")
        await site.core.applications.create("other", api_key="key-other")
        async with (
            site.client("jane", **AUTH) as phone,
            site.client("jane", **AUTH) as laptop,
            site.client("jane", api_key="key-other") as namesake,
        ):
            began = time.monotonic()
            await revoke(site)
            for client in (phone, laptop):
                error = await client.frame("ERROR")
                # The one error that makes clients stay away instead of coming back for ever.
                assert b"AccessDeniedError" in error.body
                assert error.headers["message"] == ENDINGS[reason].text
                assert await client.closing() == ENDINGS[reason].websocket
            assert time.monotonic() - began < 1.0
            assert (await namesake.relay("/application/v1/user.relay"))["name"] == "jane"
        # What they had is worth nothing any more: neither the session, by which only those come who did not hear ...
        async with site.client() as again:
            answer = await again.connect("jane", **AUTH, **{"StompX-Auth-Session-ID": phone.session})
            assert answer.command == "ERROR" and b"AccessDeniedError" in answer.body
        # ... nor, but for an operator's end, the word.
        async with site.client() as again:
            answer = await again.connect("jane", **AUTH)
            assert answer.command == ("CONNECTED" if way == "operator" else "ERROR")


async def test_nothing_is_done_for_a_session_that_has_ended(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        async with site.client("jane") as client, site.client("witness") as witness:
            await site.core.sessions.end(1, EndReason.OPERATOR)
            await until(lambda: len(site.core.hub) == 1)
            with contextlib.suppress(ConnectionClosed):
                for number in range(50):
                    body = {"displayName": f"ghost-{number}"}
                    await client.send("SEND", {"destination": "/application/v1/user.update", "receipt": "r"}, body)
            assert await client.closing() == ENDINGS[EndReason.OPERATOR].websocket
            await until(lambda: len(site.server._websockets) == 1)
            await witness.relay("/application/v1/user.relay")
        user = await site.core.users.by_name(await site.core.applications.get("default"), "jane")
        assert user.display_name == "jane" and not user.online


async def test_logging_out_closes_the_socket_and_leaves_no_way_back(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        async with site.client("jane") as client:
            began = time.monotonic()
            await client.send("DISCONNECT", {"receipt": "bye"})
            assert (await client.frame("RECEIPT")).headers["receipt-id"] == "bye"
            assert len(site.core.hub) == 0 and time.monotonic() - began < 1.0
            await client.send("SEND", {"destination": "/application/v1/user.update"}, {"displayName": "ghost"})
        user = await site.core.users.by_name(await site.core.applications.get("default"), "jane")
        assert user.display_name == "jane" and not user.online
        async with site.client() as again:
            answer = await again.connect("jane", **{"StompX-Auth-Session-ID": client.session})
            assert answer.command == "CONNECTED" and answer.headers["recovered"] == "lost"


async def test_the_oldest_is_told_that_it_was_replaced(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        changes = ApplicationChanges(sessions=SessionPolicy(max_sessions=1))
        await site.core.applications.change("default", changes)
        async with site.client("jane") as old:
            began = time.monotonic()
            async with site.client("jane") as new:
                assert b"AccessDeniedError" in (await old.frame("ERROR")).body
                assert await old.closing() == ENDINGS[EndReason.REPLACED].websocket and time.monotonic() - began < 1.0
                assert (await new.relay("/application/v1/user.relay"))["name"] == "jane"


async def test_a_new_api_key_shuts_out_the_old_one_at_once(tmp_path: Path) -> None:
    async with served(tmp_path) as site, site.client("jane") as client:
        await admin(site, "POST", "applications/default/rotate-key")
        async with site.client() as late:
            answer = await late.connect("john")
            assert answer.command == "ERROR" and b"AccessDeniedError" in answer.body
        assert (await client.relay("/application/v1/user.relay"))["name"] == "jane"
