"""The door: which paths and origins come in, and by which name clients reach the server."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.served import API_KEY, Site, served
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter
from offhook.protocols import stomp

CONNECT = stomp.encode("CONNECT", {"StompX-User": "jane", "accept-version": "1.2"})


async def status_of(site: Site, path: str, origin: str | None = None) -> int:
    """The status that answers an upgrade; 101 if it is granted."""
    try:
        async with connect(
            site.url.replace("http", "ws", 1) + path, origin=Origin(origin) if origin else None, proxy=None
        ):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rtm/websocket", 101),
        ("/stompx/websocket", 101),
        ("/rtm/websocket?api-key=unknown", 101),
        ("/rtm/000/session/websocket", 101),
        ("/rtm", 404),
        ("/rtm/", 404),
        ("/rtm/websocket/", 404),
        ("/rtmx/websocket", 404),
        ("/rtm/../websocket", 404),
        ("/rtm/000/session/xhr", 404),
        ("/rtm/0.0/session/websocket", 404),
        ("/rtm/000/ses.sion/websocket", 404),
        ("/rtm//session/websocket", 404),
        ("/rtm/a/b/c/websocket", 404),
        ("/websocket", 404),
        ("/admin/v1/websocket", 404),
        ("/", 404),
    ],
)
async def test_paths(tmp_path: Path, path: str, status: int) -> None:
    async with served(tmp_path) as site:
        assert await status_of(site, path) == status


async def test_under_a_base_path(tmp_path: Path) -> None:
    async with served(tmp_path, base_path="/chat/v2") as site:
        assert site.url.endswith("/chat/v2")
        assert await status_of(site, "/rtm/websocket") == 101
        assert await status_of(site, "/stompx/0/s/websocket") == 101
        assert (await site.http.get(f"{site.url}/rtm/info")).status_code == 200
        assert (await site.http.get(f"{site.url}/healthz")).status_code == 200
        async with site.client("jane") as client:
            picture = str(client.user["displayPictureUrl"])
            assert picture == f"{site.url}/v1/picture/jane"
            assert (await site.http.get(picture)).status_code == 200


async def test_the_subprotocol_is_the_one_that_is_known(tmp_path: Path) -> None:
    async with served(tmp_path) as site:
        for offered, chosen in (
            (["v12.stomp"], "v12.stomp"),
            (["v10.stomp", "v11.stomp", "v12.stomp"], "v12.stomp"),
            (["v10.stomp"], None),
            (None, None),
        ):
            wanted = None if offered is None else [Subprotocol(name) for name in offered]
            async with connect(site.websocket(), subprotocols=wanted, proxy=None) as socket:
                assert socket.subprotocol == chosen


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        (f"api-key={API_KEY}", {}),
        (f"api_key={API_KEY}", {}),
        (f"api-key={API_KEY}&stompx_user=jane", {"StompX-User": ""}),
        (f"x=1&api-key={API_KEY}&api-key=unknown", {}),
    ],
)
async def test_the_key_comes_in_the_query(tmp_path: Path, query: str, headers: dict[str, str]) -> None:
    async with served(tmp_path) as site:
        said = {"StompX-User": "jane", "accept-version": "1.2", **headers}
        async with connect(site.websocket(query=query), proxy=None) as socket:
            await socket.send(stomp.encode("CONNECT", said), text=True)
            assert str(await socket.recv()).startswith("CONNECTED\n")


@pytest.mark.parametrize("query", ["", "api-key=", "&".join(f"a{n}=1" for n in range(30)), "%zz", "api-key=%00"])
async def test_queries_without_a_key_are_told_at_connect(tmp_path: Path, query: str) -> None:
    async with served(tmp_path) as site, connect(site.websocket(query=query), proxy=None) as socket:
        await socket.send(CONNECT, text=True)
        answer = str(await socket.recv())
        assert answer.startswith("ERROR\n") and "AccessDeniedError" in answer


FORWARDED = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "chat.example.test",
}


@pytest.mark.parametrize("trusted", [(), ("127.0.0.1",)])
async def test_who_is_behind_the_proxy_counts_only_if_the_proxy_is_trusted(
    tmp_path: Path, trusted: tuple[str, ...]
) -> None:
    async with served(tmp_path, trusted_proxies=trusted) as site:
        async with connect(site.websocket(), additional_headers=FORWARDED, proxy=None) as socket:
            await socket.send(CONNECT, text=True)
            await socket.recv()
            relay = {"id": "u", "destination": "/application/v1/user.relay"}
            await socket.send(stomp.encode("SUBSCRIBE", relay), text=True)
            user = str(await socket.recv())
        (session,) = (await site.core.sessions.list(SessionFilter(), PageRequest())).items
        base = "https://chat.example.test" if trusted else site.url
        assert f'"displayPictureUrl":"{base}/v1/picture/jane"' in user
        assert session.client.address == ("203.0.113.9" if trusted else "127.0.0.1")
        assert session.client.secure is bool(trusted)


async def test_a_host_that_is_none_is_not_repeated(tmp_path: Path) -> None:
    async with served(tmp_path, trusted_proxies=("127.0.0.1",)) as site:
        evil = {**FORWARDED, "X-Forwarded-Host": 'evil.test/"><script>'}
        async with connect(site.websocket(), additional_headers=evil, proxy=None) as socket:
            await socket.send(CONNECT, text=True)
            await socket.recv()
            relay = {"id": "u", "destination": "/application/v1/user.relay"}
            await socket.send(stomp.encode("SUBSCRIBE", relay), text=True)
            answer = str(await socket.recv())
            assert '"name":"jane"' in answer and "evil" not in answer


async def test_a_public_url_wins_over_what_requests_say(tmp_path: Path) -> None:
    settings: dict[str, object] = {"public_url": "https://chat.example.test/base", "trusted_proxies": ("127.0.0.1",)}
    async with served(tmp_path, **settings) as site, site.client("jane") as client:
        assert client.user["displayPictureUrl"] == "https://chat.example.test/base/v1/picture/jane"
        streams = client.user["_streams"]
        assert isinstance(streams, dict)
        assert str(streams["displayPicture"]).startswith("https://chat.example.test/base/v1/streams/users/")
