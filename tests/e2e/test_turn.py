"""A real TURN server, set up as the documentation says, lets those in whom Offhook gave credentials (Kandy protocol
notes, 8.12)."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from tests.support import ServerProcess, free_port

from offhook.protocols import turn

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "kandy-link.md"
ALICE, PASSWORD = "alice@example.com", "correct horse"
PATIENCE = 20.0
OWN_SECRET = "a secret of at least 16 characters"


class _Credentials(msgspec.Struct):
    username: str
    password: str


class _Params(msgspec.Struct, rename="camel"):
    turn_credentials: _Credentials


class _Response(msgspec.Struct, rename="camel"):
    subscription_params: _Params


class _Answer(msgspec.Struct, rename="camel"):
    subscribe_response: _Response


@pytest.fixture(scope="module", params=[None, OWN_SECRET], ids=["made", "set"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server that makes its secret itself, and one that is told it."""
    settings = {} if request.param is None else {"turn_secret": str(request.param)}
    process = ServerProcess(tmp_path_factory.mktemp("server"), settings=settings)
    process.start()
    process.cli("user", "create", ALICE, "--password-stdin", stdin=PASSWORD)
    yield process
    process.stop()


@pytest.fixture(scope="module")
def secret(server: ServerProcess) -> str:
    """What an operator is told to put into the TURN server's configuration."""
    answer = server.cli("turn-secret")
    assert isinstance(answer, dict)
    return str(answer["secret"])


@pytest.fixture(scope="module")
def turn_port(secret: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """coturn with the documented configuration, but on the loopback address, where it is none of the public's."""
    found = re.search(r"```conf\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)
    assert found is not None
    port, folder = free_port(), tmp_path_factory.mktemp("turn")
    shown = found[1].replace("THE TURN SECRET", secret).replace("listening-port=3478", f"listening-port={port}")
    assert secret in shown and f"={port}\n" in shown
    here = ["listening-ip=127.0.0.1", "relay-ip=127.0.0.1", "allow-loopback-peers", "no-tls", "no-dtls"]
    files = [f"pidfile={folder}/pid", "log-file=stdout", f"userdb={folder}/users"]
    configuration = folder / "turnserver.conf"
    configuration.write_text(shown + "\n".join([*here, *files, ""]))
    configuration.chmod(0o600)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["turnserver", "-c", str(configuration)], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        _wait_for_stun(port, process, folder / "log")
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def _wait_for_stun(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Asks for a binding (RFC 8489, 5) until there is an answer."""
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + os.urandom(12)
    deadline = time.monotonic() + PATIENCE
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", port))
        probe.settimeout(0.2)
        while time.monotonic() < deadline and process.poll() is None:
            try:
                probe.send(request)
                if probe.recv(2048)[8:20] == request[8:20]:
                    return
            except (TimeoutError, ConnectionRefusedError):
                continue
    raise AssertionError(f"the TURN server does not answer:\n{log.read_text(errors='replace')[-4000:]}")


def allocates(port: int, username: str, password: str) -> bool:
    """Whether a client gets an allocation, and data through it to another one and back."""
    traffic = ["-y", "-c", "-n", "1", "-m", "1"]
    done = subprocess.run(
        ["turnutils_uclient", *traffic, "-u", username, "-w", password, "-p", str(port), "127.0.0.1"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 0:
        assert "Total lost packets 0 " in done.stdout, done.stdout
        return True
    assert "Cannot complete Allocation" in done.stdout + done.stderr, done.stdout + done.stderr
    return False


def credentials(server: ServerProcess) -> _Credentials:
    """What the answer to a subscription has for the TURN server."""
    answer = httpx.post(
        f"{server.url}/rest/version/1/user/{ALICE}/subscription",
        json={"subscribeRequest": {"expires": 3600, "service": ["call"]}},
        auth=httpx.BasicAuth(ALICE, PASSWORD),
        trust_env=False,
    )
    assert answer.status_code == 200, answer.text
    found = msgspec.json.decode(answer.content, type=_Answer)
    return found.subscribe_response.subscription_params.turn_credentials


def test_credentials_of_a_subscription_are_good(server: ServerProcess, turn_port: int) -> None:
    given = credentials(server)
    expiry, _, user = given.username.partition(":")
    assert user == ALICE
    assert 86_000 < int(expiry) - time.time() <= 86_400
    assert allocates(turn_port, given.username, given.password)


def test_others_are_not(server: ServerProcess, secret: str, turn_port: int) -> None:
    given = credentials(server)
    now = int(time.time())
    expired = turn.credentials(secret, ALICE, now - 10)
    made_up = turn.credentials("another secret altogether", ALICE, now + 600)
    longer = given.username.replace(given.username.partition(":")[0], str(now + 10**6))
    assert not allocates(turn_port, expired.username, expired.password)
    assert not allocates(turn_port, made_up.username, made_up.password)
    assert not allocates(turn_port, longer, given.password)
    assert not allocates(turn_port, ALICE, PASSWORD)
