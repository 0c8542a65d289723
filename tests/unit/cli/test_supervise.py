"""Serving from several processes: what is refused, at the start and when settings change."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path

import pytest

from offhook.cli.failures import ExitCode, Failure
from offhook.cli.supervise import COMMAND, check_shareable, reread, supervise
from offhook.errors import InvalidInput
from offhook.server.binding import bind, close_all
from offhook.settings import Settings, settled
from offhook.storage import DataLock

SHARED = {"database_url": "postgresql://localhost/offhook", "broker_url": "redis://localhost"}


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OFFHOOK_CONFIG", raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"OFFHOOK_{name.upper()}", raising=False)


def settings_of(**given: object) -> Settings:
    return Settings.model_validate({**SHARED, **given})


def settings_never_read() -> Settings:
    raise AssertionError("not to be read")


@pytest.mark.parametrize(
    ("given", "unfit"),
    [
        ({"database_url": None}, "database_url (now sqlite) serves one process only"),
        ({"database_url": "sqlite:///x.db"}, "database_url (now sqlite) serves one process only"),
        ({"broker_url": "memory://"}, "broker_url (now memory) serves one process only"),
        (
            {"database_url": None, "broker_url": "memory://"},
            "database_url (now sqlite) and broker_url (now memory) serve one process only",
        ),
    ],
)
def test_several_processes_need_what_they_can_share(given: dict[str, object], unfit: str) -> None:
    with pytest.raises(Failure) as caught:
        check_shareable(settings_of(**given), 3)
    assert caught.value.exit_code is ExitCode.USAGE
    assert caught.value.message.startswith("--workers 3: several processes need PostgreSQL and Redis")
    assert caught.value.message.endswith(unfit)
    check_shareable(settings_of(), 3)


@pytest.mark.parametrize(
    "change",
    [
        {"port": 1},
        {"data_dir": Path("other")},
        {"secret_key": "x" * 32},
        {"broker_prefix": "a"},
        # The supervisor goes by it when it waits for workers that leave, and so does whoever waits for the supervisor.
        {"drain_seconds": 60.0},
    ],
)
def test_what_all_workers_share_cannot_change_under_them(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=f"^{next(iter(change))} changed"):
        reread(settings_of(), lambda: settings_of(**change))


def test_other_settings_can_change_one_worker_after_the_other() -> None:
    new = settings_of(max_connections=7)
    assert reread(settings_of(), lambda: new) is new
    with pytest.raises(InvalidInput, match="tls changed"):
        reread(settings_of(), lambda: settings_of(tls_dev=True))


def test_settings_that_cannot_be_read_change_nothing() -> None:
    def read() -> Settings:
        raise Failure("settings", "There is no setting prot")

    with pytest.raises(InvalidInput, match="There is no setting prot"):
        reread(settings_of(), read)


def test_handed_on_settings_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(port=7, trusted_proxies=("10.0.0.0/8",), tls_dev=True, secret_key="x" * 32)
    monkeypatch.setenv("OFFHOOK_PORT", "8")
    monkeypatch.setenv("OFFHOOK_PUBLIC_URL", "https://example.com")
    Path("offhook.toml").write_text("this is no TOML")
    assert settled(settings.model_dump_json()).model_dump() == settings.model_dump()


def test_limits_without_an_end_are_handed_on() -> None:
    settings = settings_of(connect_rate=math.inf)
    assert settled(settings.model_dump_json()).model_dump() == settings.model_dump()


def test_workers_import_nothing_from_the_folder_that_they_are_started_in(tmp_path: Path) -> None:
    """As ``offhook serve`` alone does not: a data folder, or one of functions, may hold files of any name."""
    (tmp_path / "msgspec.py").write_text("raise SystemExit('mine')")
    done = subprocess.run([*COMMAND, "9999"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "only its supervisor starts a worker" in done.stderr


def test_a_folder_or_port_that_others_use_is_refused(tmp_path: Path) -> None:
    lock = DataLock(tmp_path)
    taken = bind("127.0.0.1", 0, "port")
    try:
        settings = settings_of(data_dir=tmp_path, port=taken[0].getsockname()[1])
        with pytest.raises(Failure, match="in use by another program"):
            supervise(settings, settings_never_read, 2, {}, as_json=False)
        assert lock.acquire()
        with pytest.raises(Failure, match="Another Offhook uses the data folder"):
            supervise(settings, settings_never_read, 2, {}, as_json=False)
    finally:
        lock.release()
        close_all(taken)
