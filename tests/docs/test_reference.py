"""The API reference has all that the SDK's front doors have."""

from __future__ import annotations

import re
from types import ModuleType

import pytest
from tests.docs.blocks import ROOT

from offhook import chatkitty, kandy, testing

REFERENCE = ROOT / "docs" / "reference"
SHOWN = {page.stem: re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE) for page in REFERENCE.glob("*.md")}


@pytest.mark.parametrize("door", [chatkitty, kandy, testing], ids=lambda door: door.__name__)
def test_every_public_name_is_shown(door: ModuleType) -> None:
    own = {name.rpartition(".")[2] for name in SHOWN[door.__name__.rpartition(".")[2]]}
    shared = {name.rpartition(".")[2] for name in SHOWN["shared"]}
    assert set(door.__all__) - own - shared == set()


@pytest.mark.parametrize("page", sorted(SHOWN))
def test_nothing_is_shown_twice(page: str) -> None:
    assert SHOWN[page]
    assert len(set(SHOWN[page])) == len(SHOWN[page])
