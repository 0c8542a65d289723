"""Settings on the command line: from flags, environment and file, and what is said when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import Cli

from offhook.cli.config import load_settings
from offhook.cli.failures import ExitCode, Failure


def test_flags_win_over_environment_over_file(offhook: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "other.toml"
    config.write_text('port = 1\ntls_port = 1\nhost = "::1"\n')
    monkeypatch.setenv("OFFHOOK_CONFIG", str(config))
    monkeypatch.setenv("OFFHOOK_PORT", "2")
    monkeypatch.setenv("OFFHOOK_TLS_PORT", "2")
    settings = load_settings({"port": 3, "tls_port": None})
    assert (settings.port, settings.tls_port, settings.host) == (3, 2, "::1")


def test_the_file_in_the_working_directory_is_found(offhook: Cli, tmp_path: Path) -> None:
    (tmp_path / "offhook.toml").write_text("max_subscriptions = 77\n")
    assert load_settings().max_subscriptions == 77


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "There is no setting prot"),
        ("port = 70000", "port: "),
        ("port = [", "offhook.toml: "),
        ('tls_cert = "x.pem"', "tls_cert and tls_key go together"),
        ('base_path = "no/slash"', "base_path: "),
    ],
)
def test_a_file_that_is_wrong(offhook: Cli, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "offhook.toml").write_text(text)
    with pytest.raises(Failure) as caught:
        load_settings()
    assert message in caught.value.message
    assert caught.value.exit_code is ExitCode.USAGE


def test_a_file_that_is_named_must_be_there(offhook: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFHOOK_CONFIG", "missing.toml")
    with pytest.raises(Failure, match="no configuration file"):
        load_settings()


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("OFFHOOK_PORT", "many", 2),
        ("OFFHOOK_TRUSTED_PROXIES", "10.0.0.1", 2),
        ("OFFHOOK_BROKER_URL", "redis://localhost", 1),
        ("OFFHOOK_DATABASE_URL", "mysql://localhost/x", 1),
        ("OFFHOOK_DATABASE_URL", "postgresql://127.0.0.1:1/x", 4),
        ("OFFHOOK_ADMIN_URL", "ftp://localhost", 4),
        ("OFFHOOK_ADMIN_URL", "http://127.0.0.1:1", 4),
    ],
)
def test_commands_say_which_setting_is_wrong(
    offhook: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, code: int
) -> None:
    monkeypatch.setenv("OFFHOOK_ADMIN_TOKEN", "x")
    monkeypatch.setenv(variable, value)
    outcome = offhook("app", "list")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith("offhook: ") and outcome.err.count("\n") == 1


def test_a_data_directory_that_cannot_be(offhook: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OFFHOOK_DATA_DIR", str(tmp_path / "file" / "data"))
    outcome = offhook("app", "list")
    assert outcome.code == 4
    assert "Cannot use the data directory" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "2"], "PostgreSQL and Redis"),
        (["--workers", "2"], "database_url"),
        (["--workers", "2"], "broker_url"),
        (["--workers", "0"], "at least one process"),
        (["--tls-dev", "--tls-cert", "a.pem", "--tls-key", "b.pem"], "exclude each other"),
        (["--config", "missing.toml"], "no configuration file"),
    ],
)
def test_serve_refuses_what_it_cannot_do(
    offhook: Cli, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("OFFHOOK_CONFIG", "")
    monkeypatch.delenv("OFFHOOK_CONFIG")
    outcome = offhook("serve", *arguments)
    assert outcome.code == 2
    assert message in outcome.err
