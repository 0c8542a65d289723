"""Names of databases: what they mean, and what of them is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from offhook.errors import Unavailable
from offhook.storage.places import Place, at, opened, place_of


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("offhook.db", "offhook.db"),
        ("postgresql://db.example.com/offhook", "postgresql://db.example.com/offhook"),
        ("postgresql://me:hush@db.example.com:5433/offhook", "postgresql://db.example.com:5433/offhook"),
        ("postgresql://me:hush@db.example.com/offhook?sslmode=require", "postgresql://db.example.com/offhook"),
        ("postgresql://db.example.com/offhook?user=me&password=hush", "postgresql://db.example.com/offhook"),
        # What should have been percent-encoded in a password.
        ("postgresql://me:hu/sh@db.example.com/offhook", "postgresql://…"),
        ("postgresql://me:12/hush@db.example.com/offhook", "postgresql://…"),
        ("postgresql://me:hu?sh@db.example.com/offhook", "postgresql://…"),
        ("postgresql://me:hu#sh@db.example.com/offhook", "postgresql://…"),
    ],
)
def test_no_password_is_shown(name: str, shown: str) -> None:
    place = place_of(name)
    assert str(place) == shown
    assert "hu" not in repr(place)


def test_a_url_may_name_a_file() -> None:
    assert place_of("sqlite:///data/offhook.db") == Place(path=Path("data/offhook.db"))


async def test_a_file_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    def work() -> None:
        with opened(Place(path=tmp_path), alone=True, reading=False):
            pass

    with pytest.raises(Unavailable, match="cannot be used"):
        await at(work)
