"""The commands of the documents do what they are for, on a server that was started as they say."""

from __future__ import annotations

import re

import pytest
from tests.docs.blocks import Proof, Unit, commands, of
from tests.docs.conftest import ReaderOf
from tests.docs.reader import ALICE, Reader

CHANGING = ("docs/tutorials/", "docs/", "README.md", "docs/authentication.md", "docs/guides/production.md")
"""Pages by what their commands leave behind: first those after which users still get in as before."""
SHELL = sorted(
    # What several pages tell in the same words is typed once.
    {unit.text: unit for unit in of(Proof.SHELL) if commands(unit.blocks[0])}.values(),
    key=lambda unit: max(range(len(CHANGING)), key=lambda at: len(CHANGING[at]) * unit.page.startswith(CHANGING[at])),
)
PRINTS = {
    "curl --silent": r'^\{"status":"alive"\}$',
    "session end --user bob@example.com --text": r"^\d+ sessions? ended\.$",
    "session list --user alice@example.com": "kandy link",
    "session show": "call, Presence, IM",
    "turn-secret": r"^\S{32,}$",
    "hmac": "hmac key",
    "user set-password": "jane@example.com|bob@example.com",
}
"""Part of a command → what it must print."""


@pytest.fixture(scope="module")
def prepared(reader_of: ReaderOf) -> Reader:
    """The reader, with the application and the user that the pages speak of."""
    reader = reader_of(SHELL[0])
    reader.types("offhook app create shop")
    reader.types("offhook user create jane@example.com")
    return reader


@pytest.mark.parametrize("unit", SHELL, ids=str)
def test_commands_work(unit: Unit, prepared: Reader) -> None:
    for line in commands(unit.blocks[0]):
        if "session show 1" in line:
            # On the reader's own server hers is the first session; here it is the newest.
            shown = prepared.types(f"offhook session list --user {ALICE}")
            newest = max(map(int, re.findall(r"^\W*(\d+)", shown, re.MULTILINE)))
            line = line.replace("show 1", f"show {newest}")
        elif "session list --user" in line:
            assert prepared.subscribes(ALICE, password=prepared.served.demo_users[ALICE]).status_code == 200
        elif "update default --token" in line:
            prepared.types("offhook app update default --no-tokens")
        printed = prepared.types(line, PASSWORD="a password of hers")
        for part, expected in PRINTS.items():
            assert part not in line or re.search(expected, printed, re.MULTILINE), f"{line}: {printed}"
