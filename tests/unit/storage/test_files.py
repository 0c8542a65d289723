"""Files that come and go while they are compared with users' pictures."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from sqlalchemy import Connection
from tests.unit.storage.filling import ROWS, add_file, file_name, filled_file

from offhook.storage.check import check_database
from offhook.storage.places import Place, opened


async def test_what_is_right_a_moment_later_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = filled_file(tmp_path / "offhook.db")
    gone, replaced = file_name(ROWS + 1), file_name(ROWS + 2)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # As a server keeps it.
        connection.execute("PRAGMA journal_mode = WAL")
        for number in range(1, ROWS + 1):
            connection.execute("UPDATE users SET picture = ? WHERE id = ?", (f"/v1/files/{file_name(number)}", number))
        connection.execute("UPDATE users SET picture = ? WHERE id = 1", (f"/v1/files/{gone}",))
        connection.execute("UPDATE users SET picture = ? WHERE id = 2", (f"/v1/files/{replaced}",))

    def opened_later(place: Place) -> AbstractContextManager[Connection]:
        # Between the two looks a server gives the second user another picture; the first one's stays away.
        add_file(path, file_name(ROWS + 3), b"new")
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("UPDATE users SET picture = ? WHERE id = 2", (f"/v1/files/{file_name(ROWS + 3)}",))
        return opened(place)

    monkeypatch.setattr("offhook.storage.files.opened", opened_later)
    checked = await check_database(Place(path=path))
    (fault,) = [fault.text for fault in checked.faults if fault.check == "pictures"]
    assert gone in fault and fault.startswith("User 1 (")
