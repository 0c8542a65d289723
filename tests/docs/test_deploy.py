"""What deploy/ offers to start from: read by its own tools where they are, and held against the settings everywhere."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import msgspec
import pytest
from tests.databases import apart, execute, url_of
from tests.docs.blocks import ROOT
from typer.main import get_command

from offhook.cli.main import app
from offhook.cli.supervise import STOP_MARGIN
from offhook.core import check_engines
from offhook.settings import Settings

DEPLOY = ROOT / "deploy"
VARIABLE = re.compile(r"\$\{(\w+)(?::\?[^}]*)?\}")


class Check(msgspec.Struct):
    """A health check of compose.yaml."""

    test: list[str]


class Service(msgspec.Struct):
    """A service of compose.yaml, as far as it is looked at."""

    healthcheck: Check
    environment: dict[str, str] = {}
    command: list[str] = []
    ports: list[str] = []
    image: str = ""
    stop_grace_period: str = "10s"


class Compose(msgspec.Struct):
    """compose.yaml, as far as it is looked at."""

    services: dict[str, Service]
    configs: dict[str, dict[str, str]]
    volumes: dict[str, None]


@pytest.fixture
def compose() -> Compose:
    return msgspec.yaml.decode((DEPLOY / "compose.yaml").read_bytes(), type=Compose)


def secrets_in(folder: Path) -> dict[str, str]:
    """Has the script write its secrets in a folder. Returns them."""
    script = shutil.copy(DEPLOY / "secrets.sh", folder)
    subprocess.run([script], check=True, capture_output=True, timeout=20)
    lines = (folder / ".env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def flags_of(command: str) -> set[str]:
    """The options of a command of Offhook's."""
    described = get_command(app).commands[command]  # type: ignore[attr-defined]
    return {option for parameter in described.params for option in parameter.opts}


def test_secrets_are_made_once_and_for_nobody_else(tmp_path: Path) -> None:
    made = secrets_in(tmp_path)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    secret = [value for name, value in made.items() if name not in ("PUBLIC_URL", "TURN_REALM")]
    assert len(set(secret)) == len(secret) == 5 and all(re.fullmatch("[0-9a-f]{64}", value) for value in secret)
    again = subprocess.run([tmp_path / "secrets.sh"], capture_output=True, text=True, timeout=20)
    assert again.returncode == 1 and "there already" in again.stderr
    assert dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines()) == made


def test_compose_needs_every_secret_and_has_no_default(compose: Compose, tmp_path: Path) -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    used = set(VARIABLE.findall(text))
    assert used == set(secrets_in(tmp_path))
    assert all("run deploy/secrets.sh" in found[0] for found in re.finditer(r"\$\{[^}]*\}", text))
    for service in compose.services.values():
        for name, value in service.environment.items():
            if re.search("PASSWORD|SECRET|AUTH|_URL", name):
                assert VARIABLE.search(value), name
    assert set(compose.services) == {"offhook", "postgres", "redis", "coturn"}
    assert set(compose.volumes) == {"offhook", "postgres"}


def test_compose_sets_what_the_server_reads(compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = secrets_in(tmp_path)
    service = compose.services["offhook"]
    monkeypatch.chdir(tmp_path)
    for name, value in service.environment.items():
        assert name.removeprefix("OFFHOOK_").lower() in Settings.model_fields, name
        monkeypatch.setenv(name, VARIABLE.sub(lambda found: made[found[1]], value))
    settings = Settings()
    check_engines(settings)
    assert settings.secret_key == made["OFFHOOK_SECRET_KEY"]
    assert f"static-auth-secret={made['TURN_SECRET']}" in VARIABLE.sub(
        lambda found: made[found[1]], compose.configs["coturn"]["content"]
    )
    assert settings.turn_secret == made["TURN_SECRET"]
    assert service.command[0] == "serve" and set(service.command[1::2]) <= flags_of("serve")
    assert float(service.stop_grace_period.rstrip("s")) > settings.drain_seconds + STOP_MARGIN
    assert service.ports == [f"127.0.0.1:{settings.port}:{settings.port}"]


def test_compose_is_read_by_docker() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, timeout=20).returncode:
        pytest.skip("docker compose is not installed; the tests above read the file")
    environment = dict.fromkeys(VARIABLE.findall((DEPLOY / "compose.yaml").read_text()), "x")
    command = [docker, "compose", "--file", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_the_database_of_compose_is_no_superusers(compose: Compose, tmp_path: Path) -> None:
    made = secrets_in(tmp_path)
    role = f"offhook_{os.getpid()}"
    text = VARIABLE.sub(lambda found: made[found[1]], compose.configs["database"]["content"])
    statements = [line.replace("offhook", role) for line in text.strip().splitlines()]
    url = url_of(role).replace("postgres@", f"{role}:{made['POSTGRES_PASSWORD']}@")
    try:
        for statement in statements:
            apart(execute(statement))
        apart(execute("CREATE TABLE here (id int)", url=url))
        (found,) = apart(
            execute("SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = $1", role)
        )
        assert found[0] is False
    finally:
        apart(execute(f"DROP DATABASE IF EXISTS {role} WITH (FORCE)"))
        apart(execute(f"DROP ROLE IF EXISTS {role}"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_commands_run_as_the_service_does() -> None:
    """With its settings and secrets, as its user, wherever whoever types them is."""
    # Not in pytest's own folders, which are root's alone.
    with tempfile.TemporaryDirectory() as folder:
        _check_who_runs_commands(Path(folder))


def _check_who_runs_commands(tmp_path: Path) -> None:
    text = (DEPLOY / "offhook.sh").read_text()
    service = unit()["Service"]
    program, _, _ = service["ExecStart"].partition(" ")
    assert program in text and service["Environment"] in text and service["EnvironmentFile"].lstrip("-") in text
    data, told = tmp_path / "data", tmp_path / "told.sh"
    told.write_text(
        '#!/bin/sh\nid -un; pwd; echo "$HOME $OFFHOOK_CONFIG $OFFHOOK_DATABASE_URL $OFFHOOK_SECRET_KEY $*"\n'
    )
    told.chmod(0o755)
    tmp_path.chmod(0o755)
    # The last line is not ended.
    (tmp_path / "secrets.env").write_text("# By hand\nOFFHOOK_SECRET_KEY=k&k\nOFFHOOK_DATABASE_URL=pg://a?b=c&d=e")
    for old, new in (
        (program, str(told)),
        ("home=/var/lib/offhook", f"home={data}"),
        ("/etc/offhook", str(tmp_path)),
        ("-o offhook -g offhook", "-o nobody -g nogroup"),
        ("--reuid=offhook --regid=offhook", "--reuid=nobody --regid=nogroup"),
    ):
        assert old in text
        text = text.replace(old, new)
    script = tmp_path / "offhook.sh"
    script.write_text(text)
    done = subprocess.run(["sh", str(script), "db", "check"], capture_output=True, text=True, timeout=20)
    assert done.stdout.splitlines() == [
        "nobody",
        str(data),
        f"{data} {tmp_path}/offhook.toml pg://a?b=c&d=e k&k db check",
    ], done.stderr
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def test_the_image_has_what_it_copies() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    copied = [name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.M) for name in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists() and f"!{name}" in ignored
    for name in re.findall(r"OFFHOOK_(\w+)=", text):
        assert name.lower() in Settings.model_fields


def unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(interpolation=None, strict=True)
    read.optionxform = str  # type: ignore[assignment]
    read.read_string((DEPLOY / "offhook.service").read_text())
    return read


def test_the_unit_starts_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    service = unit()["Service"]
    words = service["ExecStart"].split()
    assert words[1] == "serve" and {word for word in words if word.startswith("--")} <= flags_of("serve")
    settings = Settings()
    assert int(service["TimeoutStopSec"]) > settings.drain_seconds + STOP_MARGIN
    assert int(service["LimitNOFILE"]) > settings.max_connections + 200
    assert service["Type"] == "notify"
    name, _, _ = service["Environment"].partition("=")
    assert name.removeprefix("OFFHOOK_").lower() in Settings.model_fields


def test_the_unit_is_read_by_systemd(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed; the test above reads the unit")
    text = (DEPLOY / "offhook.service").read_text().replace("/opt/offhook/bin/offhook", sys.executable)
    copy = tmp_path / "offhook.service"
    copy.write_text(text)
    done = subprocess.run([analyze, "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and str(copy) not in done.stderr, done.stderr


def test_the_settings_are_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OFFHOOK_CONFIG", str(DEPLOY / "offhook.toml"))
    assert Settings().model_fields_set == set(tomllib.loads((DEPLOY / "offhook.toml").read_text()))


def test_the_proxy_is_read_by_haproxy(tmp_path: Path) -> None:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed; the test below reads the file")
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=a"]
    make += ["-keyout", str(key), "-out", str(chain)]
    subprocess.run(make, check=True, capture_output=True, timeout=60)
    (tmp_path / "both.pem").write_text(chain.read_text() + key.read_text())
    copy = tmp_path / "haproxy.cfg"
    text = (DEPLOY / "haproxy.cfg").read_text()
    copy.write_text(text.replace("/etc/haproxy/chat.example.com.pem", str(tmp_path / "both.pem")))
    done = subprocess.run([haproxy, "-c", "-f", str(copy)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["nginx.conf", "haproxy.cfg"])
def test_proxies_wait_longer_than_an_idle_socket_is_silent(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = Settings()
    text = (DEPLOY / name).read_text()
    assert text.count("{") == text.count("}") and f":{settings.port}" in text
    waits = re.findall(r"(?:proxy_read_timeout|proxy_send_timeout|timeout (?:client|server|tunnel)) +(\d+)s", text)
    assert waits and all(int(wait) > settings.ping_interval + settings.ping_timeout for wait in waits)
    for path in ("admin", "metrics", "readyz"):
        assert path in text
