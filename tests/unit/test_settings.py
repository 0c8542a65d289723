"""Settings: their sources, their forms, and what follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from offhook.settings import Settings


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OFFHOOK_CONFIG", raising=False)
    for name in Settings.model_fields:
        monkeypatch.delenv(f"OFFHOOK_{name.upper()}", raising=False)


def test_defaults_are_safe_and_local() -> None:
    settings = Settings()
    assert (settings.host, settings.port, settings.tls_port) == ("127.0.0.1", 8686, 8687)
    assert (settings.tls, settings.durability, settings.trusted_proxies) == (False, "full", ())
    assert settings.sqlite_path == Path("offhook-data/offhook.db")


def test_flags_win_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offhook.toml").write_text('port = 1\ntls_port = 1\nhost = "::1"\ntrusted_proxies = ["10.0.0.0/8"]\n')
    monkeypatch.setenv("OFFHOOK_PORT", "2")
    monkeypatch.setenv("OFFHOOK_TLS_PORT", "2")
    settings = Settings(port=3)
    assert (settings.port, settings.tls_port, settings.host) == (3, 2, "::1")
    assert settings.trusted_proxies == ("10.0.0.0/8",)


def test_another_file_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "offhook.toml").write_text("port = 1\n")
    (tmp_path / "other.toml").write_text("tls_port = 2\n")
    monkeypatch.setenv("OFFHOOK_CONFIG", "other.toml")
    settings = Settings()
    assert (settings.port, settings.tls_port) == (8686, 2)


def test_lists_in_the_environment_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_TRUSTED_PROXIES", '["10.0.0.0/8", "unix"]')
    assert Settings().trusted_proxies == ("10.0.0.0/8", "unix")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "-1"),
        ("port", "65536"),
        ("base_path", "chat"),
        ("base_path", "/chat/"),
        ("base_path", "/a b"),
        ("public_url", "chat.example.com"),
        ("public_url", "https://chat.example.com/?x"),
        ("secret_key", "short"),
        ("durability", "none"),
        ("node_lease", "0"),
        ("drain_seconds", "-1"),
        ("max_connections", "0"),
        ("max_frame", "10"),
        ("log_level", "loud"),
        ("tls_cert", "cert.pem"),
        ("tls_key", "key.pem"),
    ],
)
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"OFFHOOK_{name.upper()}", value)
    with pytest.raises(ValidationError):
        Settings()


def test_unknown_settings_in_the_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "offhook.toml").write_text("prot = 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings()


@pytest.mark.parametrize("url", ["https://chat.example.com", "http://10.0.0.1:8080/chat"])
def test_public_urls(url: str) -> None:
    assert Settings(public_url=url).public_url == url


def test_tls_is_by_one_way_only() -> None:
    assert Settings(tls_dev=True).tls
    assert Settings(tls_cert=Path("a"), tls_key=Path("b")).tls
    with pytest.raises(ValidationError, match="exclude"):
        Settings(tls_dev=True, tls_cert=Path("a"), tls_key=Path("b"))


def test_settings_do_not_change() -> None:
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]


def test_no_secret_is_shown_by_accident() -> None:
    secrets = {
        "secret_key": "hush" * 8,
        "turn_secret": "hush" * 4,
        "database_url": "postgresql://me:hush@db/x",
        "broker_url": "redis://:hush@db",
    }
    assert "hush" not in repr(Settings.model_validate(secrets))
