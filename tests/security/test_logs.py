"""The log of a real server at its most talkative: no secret gets into it, and no client writes its lines."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from tests.served import Client
from tests.support import ServerProcess
from websockets.asyncio.client import connect

from offhook.protocols import stomp

FUNCTIONS = """
from offhook.functions import AccessDenied, on

@on.user_attempted_start_session
async def authenticate(event, context):
    if event.username == "boom":
        raise RuntimeError(f"it broke on {event.auth_params!r}")
    if event.username == "no":
        raise AccessDenied("not you")
"""


class Secrets:
    """Makes secrets that can be found again wherever they turn up."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}

    def __call__(self, place: str) -> str:
        secret = self.made[place] = f"zz{len(self.made):02d}s3cr3t{base64.b16encode(place.encode()).decode().lower()}"
        return secret


@pytest.fixture
def process(tmp_path: Path) -> ServerProcess:
    return ServerProcess(tmp_path / "data", settings={"log_level": "debug"}, functions=FUNCTIONS)


def entries(process: ServerProcess) -> list[dict[str, object]]:
    """The log's entries; every line must be one."""
    lines = process.log_file.read_text().splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert all(isinstance(entry, dict) and "event" in entry for entry in found)
    return found


async def says(url: str, data: bytes, headers: dict[str, str] | None = None) -> str:
    """Opens a WebSocket, says something, and returns what is answered."""
    async with connect(url, additional_headers=headers or {}, proxy=None, compression=None) as socket:
        await socket.send(data, text=True)
        async with asyncio.timeout(10):
            return str(await socket.recv())


def hello(name: str, **headers: str) -> bytes:
    return stomp.encode("CONNECT", {"StompX-User": name, "accept-version": "1.2", **headers})


async def plant(process: ServerProcess, secret: Secrets) -> None:
    """Puts a secret into every place where a client can put one."""
    key = process.api_key
    url = f"ws://{process.http_host}/rtm/websocket?api-key={key}"
    params = json.dumps({"password": secret("params"), "pin": secret("pin"), "token": secret("token")})
    encoded = base64.b64encode(json.dumps({"password": secret("encoded")}).encode()).decode()
    for name in ("jane", "no", "boom"):
        await says(url, hello(name, **{"StompX-Auth-Params": params}))
        await says(url, hello(name, **{"StompX-Auth-Params": encoded}))
    await says(url, hello("jane", **{"StompX-Auth-Params": f"{{{secret('broken params')}"}))
    in_query = quote(json.dumps({"password": secret("query params")}))
    await says(f"{url}&stompx_user=jane&stompx_auth_params={in_query}", hello(""))
    await says(f"ws://{process.http_host}/rtm/websocket?api-key={secret('api key')}", hello("jane"))
    jwt = f"eyJhbGciOiJIUzI1NiJ9.{secret('jwt')}.sig"
    await says(url, hello("jane", Authorization=f"Bearer {jwt}"), {"Authorization": f"Bearer {jwt}"})
    await says(url, hello("jane"), {"Cookie": f"session={secret('cookie')}", "X-Api-Key": secret("x api key")})
    # Frames that are none, with secrets in them.
    header = f"StompX-Auth-Params:{json.dumps({'password': secret('bad frame')})}"
    await says(url, f"CONNECT\n{header}\nno-colon-here\n\n\0".encode())
    await says(url, f"{secret('command')}\n{header}\n\n\0".encode())
    await says(url, f"CONNECT\n{header}\nx:\\q\n\n{secret('body')}\0".encode())
    async with connect(url, proxy=None, compression=None) as socket:
        client = Client(socket)
        await client.bootstrap("jane")
        secret.made["session token"] = client.session
        grant = str((await client.relay("/application/v1/user.write_file_access_grant.relay"))["grant"])
        secret.made["grant"] = grant
        await client.act("/application/v1/user.update", {"properties": {"password": secret("message")}})
        await client.act("/application/v1/user.update", f"{{{secret('broken body')}".encode())
        user_id = client.user["id"]
    await says(url, hello("jane", **{"StompX-Auth-Session-ID": client.session}))
    await says(url, hello("jane", **{"StompX-Auth-Session-ID": secret("wrong session token")}))
    base = process.url
    async with httpx.AsyncClient(trust_env=False) as http:
        files = {"file": ("x.png", b"no picture", "image/png")}
        upload = f"{base}/v1/streams/users/{user_id}/display-picture"
        await http.post(upload, headers={"Grant": grant}, files=files)
        await http.post(upload, headers={"Grant": secret("wrong grant")}, files=files)
        await http.get(f"{base}/rtm/info", params={"api-key": secret("query key"), "token": secret("query token")})
        sockjs = f"{base}/rtm/000/logs"
        await http.post(f"{sockjs}/xhr", params={"api-key": secret("sockjs key")})
        await http.post(f"{sockjs}/xhr_send", content=json.dumps([f"CONNECT\n{header}\n{secret('sockjs')}\n\n\0"]))
        await http.post(f"{sockjs}/xhr_send", content=f'["{secret("broken sockjs")}')
        admin = f"{base}/admin/v1/applications"
        await http.get(admin, headers={"Authorization": f"Bearer {secret('wrong admin token')}"})
        token = secret.made["admin token"] = (process.data_dir / "admin.token").read_text().strip()
        bearer = {"Authorization": f"Bearer {token}"}
        assert (await http.get(admin, headers=bearer)).status_code == 200
        body = {"name": "ann", "password": secret("admin body")}
        assert (await http.post(f"{admin}/default/users", headers=bearer, json=body)).status_code == 201
        await http.post(f"{admin}/default/users", headers=bearer, json={**body, "wrong": secret("admin field")})
        answer = await http.get(f"{admin}/default?secrets=true", headers=bearer)
        secret.made["webhook secret"] = answer.json()["webhook_secret"]
    secret.made["signing key"] = (process.data_dir / "secret.key").read_text().strip()


def test_no_secret_is_ever_logged(process: ServerProcess) -> None:
    secret = Secrets()
    process.start()
    try:
        asyncio.run(plant(process, secret))
    finally:
        process.stop()
    log = process.log_file.read_text()
    # It was talkative: requests, and the function that broke with its traceback.
    assert '"path":"/rtm/info"' in log.replace(": ", ":") and "RuntimeError" in log and "it broke on" in log
    assert len(secret.made) > 25
    encodings = {
        f"{place} {form.__name__}": form(text)
        for place, text in secret.made.items()
        for form in (str, quote, lambda text: base64.b64encode(text.encode()).decode().rstrip("=")[:-2])
    }
    leaked = [place for place, text in encodings.items() if text in log]
    assert leaked == []


async def forge(process: ServerProcess) -> None:
    """Tries to write lines of the log."""
    url = f"ws://{process.http_host}/rtm/websocket?api-key={process.api_key}"
    line = '{"event": "forged", "level": "info"}'
    agent = "\x1b[2J\x1b[31mred\x07"
    await says(url, hello("boom", **{"StompX-User-Agent": agent}))
    await says(url, hello(f"boom {line}", **{"StompX-Auth-Params": json.dumps({"x": f"\n{line}\n\u2028{line}"})}))
    await says(url, hello("boom", **{"StompX-Auth-Params": json.dumps({"x": f"\n{line}\r\n\x1b[2J"})}))
    await says(url, f"\\n{line}\nx:y\n\n\0".encode())
    async with httpx.AsyncClient(trust_env=False) as http:
        for path in (
            f"/v1/files/%0a{quote(line)}%0a",
            f"/%0d%0a{quote(line)}",
            "/%1b%5b2J",
            f"/%e2%80%a8{quote(line)}",
        ):
            await http.get(process.url + path)
        await http.get(f"{process.url}/rtm/info", headers={"X-Forwarded-For": line, "User-Agent": line})
    async with connect(url, proxy=None, compression=None) as socket:
        client = Client(socket)
        await client.bootstrap("jane", **{"StompX-User-Agent": agent})
        await client.act(f"/application/v1/\n{line}\n", {})
        await client.ask(f"/application/v1/\n{line}\n.relay")


def test_nobody_writes_lines_of_the_log(process: ServerProcess) -> None:
    process.start()
    try:
        asyncio.run(forge(process))
    finally:
        process.stop()
    found = entries(process)
    assert len(found) > 10 and any(entry["event"] == "request" for entry in found)
    assert not any(entry["event"] == "forged" for entry in found)
    raw = process.log_file.read_bytes()
    assert b"\x1b" not in raw and b"\x07" not in raw and b"\r" not in raw and "\u2028".encode() not in raw


def test_nobody_writes_to_the_operators_terminal(process: ServerProcess) -> None:
    process.start()
    try:
        url = f"ws://{process.http_host}/rtm/websocket?api-key={process.api_key}"
        asyncio.run(says(url, hello("jane", **{"StompX-User-Agent": "\x1b[2J\x1b[31mred\x07"})))
        command = [sys.executable, "-m", "offhook", "session", "list"]
        listed = subprocess.run(
            command, env=process._environment, cwd=process.data_dir, capture_output=True, timeout=60
        )
    finally:
        process.stop()
    assert listed.returncode == 0 and b"jane" in listed.stdout
    assert b"\x1b" not in listed.stdout and b"\x07" not in listed.stdout
