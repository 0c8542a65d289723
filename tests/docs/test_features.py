"""The table of what is supported says what the server and the SDK have."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass

import pytest
from tests.docs.blocks import ROOT

from offhook import kandy
from offhook.chatkitty import ChatKitty
from offhook.client.kandy.client import Client
from offhook.client.kandy.conversations import Conversation
from offhook.gateways.kandy.rest import _HANDLERS
from offhook.protocols.kandy.paths import Resource

TEXT = (ROOT / "docs" / "features.md").read_text()
CHATKITTY, KANDY = TEXT.split("\n## Kandy\n")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table, without the marks around code."""

    cells: tuple[str, ...]


def rows(text: str) -> list[Row]:
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [Row(tuple(cell.strip() for cell in line.strip("|").split("|"))) for line in lines[1:]]


def names(cell: str) -> list[str]:
    return re.findall(r"`([\w./]+)`", cell)


def test_chatkitty_rows_are_the_clients_methods() -> None:
    told = {name for row in rows(CHATKITTY) for name in names(row.cells[2])}
    assert {name for name in told if not callable(getattr(ChatKitty, name, None))} == set()
    public = {name for name, member in inspect.getmembers(ChatKitty, callable) if not name.startswith("_")}
    assert public - told == {"close", "events"}


def test_kandy_rows_are_the_clients_methods() -> None:
    client = kandy.create({"authentication": {"server": {"base": "localhost"}}})
    told = {name for row in rows(KANDY) for name in names(row.cells[4])}
    missing = set()
    for name in told:
        holder: object = client
        for part in name.split("."):
            holder = getattr(holder, part, None)
        if not callable(holder) and not hasattr(Conversation, name):
            missing.add(name)
    assert missing == set()
    public = {name for name, member in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    public |= {name for name, member in inspect.getmembers(Conversation, inspect.iscoroutinefunction)}
    assert public - told == set()


@pytest.mark.parametrize("resource", Resource, ids=str)
def test_kandy_rows_are_what_is_served(resource: Resource) -> None:
    found = [row for row in rows(KANDY) if names(row.cells[1]) == [resource.value]]
    assert found, "every resource has its line"
    served = {any(cell.startswith("yes") for cell in row.cells[2:4]) for row in found}
    assert served == {any(handled is resource for handled, _ in _HANDLERS)}
