"""Older clients, blocked users and display pictures."""

from __future__ import annotations

import base64
import struct
import zlib

import pytest
from tests.e2e.stage import Stage
from tests.e2e.values import NEWEST, RUNTIMES, Runtime, Thrown, User

pytestmark = pytest.mark.asyncio(loop_scope="session")

OLDEST = [Runtime("node", f"chatkitty-{version}") for version in ("1.26.0", "1.51.2", "1.53.7")]
UPLOADING = [runtime for runtime in RUNTIMES if runtime.place == "chromium"] + [NEWEST]
"""The axios of the older packages cannot upload from Node (ChatKitty protocol notes, section 3.6)."""


def _png() -> bytes:
    """A picture of one grey pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0\x80")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("runtime", OLDEST, ids=str)
async def test_first_generation_session(stage: Stage, runtime: Runtime) -> None:
    name, visitor_name = stage.name("old"), stage.name("visitor")
    client, visitor = await stage.client(runtime), await stage.client(NEWEST)
    user = await client.sign_in(name)
    assert (user.name, user.is_guest, user.presence.online) == (name, True, True)

    await visitor.sign_in(visitor_name)
    await client.until(lambda: client.presence(visitor_name) == [(visitor_name, True)], "the visitor")
    outcome = await client.update(displayName="Old But Sound")
    assert outcome.user is not None
    assert outcome.user.display_name == "Old But Sound"
    assert (await client.contact(visitor_name)).presence.online

    await client.end()
    session = await stage.session(name)
    assert (session.state, session.end_reason, session.client) == (
        "ended",
        "client",
        f"ChatKitty-JS/{runtime.sdk.removeprefix('chatkitty-')}",
    )


@pytest.mark.parametrize("runtime", OLDEST, ids=str)
async def test_first_generation_denial(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime, api_key="unknown")
    outcome = await client.start(stage.name("old"))
    assert outcome.error is not None
    assert outcome.error.code == "AccessDeniedError"


@pytest.mark.parametrize("runtime", [*RUNTIMES, *OLDEST], ids=str)
async def test_blocking_and_unblocking_a_user(stage: Stage, runtime: Runtime) -> None:
    client, pest = await stage.client(runtime), await stage.client(NEWEST)
    pest_name = stage.name("pest")
    await client.sign_in(stage.name("victim"))
    pest_user = await pest.sign_in(pest_name)

    assert (await client.contact(pest_name)).id == pest_user.id
    blocked = await client.command("block", pest_name)
    assert blocked.user is not None
    assert blocked.user.id == pest_user.id
    assert await client.count_users(name=pest_name) == 0
    listed = await client.command("blocked")
    assert listed.users is not None
    assert [user.name for user in listed.users] == [pest_name]
    before = client.presence(pest_name)
    await pest.end()

    unblocked = await client.command("unblock", pest_name)
    assert unblocked.user is not None
    assert unblocked.user.id == pest_user.id
    assert client.presence(pest_name) == before, "the end of a blocked user's session is none of the blocker's business"
    assert await client.count_users(name=pest_name) == 1
    if runtime.generation == 3:
        assert len([event for event in client.events if event.kind == "blocked"]) == 1
        assert [user.name for user in client.values("unblocked", User)] == [pest_name]


@pytest.mark.parametrize("runtime", UPLOADING, ids=str)
async def test_upload_of_a_display_picture(stage: Stage, runtime: Runtime) -> None:
    name, picture = stage.name("vain"), _png()
    client, contact = await stage.client(runtime), await stage.client(NEWEST)
    await contact.sign_in(stage.name("contact"))
    user = await client.sign_in(name)
    uri = "data:image/png;base64," + base64.b64encode(picture).decode()

    outcome = await client.command("picture", {"uri": uri, "name": "me.png"})
    assert outcome.user is not None
    assert outcome.user.display_picture_url != user.display_picture_url
    fetched = await client.fetch(outcome.user.display_picture_url)
    assert (fetched.status, fetched.type, fetched.size) == (200, "image/png", len(picture))
    await contact.until(lambda: len(contact.profiles(name)) == 1, "the new picture")
    assert (await contact.contact(name)).display_picture_url == outcome.user.display_picture_url


@pytest.mark.parametrize("runtime", UPLOADING, ids=str)
async def test_upload_of_no_picture_fails(stage: Stage, runtime: Runtime) -> None:
    client = await stage.client(runtime)
    user = await client.sign_in(stage.name("prankster"))
    uri = "data:text/html;base64," + base64.b64encode(b"<script>alert(1)</script>").decode()
    outcome = await client.command("picture", {"uri": uri, "name": "me.html"})
    assert outcome.error is not None
    assert outcome.error.status in (400, 415)
    assert (await client.me()).display_picture_url == user.display_picture_url


async def test_blocking_needs_a_session(stage: Stage) -> None:
    client = await stage.client(NEWEST)
    with pytest.raises(Thrown, match="NoActiveSessionError"):
        await client.command("blocked")
