"""``offhook doctor`` and ``offhook version``."""

from __future__ import annotations

import os
import socket
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from tests.unit.cli.support import Cli

import offhook as package
from offhook.cli.doctor import machine
from offhook.storage.lock import DataLock


def levels(offhook: Cli) -> dict[object, object]:
    """Check → level; the worst of it where a check finds several things."""
    outcome = offhook("doctor", "--json")
    checks = outcome.json["checks"]
    assert isinstance(checks, list)
    order = ["ok", "warn", "fail"]
    found: dict[object, object] = {}
    for check in checks:
        worst = max(str(found.get(check["check"], "ok")), check["level"], key=order.index)
        found[check["check"]] = worst
        assert check["text"] and bool(check["advice"]) == (check["level"] != "ok")
    assert outcome.json["ok"] is ("fail" not in found.values())
    assert outcome.code == (1 if "fail" in found.values() else 0)
    return found


def test_a_fresh_machine_is_well(offhook: Cli) -> None:
    found = levels(offhook)
    assert set(found) == {
        "settings", "python", "data", "disk", "database", "broker", "secret", "server", "tls", "turn", "clock",
        "open files", "functions",
    }  # fmt: skip
    assert "fail" not in found.values()
    assert not offhook.data_dir.exists()


def test_text_names_what_to_do(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_FUNCTIONS", "missing_module")
    outcome = offhook("doctor")
    assert outcome.code == 1
    assert "fail functions" in outcome.out and "-> correct the module" in outcome.out


def test_settings_that_are_wrong(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_PORT", "many")
    assert levels(offhook) == {"settings": "fail"}


def test_a_used_data_directory(offhook: Cli) -> None:
    offhook.done("app", "create", "shop")
    assert {levels(offhook)[name] for name in ("data", "database", "server")} == {"ok"}
    (offhook.data_dir / "admin.token").chmod(0o644)
    assert levels(offhook)["data"] == "warn"


def test_a_database_of_another_version(offhook: Cli) -> None:
    offhook.done("app", "create", "shop")
    with sqlite3.connect(offhook.data_dir / "offhook.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    assert levels(offhook)["database"] == "warn"


def test_a_clock_that_was_set_back(offhook: Cli) -> None:
    offhook.done("app", "create", "shop")
    later = time.time() + 3600
    os.utime(offhook.data_dir / "offhook.db", (later, later))
    assert levels(offhook)["clock"] == "fail"


def test_a_damaged_database(offhook: Cli) -> None:
    offhook.data_dir.mkdir()
    (offhook.data_dir / "offhook.db").write_bytes(b"this is no database, however long one looks at it" * 100)
    assert levels(offhook)["database"] == "fail"


def test_engines_that_are_not_there(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_BROKER_URL", "redis://localhost")
    assert levels(offhook)["database"] == "fail"


def test_a_server_that_says_nothing(offhook: Cli) -> None:
    lock = DataLock(offhook.data_dir)
    assert lock.acquire()
    try:
        assert levels(offhook)["server"] == "warn"
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        lock.write(b'{"pid": 1, "urls": ["http://127.0.0.1:%d"]}' % port)
        assert levels(offhook)["server"] == "fail"
    finally:
        lock.release()


@pytest.mark.parametrize(("days", "level"), [(-1, "fail"), (5, "warn"), (60, "ok")])
def test_certificates(offhook: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, days: int, level: str) -> None:
    now = datetime.now(UTC)
    leaf = trustme.CA().issue_cert(
        "chat.example.com", not_before=now - timedelta(days=30), not_after=now + timedelta(days=days)
    )
    leaf.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    leaf.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    monkeypatch.setenv("OFFHOOK_TLS_CERT", str(tmp_path / "cert.pem"))
    monkeypatch.setenv("OFFHOOK_TLS_KEY", str(tmp_path / "key.pem"))
    assert levels(offhook)["tls"] == level
    assert "chat.example.com" in offhook("doctor").out
    trustme.CA().issue_cert("other").private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    assert levels(offhook)["tls"] == "fail"


def test_pages_that_could_not_open_their_notification_socket(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert levels(offhook)["tls"] == "warn"
    assert "Kandy.js opens its notification socket by wss only" in offhook("doctor").out
    monkeypatch.setenv("OFFHOOK_PUBLIC_URL", "http://chat.example.com")
    assert levels(offhook)["tls"] == "warn"
    monkeypatch.setenv("OFFHOOK_PUBLIC_URL", "https://chat.example.com")
    assert levels(offhook)["tls"] == "ok"
    monkeypatch.setenv("OFFHOOK_TLS_DEV", "true")
    assert "authority.pem" in offhook("doctor").out


def test_the_secret_that_the_turn_server_must_share(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "what offhook turn-secret prints" in offhook("doctor").out
    monkeypatch.setenv("OFFHOOK_TURN_SECRET", "a secret of its own")
    outcome = offhook("doctor")
    assert "must have the setting turn_secret" in outcome.out
    assert "a secret of its own" not in outcome.out


def test_functions_that_can_be_imported(offhook: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = tmp_path / "shop_functions.py"
    module.write_text(
        "from offhook.functions import on\n\n"
        "@on.user_attempted_start_session\ndef authenticate(event, context):\n    return None\n"
    )
    monkeypatch.setenv("OFFHOOK_FUNCTIONS", str(module))
    assert levels(offhook)["functions"] == "ok"
    module.write_text("import not_to_be_found_anywhere\n")
    assert levels(offhook)["functions"] == "fail"


def test_open_files(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_MAX_CONNECTIONS", "1")
    assert levels(offhook)["open files"] == "ok"
    monkeypatch.setenv("OFFHOOK_MAX_CONNECTIONS", "1000000000")
    assert levels(offhook)["open files"] == "warn"


def test_version(offhook: Cli) -> None:
    assert offhook.done("version") == dict(machine.versions())
    assert f"offhook     {package.__version__}" in offhook("version").out
