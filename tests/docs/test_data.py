"""Settings and JSON of the documents are what their readers take them for."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import msgspec
import pytest
from tests.docs.blocks import Proof, Unit, of

from offhook.settings import Settings


@pytest.mark.parametrize("unit", of(Proof.SETTINGS), ids=str)
def test_settings_are_read(unit: Unit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OFFHOOK_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "offhook.toml"
    config.write_text(unit.text)
    monkeypatch.setenv("OFFHOOK_CONFIG", str(config))
    assert Settings().model_fields_set == set(tomllib.loads(unit.text))


@pytest.mark.parametrize("unit", of(Proof.JSON), ids=str)
def test_json_is_json(unit: Unit) -> None:
    assert msgspec.json.decode(unit.text, type=dict[str, object])
