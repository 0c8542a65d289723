"""The scripts that make tokens, in Python and Node: what they print lets a new user in."""

from __future__ import annotations

import sys

import msgspec
import pytest
from tests.docs.blocks import Proof, Unit, of
from tests.docs.conftest import ReaderOf
from tests.docs.reader import Reader

PAGE = "docs/tutorials/kandy-link.md"
SCRIPTS = {unit.title: unit for unit in of(Proof.PROGRAM, Proof.SCRIPT) if unit.page == PAGE}


@pytest.fixture(scope="module")
def reader(reader_of: ReaderOf) -> Reader:
    made = reader_of(SCRIPTS["jwt_token.py"])
    for unit in of(Proof.SHELL):
        if unit.page == PAGE and "jwt-secret.txt" in unit.text:
            for line in unit.blocks[0].lines:
                made.types(line)
    return made


def token(reader: Reader, unit: Unit, user: str, **environment: str) -> str:
    assert unit.title is not None
    (reader.folder / unit.title).write_text(unit.text)
    program = sys.executable if unit.title.endswith(".py") else "node"
    return reader.types(f"{program} {unit.title} {user}", **environment).strip()


def test_all_scripts_are_tried() -> None:
    assert set(SCRIPTS) == {"hmac_token.py", "hmac_token.mjs", "jwt_token.py", "jwt_token.mjs"}


@pytest.mark.parametrize("name", ["hmac_token.py", "hmac_token.mjs"])
def test_hmac_tokens_sign_a_new_user_in_once(reader: Reader, name: str) -> None:
    shown = msgspec.json.decode(reader.types(".venv/bin/offhook app show default --secrets --json"))
    user = f"{name.replace('.', '-')}@example.com"
    made = token(reader, SCRIPTS[name], user, OFFHOOK_HMAC_KEY=shown["hmac_key"])
    assert reader.subscribes(user, {"x-token": made}).status_code == 200
    assert reader.subscribes(user, {"x-token": made}).status_code == 401
    forged = token(reader, SCRIPTS[name], user, OFFHOOK_HMAC_KEY="k" * 64)
    assert reader.subscribes(user, {"x-token": forged}).status_code == 401


@pytest.mark.parametrize("name", ["jwt_token.py", "jwt_token.mjs"])
def test_jwts_sign_a_new_user_in(reader: Reader, name: str) -> None:
    user = f"{name.replace('.', '-')}@example.com"
    secret = (reader.folder / "jwt-secret.txt").read_text().strip()
    made = token(reader, SCRIPTS[name], user, JWT_SECRET=secret)
    assert reader.subscribes(user, {"authorization": f"Bearer {made}"}).status_code == 200
    assert reader.subscribes(user, query=f"?token={made}").status_code == 200
    forged = token(reader, SCRIPTS[name], user, JWT_SECRET="s" * 64)
    assert reader.subscribes(user, {"authorization": f"Bearer {forged}"}).status_code == 401
