"""The authentication functions of the documents, and the webhook's receiver, decide as the documents say."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import closing

import msgspec
import pytest
from tests.docs.blocks import Proof, Unit, of
from tests.docs.conftest import ALONE, ReaderOf
from tests.docs.reader import ROOT, Reader, reading

from offhook.chatkitty import ChatKitty
from offhook.client.transport import Transport

FUNCTIONS = [unit for unit in of(Proof.FUNCTIONS) if unit.page != ALONE]
"""The other page's are served with all the time, see conftest.py."""
(RECEIVER,) = (unit for unit in of(Proof.PROGRAM) if unit.title == "receiver.py")


async def attempts(reader: Reader, user: str) -> tuple[str, str]:
    """Starts a session with the wrong PIN and with the right one: what the client reads, and what it is called then."""
    async with (
        Transport(trust_env=False) as transport,
        ChatKitty(reader.api_key, host=reader.http_host, is_secure=False, transport=transport) as kitty,
    ):
        refused = await kitty.start_session(user, auth_params={"pin": "0000"})
        assert refused.failed
        started = await kitty.start_session(user, auth_params={"pin": "2468"})
        return refused.error.message, started.unwrap().session.user.display_name


@pytest.mark.parametrize("unit", FUNCTIONS, ids=str)
async def test_functions_decide(unit: Unit) -> None:
    with reading("--functions", "functions", files={"functions.py": unit.text}) as reader:
        refused, name = await attempts(reader, "jane@example.com")
        assert refused == "Wrong PIN"
        assert name.startswith("Jane")


async def test_the_receiver_decides(reader_of: ReaderOf) -> None:
    reader: Reader = reader_of(RECEIVER)
    (reader.folder / "receiver.py").write_text(RECEIVER.text)
    shown = msgspec.json.decode(reader.types("offhook app show default --secrets --json"), type=dict[str, object])
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "receiver:app", "--fd", str(listener.fileno()), "--log-level", "error"],
            cwd=reader.folder,
            env={**reader.environment, "WEBHOOK_SECRET": str(shown["webhook_secret"]), "PYTHONPATH": str(ROOT / "src")},
            pass_fds=(listener.fileno(),),
            stdin=subprocess.DEVNULL,
        )
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/offhook"
        try:
            reader.types(f"offhook app update default --webhook {address}")
            assert await attempts(reader, "kate@example.com") == ("Wrong PIN", "Kate@Example.Com")
        finally:
            reader.types("offhook app update default --no-webhook")
            process.terminate()
            process.wait(20)
