"""Text that wants to be more than text: in headers, paths, names and whatever is sent back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.served import WAIT, Site, served

from offhook.domain.values import PageRequest
from offhook.ports import SessionFilter
from offhook.protocols import stomp

NASTY = [
    "a\nreceipt-id:forged",
    "a\r\nb:c",
    "a:b:c",
    "\\",
    "\\n\\c\\r\\\\",
    "a\n\n{}",
    "\n",
    ":",
    "\x1b[31m\x07\x85\u2028\u202e",
    "日本 \U0001f600",
    "x" * 2000,
]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with served(tmp_path) as site:
        yield site


@pytest.mark.parametrize("text", NASTY, ids=ascii)
async def test_what_is_sent_back_in_headers_stays_one_value(site: Site, text: str) -> None:
    async with site.client("jane") as client:
        await client.send("SUBSCRIBE", {"id": text, "destination": "/application/v1/user.relay", "receipt": text})
        frame = await client.frame()
        assert frame.command == "MESSAGE"
        assert set(frame.headers) == {"subscription", "destination", "message-id", "content-type", "content-length"}
        assert frame.headers["subscription"] == text
        assert dict((await client.frame()).headers) == {"receipt-id": text}
        await client.send("SUBSCRIBE", {"id": text, "destination": f"/application/v1/{text}"})
        frame = await client.frame("MESSAGE")
        assert frame.headers["subscription-id"] == text
        assert json.loads(frame.body)["error"] in ("ResourceNotFoundError", "ClientError")
        await client.send("SEND", {"destination": f"/application/v1/{text}", "receipt": text}, {})
        frame = await client.frame("MESSAGE")
        assert frame.headers["receipt-id"] == text and frame.headers["subscription"] == "errors"
        assert dict((await client.frame()).headers) == {"receipt-id": text}
        # The error that ends the connection repeats the receipt as well.
        await client.send("BEGIN", {"receipt": text})
        frame = await client.frame()
        assert frame.command == "ERROR" and frame.headers["receipt-id"] == text
        assert set(frame.headers) == {"message", "receipt-id", "content-type", "content-length"}


@pytest.mark.parametrize(
    "name", ["a:b", "session:forged", "a\\nb", "a\\c", "<b>&\"'", "日本", " x ", "../x", "%0a"], ids=ascii
)
async def test_names_do_not_get_into_the_answer_to_connect(site: Site, name: str) -> None:
    async with site.client() as client, site.client("witness") as witness:
        answer = await client.connect(name)
        assert answer.command == "CONNECTED"
        assert set(answer.headers) == {"version", "session", "heart-beat", "server"}
        assert answer.headers["session"].startswith("1-1.") or answer.headers["session"].startswith("2-1.")
        resource = (await witness.body())["resource"]
        assert isinstance(resource, dict) and resource["name"] == name
        user = await client.relay("/application/v1/user.relay")
        assert user["name"] == user["displayName"] == name
        picture = await site.http.get(str(user["displayPictureUrl"]))
        assert picture.status_code == 200 and picture.text.count("<") == 5


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\x07", "a\x85b", "a\tb", "\x7f", "a\x01"], ids=ascii)
async def test_names_with_control_characters_are_refused(site: Site, name: str) -> None:
    async with site.client() as client:
        answer = await client.connect(name)
        assert answer.command == "ERROR" and b"AccessDeniedError" in answer.body
        assert not set(name) & {chr(byte) for byte in answer.body} & {"\x1b", "\x07", "\x01", "\x7f"}


async def test_headers_smuggled_into_connect_are_the_clients_own(site: Site) -> None:
    async with site.client() as client:
        smuggled = (
            b"CONNECT\nStompX-User:jane\nsession:forged\nuser-name:admin\nStompX-User:admin\naccept-version:1.2\n\n\0"
        )
        await client.socket.send(smuggled, text=True)
        answer = await client.frame()
        assert answer.headers["session"] != "forged" and "user-name" not in answer.headers
        # Of a header that comes twice the first one counts (STOMP 1.2, Repeated Header Entries).
        assert (await client.relay("/application/v1/user.relay"))["name"] == "jane"


async def test_a_nul_ends_a_frame_wherever_it_is(site: Site) -> None:
    async with site.client() as client:
        await client.socket.send(b"CONNECT\nStompX-User:ja\0ne\naccept-version:1.2\n\n\0", text=True)
        assert (await client.frame()).command == "ERROR"
        await client.closing()
    assert (await site.core.sessions.list(SessionFilter(), PageRequest())).total == 0


PATHS = [
    "/v1/files/../../secret.key",
    "/v1/files/..%2f..%2fsecret.key",
    "/v1/files/%2e%2e/%2e%2e/secret.key",
    "/v1/files/%2e%2e%2f%2e%2e%2fsecret.key",
    "/v1/files/..%5c..%5csecret.key",
    "/v1/files/%252e%252e%252fsecret.key",
    "/v1/files/....//....//secret.key",
    "/v1/files//etc/passwd",
    "/v1/files/%2fetc%2fpasswd",
    "/v1/files/..;/secret.key",
    "/v1/files/secret.key%00.png",
    "/v1/files/" + "0" * 64 + ".png%00",
    "/v1/files/%c0%ae%c0%ae%c0%afsecret.key",
    "/v1/files/" + "a" * 64 + ".png/../../../secret.key",
    "/v1/picture/../../secret.key",
    "/rtm/../secret.key",
    "/../../etc/passwd",
    "//etc/passwd",
]


@pytest.mark.parametrize("path", PATHS)
async def test_no_path_leads_to_a_file_that_is_none_of_ours(site: Site, path: str) -> None:
    secret = (site.core.settings.data_dir / "secret.key").read_text().strip()
    # Sent as it is: clients' libraries would tidy it up.
    reader, writer = await asyncio.open_connection(*site.address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(WAIT):
        answer = (await reader.read()).decode("latin-1")
    writer.close()
    status = int(answer.split()[1])
    assert status in (400, 404) or ("/v1/picture/" in path and "image/svg+xml" in answer)
    assert secret not in answer and "root:" not in answer


@pytest.mark.parametrize(
    "text",
    [
        "x\r\nSet-Cookie: a=b",
        "x\nSet-Cookie: a=b",
        "%0d%0aSet-Cookie:%20a=b",
        "x\r\n\r\n<script>",
        "https://evil.test\r\nX: y",
    ],
    ids=ascii,
)
async def test_http_answers_have_no_headers_of_the_clients_making(site: Site, text: str) -> None:
    reader, writer = await asyncio.open_connection(*site.address)
    head = f"GET /rtm/info?api-key={text} HTTP/1.1\r\nHost: {text}\r\nOrigin: {text}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    async with asyncio.timeout(WAIT):
        answer = (await reader.read()).decode("latin-1")
    writer.close()
    for line in answer.lower().partition("\r\n\r\n")[0].split("\r\n"):
        assert not line.startswith(("set-cookie", "x:"))
    assert "<script>" not in answer


async def test_errors_over_http_are_json_and_repeat_nothing(site: Site) -> None:
    for path in ("/<script>alert(1)</script>", "/v1/files/<img src=x>", "/rtm/<b>/x/xhr_send", "/admin/v1/<i>"):
        response = await site.http.get(site.url + path)
        assert response.headers["content-type"] == "application/json"
        assert "<" not in response.text


async def test_text_filters_are_text_and_not_patterns_or_statements(site: Site) -> None:
    application = await site.core.applications.get("default")
    for name in ("ann", "ben"):
        await site.core.users.create(application, name)
    async with site.client("jane") as client:
        for text in ("%", "_", "' OR '1'='1", "'; DROP TABLE users; --", "a*", "\\", ".*"):
            for parameter in ("name", "displayName"):
                answer = await client.relay("/application/v1/user/contacts.count.relay", **{parameter: text})
                assert answer == {"count": 0}
        assert await client.relay("/application/v1/user/contacts.count.relay") == {"count": 2}


@pytest.mark.parametrize(
    "body", [b"[" * 30_000, b'{"a":' * 10_000, b'{"displayName":"\\ud800"}', b"1e999", b'{"x":NaN}', b"\xef\xbb\xbf{}"]
)
async def test_json_made_to_break_parsers_breaks_one_request(site: Site, body: bytes) -> None:
    async with site.client("jane") as client:
        answer = await client.act("/application/v1/user.update", body)
        assert answer["error"] == "ClientError"
        user = await client.relay("/application/v1/user.relay")
        assert user["displayName"] == "jane"
        properties: dict[str, object] = {"__proto__": {"admin": True}, "constructor": 1, "toString": "x"}
        answer = await client.act("/application/v1/user.update", {"properties": properties})
        resource = answer["resource"]
        assert isinstance(resource, dict) and resource["properties"] == properties


async def test_escapes_in_a_user_agent_are_kept_out_of_the_ledger_of_others(site: Site) -> None:
    frame = stomp.encode("CONNECT", {"StompX-User": "jane", "StompX-User-Agent": "x" * 5000, "accept-version": "1.2"})
    async with site.client() as client:
        await client.socket.send(frame, text=True)
        assert (await client.frame()).command == "CONNECTED"
        (session,) = (await site.core.sessions.list(SessionFilter(), PageRequest())).items
        assert len(session.client.agent) == 200
